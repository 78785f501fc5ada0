//! What one turn of the studies' task writes.

use std::path::PathBuf;

use super::{Durability, JobRow, ObjectRow, Problem, State, StateError, StudyRow};

/// What one transaction writes: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// New objects; those with a known path are left as they are, unless they have no study yet.
    pub objects: Vec<ObjectRow>,
    /// Studies, new or changed.
    pub studies: Vec<StudyRow>,
    /// Jobs, new or changed.
    pub jobs: Vec<JobRow>,
    /// Problems to add.
    pub problems: Vec<Problem>,
    /// Files that were damaged or gone and are whole again.
    pub mended: Vec<PathBuf>,
    /// Files that a start found and that were read since, or are gone.
    pub no_longer_found: Vec<PathBuf>,
}

impl Changes {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
            && self.studies.is_empty()
            && self.jobs.is_empty()
            && self.problems.is_empty()
            && self.mended.is_empty()
            && self.no_longer_found.is_empty()
    }
}

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
        let mut transaction = self.begin(Durability::Process).await?;
        for object in &changes.objects {
            transaction.add_object(object).await?;
        }
        for study in &changes.studies {
            transaction.put_study(study).await?;
        }
        for job in &changes.jobs {
            transaction.put_job(job).await?;
        }
        for problem in &changes.problems {
            transaction.add_problem(problem).await?;
        }
        for path in &changes.mended {
            transaction.mend(path).await?;
        }
        for path in &changes.no_longer_found {
            transaction.forget_found(path).await?;
        }
        transaction.commit().await
    }

    /// Tries whether the database can be written, and waits for it no longer than for a lock.
    ///
    /// # Errors
    ///
    /// [`StateError`]: it cannot.
    pub async fn try_writing(&self) -> Result<(), StateError> {
        let mut transaction = self.begin(Durability::Process).await?;
        let mark = sqlx::query("UPDATE tries SET number = number + 1");
        transaction.run(mark).await?;
        transaction.commit().await
    }
}
