//! What must outlive a restart, besides the objects: behind one narrow port. SQL stands only here.
//!
//! Each aggregate has its repository, by which it is read: [`State::studies`], [`State::objects`],
//! [`State::results`], [`State::problems`]. It is written through a [`Transaction`], which has a
//! method for each thing that can be written; [`State::write`] writes what one turn changed.
//!
//! How much survives what is said by [`Durability`]: a killed process loses nothing that was
//! committed; results, which people were shown, survive a power cut as well.
//!
//! The statements run on SQLite and PostgreSQL alike (sqlx's `Any` driver, `$1` placeholders, TEXT
//! and BIGINT only); what differs stands in [`database`].

mod columns;
mod database;
mod jobs;
mod objects;
mod problems;
mod record;
mod results;
mod scope;
mod studies;
mod transaction;
mod trouble;
mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, AnyPool, Connection};

pub use database::Database;
pub use jobs::{JobRow, Jobs, Lease};
pub use objects::{FoundFile, KnownObject, ObjectRow, Objects, UnreadableObject};
pub use problems::{Problem, Problems};
pub use results::{Marked, ReportRound, Results, Round};
pub use scope::Scope;
pub use studies::{
    ObjectCounts, PatientFacts, ResultSummary, Studies, StudyDetails, StudyRow, StudyState,
    StudyTimes, Worklist, WorklistPage,
};
pub use transaction::{Durability, Transaction};
pub use trouble::Trouble;
pub use write::Changes;

use database::{Located, READERS_MAX};
use trouble::Condition;

/// Longest wait for statements under way when the database is closed.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(3);
/// Most rows of one list that is not paged.
const LIST_ROWS_MAX: i64 = 1_000;

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The data folder's path cannot be written as a URL.
    #[error("the data folder {0:?} is not valid UTF-8; choose another one (data_dir)")]
    PathNotUtf8(PathBuf),
    /// The tables could not be made or brought up to date.
    #[error(
        "the database {database} cannot be brought up to date: {cause}; if a newer Tez wrote it, \
         start that one"
    )]
    Migration {
        /// Which database.
        database: String,
        /// What sqlx says.
        cause: sqlx::migrate::MigrateError,
    },
    /// The embedded database's file cannot be made, or others kept out of it.
    #[error("the database {path:?} cannot be made: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A statement failed.
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
    /// Its bytes are not those that were written.
    #[error("{cure} (SQLite says: {0})", cure = trouble::DAMAGED)]
    Damaged(String),
    /// A row holds what Tez never writes.
    #[error("the database holds {value:?} as {column}; it was changed by another program")]
    BadRow {
        /// Which column.
        column: &'static str,
        /// What it holds, shortened.
        value: String,
    },
    /// A value cannot be written as JSON.
    #[error("a result cannot be written as JSON: {0}")]
    Json(serde_json::Error),
}

impl From<sqlx::Error> for StateError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        let error = Self::Database(error);
        match Trouble::of(&error) {
            Some(Trouble::Damaged) => Self::Damaged(text),
            _ => error,
        }
    }
}

impl From<serde_json::Error> for StateError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// The database. Clones share its connections.
#[derive(Clone, Debug)]
pub struct State {
    /// Paths inside it are stored without it, so that the folder can be moved.
    data_dir: PathBuf,
    readers: AnyPool,
    /// One connection, for [`Durability::Process`].
    writer: AnyPool,
    /// One connection, for [`Durability::PowerCut`].
    result_writer: AnyPool,
    condition: Condition,
    database: Located,
}

impl State {
    /// Opens `database` for the data folder `data_dir`, which must exist, and brings its tables up
    /// to date.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it cannot be opened, or was written by a newer Tez.
    pub async fn open(database: &Database, data_dir: &Path) -> Result<Self, StateError> {
        let database = Located::prepare(database, data_dir)?;
        database.reach().await?;
        let writer = database.pool(1, Durability::Process).await?;
        database.migrate(&writer).await?;
        Ok(Self {
            condition: Condition::default(),
            data_dir: data_dir.to_owned(),
            readers: database.pool(READERS_MAX, Durability::Process).await?,
            writer,
            result_writer: database.pool(1, Durability::PowerCut).await?,
            database,
        })
    }

