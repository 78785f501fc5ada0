//! What is written, and in which transactions.

use jiff::Timestamp;
use models::report::StudyReport;
use models::triage::Priority;
use pipeline::uid::Uid;
use sqlx::AnyConnection;

use super::writing::Writing;
use super::{Changes, ObjectRow, Problem, State, StateError, StudyRow};
use crate::intake::{Channel, Receipt};

impl State {
    /// Writes `changes` in one transaction.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn write(&self, changes: &Changes) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        let written = self.write_all(changes).await;
        self.condition.wrote(&written);
        written
    }

    async fn write_all(&self, changes: &Changes) -> Result<(), StateError> {
        let mut writing = Writing::begin(&self.writer).await?;
        for object in &changes.objects {
            self.insert_object(&mut writing, object).await?;
        }
        for study in &changes.studies {
            upsert_study(&mut writing, study).await?;
        }
        for problem in &changes.problems {
            self.insert_problem(&mut writing, problem).await?;
        }
        writing.commit().await
    }

    /// Tries whether the database can be written, and waits for it no longer than for a lock.
    ///
    /// # Errors
    ///
    /// [`StateError`]: it cannot.
    pub async fn try_writing(&self) -> Result<(), StateError> {
        let tried = self.write_mark().await;
        self.condition.wrote(&tried);
        tried
    }

    async fn write_mark(&self) -> Result<(), StateError> {
        let mut writing = Writing::begin(&self.writer).await?;
        sqlx::query("UPDATE tries SET number = number + 1")
            .execute(&mut *writing)
            .await?;
        writing.commit().await
    }

    /// Writes the result of a study's present round together with the study, durably, and marks
    /// the results of earlier rounds as superseded.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn write_result(
        &self,
        study: &StudyRow,
        generation: i64,
        report: &StudyReport,
        at: Timestamp,
    ) -> Result<(), StateError> {
        let written = self.write_round(study, generation, report, at).await;
        self.condition.wrote(&written);
        written
    }

    async fn write_round(
        &self,
        study: &StudyRow,
        generation: i64,
        report: &StudyReport,
        at: Timestamp,
    ) -> Result<(), StateError> {
        let json = serde_json::to_string(report)?;
        let mut writing = Writing::begin(&self.result_writer).await?;
        sqlx::query(
            "UPDATE reports SET superseded_at = $1
             WHERE study_uid = $2 AND generation < $3 AND superseded_at IS NULL",
        )
        .bind(at.as_millisecond())
        .bind(study.study_uid.as_str())
        .bind(generation)
        .execute(&mut *writing)
        .await?;
        sqlx::query(
            "INSERT INTO reports (study_uid, generation, report, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (study_uid, generation) DO UPDATE SET
                 report = excluded.report, created_at = excluded.created_at",
        )
        .bind(study.study_uid.as_str())
        .bind(generation)
        .bind(json)
        .bind(at.as_millisecond())
        .execute(&mut *writing)
        .await?;
        upsert_study(&mut writing, study).await?;
        writing.commit().await
    }

    async fn insert_object(
        &self,
        connection: &mut AnyConnection,
        object: &ObjectRow,
    ) -> Result<(), StateError> {
        sqlx::query(
            "INSERT INTO objects (path, content, sop_instance_uid, sop_class_uid,
                 transfer_syntax_uid, study_uid, series_uid, bytes, received_at, channel, peer,
                 receipt, refusal)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (path) DO NOTHING",
        )
        .bind(self.stored_path(&object.path))
        .bind(object.content.to_hex())
        .bind(object.sop_instance_uid.as_str())
        .bind(object.sop_class_uid.as_ref().map(Uid::as_str))
        .bind(object.transfer_syntax_uid.as_ref().map(Uid::as_str))
        .bind(object.study_uid.as_ref().map(Uid::as_str))
        .bind(object.series_uid.as_ref().map(Uid::as_str))
        .bind(i64::try_from(object.bytes).unwrap_or(i64::MAX))
        .bind(object.received_at.as_millisecond())
        .bind(object.channel.map(channel_text))
        .bind(object.peer.as_str())
        .bind(receipt_text(object.receipt))
        .bind(
            object
                .refusal
                .as_ref()
                .map(serde_json::to_string)
                .transpose()?,
        )
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    async fn insert_problem(
        &self,
        connection: &mut AnyConnection,
        problem: &Problem,
    ) -> Result<(), StateError> {
        sqlx::query(
            "INSERT INTO problems (id, at, study_uid, sop_instance_uid, path, peer, reason)
             VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM problems), $1, $2, $3, $4, $5, $6)",
        )
        .bind(problem.at.as_millisecond())
        .bind(problem.study_uid.as_ref().map(Uid::as_str))
        .bind(problem.sop_instance_uid.as_ref().map(Uid::as_str))
        .bind(problem.path.as_deref().map(|path| self.stored_path(path)))
        .bind(problem.peer.as_str())
        .bind(serde_json::to_string(&problem.reason)?)
        .execute(&mut *connection)
        .await?;
        Ok(())
    }
}

