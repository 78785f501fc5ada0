//! What people should know of objects: refused, doubled with other content, or left out.

use std::path::PathBuf;

use jiff::Timestamp;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;
use sqlx::any::AnyRow;

use super::columns::{reason, text, text_if_any, time, uid_if_any};
use super::record::{OnConflict, Record};
use super::{LIST_ROWS_MAX, Scope, State, StateError, Transaction};

/// Something that people should know, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// When.
    pub at: Timestamp,
    /// The study, if known.
    pub study_uid: Option<Uid>,
    /// The object, if it is about one.
    pub sop_instance_uid: Option<Uid>,
    /// Where the object's bytes are kept, inside the data folder.
    pub path: Option<PathBuf>,
    /// Who sent it.
    pub peer: String,
    /// What is wrong.
    pub reason: Reason,
}

/// The problems, for reading.
#[derive(Clone, Copy, Debug)]
pub struct Problems<'a>(pub(super) &'a State);

impl Problems<'_> {
    /// The newest problems of any study or object, newest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn newest(self, scope: Scope) -> Result<Vec<Problem>, StateError> {
        let query = scope.of("SELECT * FROM problems ORDER BY id DESC LIMIT $1");
        let query = sqlx::query(query).bind(LIST_ROWS_MAX);
        let rows = self.0.rows(query).await?;
        State::readable(&rows, problem)
    }

    /// Those of study `uid`, oldest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn of_study(self, uid: &Uid) -> Result<Vec<Problem>, StateError> {
        let query = sqlx::query("SELECT * FROM problems WHERE study_uid = $1 ORDER BY id LIMIT $2")
            .bind(uid.as_str())
            .bind(LIST_ROWS_MAX);
        let rows = self.0.rows(query).await?;
        State::readable(&rows, problem)
    }

    /// The objects of study `uid` that were not taken, as far as is remembered.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn refused_of(self, uid: &Uid) -> Result<Vec<UnreadObject>, StateError> {
        let query = sqlx::query(
            "SELECT * FROM problems WHERE study_uid = $1 AND path IS NULL AND code = $2
             ORDER BY id LIMIT $3",
        )
        .bind(uid.as_str())
        .bind(code_word(ReasonCode::UnreadObjects)?)
        .bind(LIST_ROWS_MAX);
        let rows = self.0.rows(query).await?;
        let refused = |row: &AnyRow| {
            let problem = problem(row)?;
            let mut object = UnreadObject::unknown(PathBuf::new(), problem.reason);
            object.sop_instance_uid = problem.sop_instance_uid;
            object.study_uid = problem.study_uid;
            Ok(object)
        };
        State::readable(&rows, refused)
    }
}

impl Transaction {
    /// Adds a problem.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn add_problem(&mut self, problem: &Problem) -> Result<(), StateError> {
        let id: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) + 1 FROM problems")
            .fetch_one(self.connection())
            .await?;
        let path = problem.path.as_deref().map(|path| self.stored_path(path));
        Record::of("problems")
            .set("id", id)
            .set("at", problem.at)
            .set("study_uid", problem.study_uid.as_ref())
            .set("sop_instance_uid", problem.sop_instance_uid.as_ref())
            .set("path", path)
            .set("peer", problem.peer.as_str())
            .set("code", code_word(problem.reason.code)?)
            .set("reason", serde_json::to_string(&problem.reason)?)
            .write(self, OnConflict::Otherwise(""))
            .await?;
        Ok(())
    }
}

fn problem(row: &AnyRow) -> Result<Problem, StateError> {
    Ok(Problem {
        at: time(row, "at")?,
        study_uid: uid_if_any(row, "study_uid")?,
        sop_instance_uid: uid_if_any(row, "sop_instance_uid")?,
        path: text_if_any(row, "path")?.map(PathBuf::from),
        peer: text(row, "peer")?,
        reason: reason(row, "reason")?,
    })
}

/// The code as it is written everywhere, without the quotes of JSON.
fn code_word(code: ReasonCode) -> Result<String, StateError> {
    Ok(serde_json::to_string(&code)?.trim_matches('"').to_owned())
}