    /// Looks at `database` without changing it or making anything: how many studies it knows;
    /// `None` if there is none yet. Every page of an embedded one is looked at.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it cannot be opened, or is damaged.
    pub async fn inspect(database: &Database, data_dir: &Path) -> Result<Option<i64>, StateError> {
        let Some(database) = Located::existing(database, data_dir)? else {
            return Ok(None);
        };
        let Some(mut connection) = database.connect_if_there().await? else {
            return Ok(None);
        };
        let look = async {
            database.verify(&mut connection).await?;
            if !database.has_table(&mut connection, "studies").await? {
                return Ok(0);
            }
            let studies = sqlx::query_scalar("SELECT COUNT(*) FROM studies");
            Ok(studies.fetch_one(&mut connection).await?)
        };
        let answer = look.await;
        connection.close().await?;
        answer.map(Some)
    }

    /// What keeps the database from its work now, as far as it was tried; `None` when all is well.
    pub fn trouble(&self) -> Option<Trouble> {
        self.condition.trouble()
    }

    /// Writes everything out and closes the database. Later calls fail.
    pub async fn close(&self) {
        let close = async {
            self.readers.close().await;
            self.result_writer.close().await;
            // The last connection to close folds SQLite's write-ahead log into the database.
            self.writer.close().await;
        };
        if tokio::time::timeout(CLOSE_TIME_MAX, close).await.is_err() {
            tracing::warn!(
                "the database did not close in time; the next start goes on from its log"
            );
        }
    }

    /// The studies, for reading.
    pub fn studies(&self) -> Studies<'_> {
        Studies(self)
    }

    /// The objects, for reading.
    pub fn objects(&self) -> Objects<'_> {
        Objects(self)
    }

    /// The results, for reading.
    pub fn results(&self) -> Results<'_> {
        Results(self)
    }

    /// The jobs, for reading.
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs(self)
    }

    /// What people should know, for reading.
    pub fn problems(&self) -> Problems<'_> {
        Problems(self)
    }

    /// Rows as `read` reads them. One that holds what Tez never writes is left out of a list, and said
    /// in the log.
    fn readable<T>(
        rows: &[AnyRow],
        read: impl Fn(&AnyRow) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let mut found = Vec::new();
        for row in rows {
            match read(row) {
                Ok(one) => found.push(one),
                Err(error @ StateError::BadRow { .. }) => {
                    tracing::error!(%error, "a row cannot be read and is left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn count(&self, query: &'static str) -> Result<i64, StateError> {
        sqlx::query_scalar(query)
            .fetch_one(&self.readers)
            .await
            .noted(self)
    }

    async fn rows(
        &self,
        query: sqlx::query::Query<'_, Any, AnyArguments>,
    ) -> Result<Vec<AnyRow>, StateError> {
        query.fetch_all(&self.readers).await.noted(self)
    }

    async fn row(
        &self,
        query: sqlx::query::Query<'_, Any, AnyArguments>,
    ) -> Result<Option<AnyRow>, StateError> {
        query.fetch_optional(&self.readers).await.noted(self)
    }
}

/// `path` as it is stored: without the data folder where it lies in it.
fn stored_path(data_dir: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(data_dir).unwrap_or(path);
    inside.to_string_lossy().into_owned()
}

/// Keeps in mind what a reading met.
trait Noted<T> {
    fn noted(self, state: &State) -> Result<T, StateError>;
}

impl<T> Noted<T> for Result<T, sqlx::Error> {
    fn noted(self, state: &State) -> Result<T, StateError> {
        let result = self.map_err(StateError::from);
        state.condition.read(&result);
        result
    }
}

#[cfg(test)]
mod tests;
