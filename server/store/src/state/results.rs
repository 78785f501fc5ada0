//! Results: a report for each round of analysis, and who has read the newest.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use models::report::StudyReport;
use pipeline::uid::Uid;
use sqlx::Any;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;

use super::columns::{bad_row, integer, text, text_if_any, time, time_if_any};
use super::record::{OnConflict, Record};
use super::{Durability, ResultSummary, Scope, State, StateError, StudyRow, Transaction};

/// What became of the wish to mark a study as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It is as wished.
    Done,
    /// No such study.
    Unknown,
    /// Its newest result is not the one that was read, or there is none.
    OtherResult,
}

/// A round of analysis that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRound {
    /// Which round.
    pub generation: i64,
    /// When its result was there.
    pub created_at: Timestamp,
    /// When a newer result took its place.
    pub superseded_at: Option<Timestamp>,
}

/// What one round of analysis gave.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// Which round.
    pub generation: i64,
    /// The result.
    pub report: &'a StudyReport,
    /// Where its artefacts are kept, if it has any.
    pub artefacts: Option<&'a Path>,
    /// When it was there.
    pub at: Timestamp,
}

/// The results, for reading.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a>(pub(super) &'a State);

impl Results<'_> {
    /// The report of one round of a study; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn report(
        self,
        scope: Scope,
        uid: &Uid,
        generation: i64,
    ) -> Result<Option<StudyReport>, StateError> {
        let query = scope.of("SELECT report FROM reports WHERE study_uid = $1 AND generation = $2");
        let query = sqlx::query(query).bind(uid.as_str()).bind(generation);
        let row = self.0.row(query).await?;
        row.map(|row| report(&row)).transpose()
    }

    /// Where the artefacts of one round of a study are kept; `None` where there are none.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn artefacts(
        self,
        scope: Scope,
        uid: &Uid,
        generation: i64,
    ) -> Result<Option<PathBuf>, StateError> {
        let query =
            scope.of("SELECT artefacts FROM reports WHERE study_uid = $1 AND generation = $2");
        let query = sqlx::query(query).bind(uid.as_str()).bind(generation);
        let Some(row) = self.0.row(query).await? else {
            return Ok(None);
        };
        Ok(text_if_any(&row, "artefacts")?.map(|path| self.0.data_dir.join(path)))
    }

    /// The newest report of study `uid`.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn newest(self, uid: &Uid) -> Result<Option<StudyReport>, StateError> {
        let query = sqlx::query(
            "SELECT report FROM reports WHERE study_uid = $1 ORDER BY generation DESC LIMIT 1",
        );
        let row = self.0.row(query.bind(uid.as_str())).await?;
        row.map(|row| report(&row)).transpose()
    }

    /// All rounds of study `uid`, oldest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn rounds(self, uid: &Uid) -> Result<Vec<ReportRound>, StateError> {
        let query = sqlx::query(
            "SELECT generation, created_at, superseded_at FROM reports WHERE study_uid = $1
             ORDER BY generation",
        );
        let round = |row: &AnyRow| {
            Ok(ReportRound {
                generation: integer(row, "generation")?,
                created_at: time(row, "created_at")?,
                superseded_at: time_if_any(row, "superseded_at")?,
            })
        };
        let rows = self.0.rows(query.bind(uid.as_str())).await?;
        rows.iter().map(round).collect()
    }

    /// Marks study `uid` as read, if its newest result is that of round `result_generation`.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn mark_read(
        self,
        scope: Scope,
        uid: &Uid,
        result_generation: i64,
        at: Timestamp,
    ) -> Result<Marked, StateError> {
        let query = sqlx::query(
            "INSERT INTO reads (study_uid, result_generation, read_at)
             SELECT uid, result_generation, $3 FROM studies
                 WHERE uid = $1 AND result_generation = $2
             ON CONFLICT (study_uid) DO UPDATE SET
                 result_generation = excluded.result_generation",
        )
        .bind(uid.as_str())
        .bind(result_generation)
        .bind(at.as_millisecond());
        Ok(match self.write_mark(scope, uid, query).await? {
            None => Marked::Unknown,
            Some(0) => Marked::OtherResult,
            Some(_) => Marked::Done,
        })
    }

    /// Takes the mark back that study `uid` was read.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn mark_unread(self, scope: Scope, uid: &Uid) -> Result<Marked, StateError> {
        let query = sqlx::query("DELETE FROM reads WHERE study_uid = $1").bind(uid.as_str());
        Ok(match self.write_mark(scope, uid, query).await? {
            None => Marked::Unknown,
            Some(_) => Marked::Done,
        })
    }

    /// How many marks `query` wrote, of a study that `scope` may see; `None` if there is no such.
    async fn write_mark(
        self,
        scope: Scope,
        uid: &Uid,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<Option<u64>, StateError> {
        if self.0.studies().row(scope, uid).await?.is_none() {
            return Ok(None);
        }
        let mut transaction = self.0.begin(Durability::PowerCut).await?;
        let marked = transaction.run(query).await?;
        transaction.commit().await?;
        Ok(Some(marked))
    }
}