async fn upsert_study(
    connection: &mut AnyConnection,
    study: &StudyRow,
) -> Result<(), StateError> {
    let facts = &study.patient;
    let times = &study.times;
    let millisecond = |at: Timestamp| at.as_millisecond();
    sqlx::query(UPSERT_STUDY)
        .bind(study.study_uid.as_str())
        .bind(study.internal_id)
        .bind(study.state.as_str())
        .bind(study.generation)
        .bind(priority_rank(study.result.priority))
        .bind(serde_json::to_string(&study.result)?)
        .bind(study.result.result_generation)
        .bind(facts.name.as_str())
        .bind(facts.id.as_str())
        .bind(facts.birth_date.as_str())
        .bind(facts.sex.as_str())
        .bind(facts.age.as_str())
        .bind(facts.accession_number.as_str())
        .bind(facts.study_date.as_str())
        .bind(facts.study_time.as_str())
        .bind(facts.study_description.as_str())
        .bind(facts.institution_name.as_str())
        .bind(study.counts.objects)
        .bind(study.counts.images)
        .bind(study.counts.conflicts)
        .bind(millisecond(times.received_first))
        .bind(millisecond(times.received_last))
        .bind(times.complete.map(millisecond))
        .bind(times.queued.map(millisecond))
        .bind(times.analysis_started.map(millisecond))
        .bind(times.analysed.map(millisecond))
        .bind(study.interruptions)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

const UPSERT_STUDY: &str = "INSERT INTO studies (uid, internal_id, state, generation,
        priority_rank, summary, result_generation, patient_name, patient_id, patient_birth_date,
        patient_sex, patient_age, accession_number, study_date, study_time, study_description,
        institution_name, object_count, image_count, conflict_count, received_first_at,
        received_last_at, complete_at, queued_at, analysis_started_at, analysed_at, interruptions)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
        $20, $21, $22, $23, $24, $25, $26, $27)
    ON CONFLICT (uid) DO UPDATE SET
        state = excluded.state, generation = excluded.generation,
        priority_rank = excluded.priority_rank, summary = excluded.summary,
        result_generation = excluded.result_generation, patient_name = excluded.patient_name,
        patient_id = excluded.patient_id, patient_birth_date = excluded.patient_birth_date,
        patient_sex = excluded.patient_sex, patient_age = excluded.patient_age,
        accession_number = excluded.accession_number, study_date = excluded.study_date,
        study_time = excluded.study_time, study_description = excluded.study_description,
        institution_name = excluded.institution_name, object_count = excluded.object_count,
        image_count = excluded.image_count, conflict_count = excluded.conflict_count,
        received_first_at = excluded.received_first_at,
        received_last_at = excluded.received_last_at, complete_at = excluded.complete_at,
        queued_at = excluded.queued_at, analysis_started_at = excluded.analysis_started_at,
        analysed_at = excluded.analysed_at, interruptions = excluded.interruptions";

/// The worklist's order as a number: first is read first.
fn priority_rank(priority: Priority) -> i64 {
    match priority {
        Priority::Critical => 0,
        Priority::Urgent => 1,
        Priority::Unknown => 2,
        Priority::Routine => 3,
    }
}

fn channel_text(channel: Channel) -> &'static str {
    match channel {
        Channel::Dimse => "dimse",
        Channel::Stow => "stow",
        Channel::Upload => "upload",
    }
}

fn receipt_text(receipt: Receipt) -> &'static str {
    match receipt {
        Receipt::New => "new",
        Receipt::Duplicate => "duplicate",
        Receipt::Conflict => "conflict",
    }
}
