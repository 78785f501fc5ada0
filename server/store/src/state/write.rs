//! What is written, and in which transactions.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use models::report::StudyReport;
use models::triage::Priority;
use pipeline::uid::Uid;
use serde::Deserialize;
use sqlx::AnyConnection;

use super::writing::Writing;
use super::{Changes, Marked, ObjectRow, Problem, ResultSummary, State, StateError, StudyRow};
use crate::receipt::Channel;

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
        let mut writing = Writing::begin(self, &self.writer).await?;
        for object in &changes.objects {
            self.insert_object(&mut writing, object).await?;
        }
        for study in &changes.studies {
            upsert_study(&mut writing, study).await?;
        }
        for problem in &changes.problems {
            self.insert_problem(&mut writing, problem).await?;
        }
        for path in &changes.mended {
            sqlx::query("DELETE FROM damages WHERE path = $1")
                .bind(self.stored_path(path))
                .execute(&mut *writing)
                .await?;
        }
        writing.commit().await
    }

    /// The files at `paths` are whole again.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn mended(&self, paths: &[PathBuf]) -> Result<(), StateError> {
        let changes = Changes {
            mended: paths.to_vec(),
            ..Changes::default()
        };
        self.write(&changes).await
    }

    /// A kept file is damaged or gone, as `problem` says in words and `kind` in one.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn write_damage(&self, problem: &Problem, kind: &str) -> Result<(), StateError> {
        let write = async {
            let mut writing = Writing::begin(self, &self.writer).await?;
            let path = problem.path.as_deref().unwrap_or(Path::new(""));
            sqlx::query(
                "INSERT INTO damages (path, study_uid, kind, found_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (path) DO NOTHING",
            )
            .bind(self.stored_path(path))
            .bind(problem.study_uid.as_ref().map(Uid::as_str))
            .bind(kind)
            .bind(problem.at.as_millisecond())
            .execute(&mut *writing)
            .await?;
            self.insert_problem(&mut writing, problem).await?;
            writing.commit().await
        };
        let written = write.await;
        self.condition.wrote(&written);
        written
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
        let mut writing = Writing::begin(self, &self.writer).await?;
        sqlx::query("UPDATE tries SET number = number + 1")
            .execute(&mut *writing)
            .await?;
        writing.commit().await
    }

    /// Marks study `uid` as read, if its newest result is that of round `result_generation`.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn mark_read(
        &self,
        uid: &Uid,
        result_generation: i64,
        at: Timestamp,
    ) -> Result<Marked, StateError> {
        if self.study_row(uid).await?.is_none() {
            return Ok(Marked::Unknown);
        }
        let mark = async {
            let mut writing = Writing::begin(self, &self.result_writer).await?;
            let done = sqlx::query(
                "INSERT INTO reads (study_uid, result_generation, read_at)
                 SELECT uid, result_generation, $3 FROM studies
                     WHERE uid = $1 AND result_generation = $2
                 ON CONFLICT (study_uid) DO UPDATE SET
                     result_generation = excluded.result_generation",
            )
            .bind(uid.as_str())
            .bind(result_generation)
            .bind(at.as_millisecond())
            .execute(&mut *writing)
            .await?;
            writing.commit().await?;
            Ok(done.rows_affected())
        };
        let marked: Result<u64, StateError> = mark.await;
        self.condition.wrote(&marked);
        Ok(match marked? {
            0 => Marked::OtherResult,
            _ => Marked::Done,
        })
    }

    /// Takes the mark back that study `uid` was read.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn mark_unread(&self, uid: &Uid) -> Result<Marked, StateError> {
        if self.study_row(uid).await?.is_none() {
            return Ok(Marked::Unknown);
        }
        let mark = async {
            let mut writing = Writing::begin(self, &self.result_writer).await?;
            sqlx::query("DELETE FROM reads WHERE study_uid = $1")
                .bind(uid.as_str())
                .execute(&mut *writing)
                .await?;
            writing.commit().await
        };
        let marked = mark.await;
        self.condition.wrote(&marked);
        marked.map(|()| Marked::Done)
    }

    /// Writes the result of a study's present round together with the study, durably, and marks
    /// the results of earlier rounds as superseded. Where it says something else than the result
    /// before, the study is unread again.
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
        let mut writing = Writing::begin(self, &self.result_writer).await?;
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
        keep_or_take_back_reading(&mut writing, study, generation, report).await?;
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
             ON CONFLICT (path) DO UPDATE SET
                 sop_class_uid = excluded.sop_class_uid,
                 transfer_syntax_uid = excluded.transfer_syntax_uid,
                 study_uid = excluded.study_uid, series_uid = excluded.series_uid,
                 refusal = excluded.refusal
             WHERE objects.study_uid IS NULL",
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
        .bind(object.channel.map(Channel::as_str))
        .bind(object.peer.as_str())
        .bind(object.receipt.as_str())
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

/// The scans of a stored report.
#[derive(Deserialize)]
struct Scans {
    #[serde(default)]
    scans: serde_json::Value,
}

/// Before the study's new summary is written: does `report` say what the one before said, of every
/// scan? A further scan is always something else, whatever it shows.
async fn keep_or_take_back_reading(
    connection: &mut AnyConnection,
    study: &StudyRow,
    generation: i64,
    report: &StudyReport,
) -> Result<(), StateError> {
    let before: Option<String> = sqlx::query_scalar("SELECT summary FROM studies WHERE uid = $1")
        .bind(study.study_uid.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let before: Option<ResultSummary> = before.and_then(|json| serde_json::from_str(&json).ok());
    let report_before: Option<String> = sqlx::query_scalar(
        "SELECT report FROM reports WHERE study_uid = $1 AND generation < $2
         ORDER BY generation DESC LIMIT 1",
    )
    .bind(study.study_uid.as_str())
    .bind(generation)
    .fetch_optional(&mut *connection)
    .await?;
    let scans_before: Option<Scans> =
        report_before.and_then(|json| serde_json::from_str(&json).ok());
    let same_scans = match scans_before {
        Some(before) => before.scans == serde_json::to_value(&report.scans)?,
        None => false,
    };
    let same = same_scans && before.is_some_and(|before| before.says_the_same(&study.result));
    let query = if same {
        "UPDATE reads SET result_generation = $2 WHERE study_uid = $1"
    } else {
        "DELETE FROM reads WHERE study_uid = $1 AND result_generation < $2"
    };
    sqlx::query(query)
        .bind(study.study_uid.as_str())
        .bind(generation)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn upsert_study(connection: &mut AnyConnection, study: &StudyRow) -> Result<(), StateError> {
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
        .bind(study.shared_study_uid.as_ref().map(Uid::as_str))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

const UPSERT_STUDY: &str = "INSERT INTO studies (uid, internal_id, state, generation,
        priority_rank, summary, result_generation, patient_name, patient_id, patient_birth_date,
        patient_sex, patient_age, accession_number, study_date, study_time, study_description,
        institution_name, object_count, image_count, conflict_count, received_first_at,
        received_last_at, complete_at, queued_at, analysis_started_at, analysed_at, interruptions,
        shared_study_uid)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
        $20, $21, $22, $23, $24, $25, $26, $27, $28)
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
        analysed_at = excluded.analysed_at, interruptions = excluded.interruptions,
        shared_study_uid = excluded.shared_study_uid";

/// The worklist's order as a number: first is read first.
fn priority_rank(priority: Priority) -> i64 {
    match priority {
        Priority::Critical => 0,
        Priority::Urgent => 1,
        Priority::Unknown => 2,
        Priority::Routine => 3,
    }
}