impl State {
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
        round: &Round<'_>,
    ) -> Result<(), StateError> {
        let mut transaction = self.begin(Durability::PowerCut).await?;
        transaction.put_report(&study.study_uid, round).await?;
        transaction.keep_or_take_back_reading(study, round).await?;
        transaction.put_study(study).await?;
        transaction.end_job(&study.study_uid).await?;
        transaction.commit().await
    }
}

impl Transaction {
    async fn put_report(&mut self, uid: &Uid, round: &Round<'_>) -> Result<(), StateError> {
        let artefacts = round.artefacts.map(|path| self.stored_path(path));
        let supersede = sqlx::query(
            "UPDATE reports SET superseded_at = $1
             WHERE study_uid = $2 AND generation < $3 AND superseded_at IS NULL",
        )
        .bind(round.at.as_millisecond())
        .bind(uid.as_str())
        .bind(round.generation);
        self.run(supersede).await?;
        Record::of("reports")
            .set("study_uid", uid)
            .set("generation", round.generation)
            .set("report", round.report.to_stored()?)
            .set("artefacts", artefacts)
            .set("created_at", round.at)
            .write(self, OnConflict::Replace(&["study_uid", "generation"]))
            .await?;
        Ok(())
    }

    /// Before the study's new summary is written: does `report` say what the one before said, of
    /// every scan? A further scan is always something else, whatever it shows.
    async fn keep_or_take_back_reading(
        &mut self,
        study: &StudyRow,
        round: &Round<'_>,
    ) -> Result<(), StateError> {
        let uid = study.study_uid.as_str();
        let read: Option<i64> =
            sqlx::query_scalar("SELECT result_generation FROM reads WHERE study_uid = $1")
                .bind(uid)
                .fetch_optional(self.connection())
                .await?;
        if read.is_none() {
            return Ok(());
        }
        let query = if self.says_the_same(study, round).await? {
            "UPDATE reads SET result_generation = $2 WHERE study_uid = $1"
        } else {
            "DELETE FROM reads WHERE study_uid = $1 AND result_generation < $2"
        };
        self.run(sqlx::query(query).bind(uid).bind(round.generation))
            .await?;
        Ok(())
    }

    async fn says_the_same(
        &mut self,
        study: &StudyRow,
        round: &Round<'_>,
    ) -> Result<bool, StateError> {
        let uid = study.study_uid.as_str();
        let before: Option<String> =
            sqlx::query_scalar("SELECT summary FROM studies WHERE uid = $1")
                .bind(uid)
                .fetch_optional(self.connection())
                .await?;
        let before: Option<ResultSummary> =
            before.and_then(|json| serde_json::from_str(&json).ok());
        let report_before: Option<String> = sqlx::query_scalar(
            "SELECT report FROM reports WHERE study_uid = $1 AND generation < $2
             ORDER BY generation DESC LIMIT 1",
        )
        .bind(uid)
        .bind(round.generation)
        .fetch_optional(self.connection())
        .await?;
        let report_before = report_before.map(|json| StudyReport::from_stored(&json));
        let same_scans = match report_before {
            Some(Ok(before)) => before.scans == round.report.scans,
            Some(Err(_)) | None => false,
        };
        Ok(same_scans && before.is_some_and(|before| before.says_the_same(&study.result)))
    }
}

fn report(row: &AnyRow) -> Result<StudyReport, StateError> {
    let json = text(row, "report")?;
    StudyReport::from_stored(&json).map_err(|_| bad_row("report", &json))
}
