//! What must outlive a restart, besides the objects: behind one narrow port. SQL stands only here.
//!
//! How much survives what:
//! - A killed process loses nothing that was committed.
//! - A power cut may take the last rows of objects and studies (SQLite's WAL with
//!   `synchronous=NORMAL`): the object files, which were synced before they were acknowledged, are
//!   the truth, and what is missing is read again from them at the next start.
//! - Results are written with `synchronous=FULL`: a finding that was shown is on disk.
//!
//! The statements run on SQLite and PostgreSQL alike (sqlx's `Any` driver, `$1` placeholders, TEXT
//! and BIGINT only), but for the settings of a SQLite connection in [`State::open`].

mod read;
mod rows;
mod trouble;
mod write;
mod writing;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, Connection};

pub use rows::{
    Changes, KnownObject, Marked, ObjectCounts, ObjectRow, PatientFacts, Problem, ReportRound,
    ResultSummary, StudyDetails, StudyRow, StudyState, StudyTimes, UnreadableObject, Worklist,
};
pub use trouble::Trouble;

use crate::private;
use trouble::Condition;

/// The database's file name inside the data folder.
const DATABASE_FILE: &str = "tez.sqlite";
/// Connections that read at the same time.
const READERS_MAX: u32 = 4;
/// Longest wait for a connection. SQLite itself waits five seconds for another's lock.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest wait for statements under way when the database is closed.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(3);

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The data folder's path cannot be written as a URL.
    #[error("the data folder {0:?} is not valid UTF-8; choose another one (data_dir)")]
    PathNotUtf8(PathBuf),
    /// The tables could not be made or brought up to date.
    #[error(
        "the database {path:?} cannot be brought up to date: {cause}; if a newer Tez wrote it, \
         start that one"
    )]
    Migration {
        /// Its file.
        path: PathBuf,
        /// What sqlx says.
        cause: sqlx::migrate::MigrateError,
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
    /// One connection, `synchronous=NORMAL`.
    writer: AnyPool,
    /// One connection, `synchronous=FULL`.
    result_writer: AnyPool,
    condition: Condition,
    url: String,
}

impl State {
    /// Opens the database in `data_dir`, which must exist, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it cannot be opened, or was written by a newer Tez.
    pub async fn open(data_dir: &Path) -> Result<Self, StateError> {
        install_drivers();
        let path = data_dir.join(DATABASE_FILE);
        close_to_others(&path).map_err(|error| StateError::Database(sqlx::Error::Io(error)))?;
        let url = sqlite_url(&path, "rwc")?;
        try_connecting(&url).await?;
        let writer = pool(&url, 1, "NORMAL").await?;
        migrate(&writer, path).await?;
        Ok(Self {
            condition: Condition::default(),
            url: url.clone(),
            data_dir: data_dir.to_owned(),
            readers: pool(&url, READERS_MAX, "NORMAL").await?,
            writer,
            result_writer: pool(&url, 1, "FULL").await?,
        })
    }

    /// Looks at the database in `data_dir` without changing it or making anything: how many studies
    /// it knows; `None` if there is none yet. Every page of it is looked at.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it cannot be opened, or is damaged.
    pub async fn inspect(data_dir: &Path) -> Result<Option<i64>, StateError> {
        install_drivers();
        let path = data_dir.join(DATABASE_FILE);
        if !path.try_exists().map_err(sqlx::Error::Io)? {
            return Ok(None);
        }
        let mut connection = AnyConnection::connect(&sqlite_url(&path, "ro")?).await?;
        let answer = look(&mut connection).await;
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
            // The last connection to close folds the write-ahead log into the database.
            self.writer.close().await;
        };
        if tokio::time::timeout(CLOSE_TIME_MAX, close).await.is_err() {
            tracing::warn!(
                "the database did not close in time; the next start goes on from its log"
            );
        }
    }

    /// `path` as it is stored: without the data folder where it lies in it.
    fn stored_path(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.data_dir).unwrap_or(path);
        inside.to_string_lossy().into_owned()
    }
}

/// The database's file, and those that SQLite makes beside it with its rights.
fn close_to_others(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).mode(private::FILE_MODE);
    drop(options.open(path)?);
    for suffix in ["", "-wal", "-shm"] {
        private::file_if_any(&path.with_file_name(format!("{DATABASE_FILE}{suffix}")))?;
    }
    Ok(())
}

async fn look(connection: &mut AnyConnection) -> Result<i64, StateError> {
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await?;
    if verdict != "ok" {
        return Err(StateError::Damaged(verdict));
    }
    let tables: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master WHERE name = 'studies'")
            .fetch_one(&mut *connection)
            .await?;
    if tables == 0 {
        return Ok(0);
    }
    let studies = sqlx::query_scalar("SELECT COUNT(*) FROM studies");
    Ok(studies.fetch_one(&mut *connection).await?)
}

fn install_drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

/// Opens and closes a connection as a pool would, which itself only says that it waited too long.
async fn try_connecting(url: &str) -> Result<(), StateError> {
    let mut connection = AnyConnection::connect(url).await?;
    let tried = sqlx::raw_sql("PRAGMA journal_mode = WAL; SELECT COUNT(*) FROM sqlite_master")
        .execute(&mut connection)
        .await;
    connection.close().await?;
    tried?;
    Ok(())
}

async fn migrate(pool: &AnyPool, path: PathBuf) -> Result<(), StateError> {
    let migrated = sqlx::migrate!().run(pool).await;
    migrated.map_err(|cause| {
        let text = cause.to_string();
        let error = StateError::Migration { path, cause };
        match Trouble::of(&error) {
            Some(Trouble::Damaged) => StateError::Damaged(text),
            _ => error,
        }
    })
}

async fn pool(url: &str, connections_max: u32, synchronous: &str) -> Result<AnyPool, StateError> {
    let settings = match synchronous {
        "FULL" => "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
        _ => "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
    };
    let pool = AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(CONNECTION_TIME_MAX)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(settings).execute(&mut *connection).await?;
                Ok(())
            })
        })
        .connect(url)
        .await?;
    Ok(pool)
}

/// A URL for `path`, every byte but the plainest written as `%XX`.
fn sqlite_url(path: &Path, mode: &str) -> Result<String, StateError> {
    let text = path
        .to_str()
        .ok_or_else(|| StateError::PathNotUtf8(path.to_owned()))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let encode = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    let encoded: String = text.bytes().map(encode).collect();
    Ok(format!("sqlite://{encoded}?mode={mode}"))
}

#[cfg(test)]
mod tests;
