//! Jobs: studies that wait for a worker or that one has, with their leases.

use jiff::Timestamp;
use pipeline::uid::Uid;
use sqlx::any::AnyRow;

use super::columns::{integer, text_if_any, time, uid};
use super::record::{OnConflict, Record};
use super::{State, StateError, Transaction};

/// A study that waits for a worker, or that a worker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Which study.
    pub study_uid: Uid,
    /// Which round of it.
    pub generation: i64,
    /// Workers that were lost under it.
    pub attempts: i64,
    /// Who has it; `None` while it waits.
    pub lease: Option<Lease>,
}

/// The right to analyse a study, which nobody else takes until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose workers have it.
    pub holder: String,
    /// When it ends: the study's own time is over then, too.
    pub until: Timestamp,
}

/// The jobs, for reading.
#[derive(Clone, Copy, Debug)]
pub struct Jobs<'a>(pub(super) &'a State);

impl Jobs<'_> {
    /// All jobs.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn all(self) -> Result<Vec<JobRow>, StateError> {
        let rows = self.0.rows(sqlx::query("SELECT * FROM jobs")).await?;
        State::readable(&rows, job)
    }
}

impl Transaction {
    /// Writes a job, new or changed.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn put_job(&mut self, job: &JobRow) -> Result<(), StateError> {
        let lease = job.lease.as_ref();
        Record::of("jobs")
            .set("study_uid", &job.study_uid)
            .set("generation", job.generation)
            .set("attempts", job.attempts)
            .set("leased_by", lease.map(|lease| lease.holder.as_str()))
            .set("leased_until", lease.map(|lease| lease.until))
            .write(self, OnConflict::Replace(&["study_uid"]))
            .await?;
        Ok(())
    }

    /// Study `uid` needs no worker.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn end_job(&mut self, uid: &Uid) -> Result<(), StateError> {
        let query = sqlx::query("DELETE FROM jobs WHERE study_uid = $1");
        self.run(query.bind(uid.as_str())).await?;
        Ok(())
    }
}

fn job(row: &AnyRow) -> Result<JobRow, StateError> {
    let lease = match text_if_any(row, "leased_by")? {
        None => None,
        Some(holder) => Some(Lease {
            holder,
            until: time(row, "leased_until")?,
        }),
    };
    Ok(JobRow {
        study_uid: uid(row, "study_uid")?,
        generation: integer(row, "generation")?,
        attempts: integer(row, "attempts")?,
        lease,
    })
}
