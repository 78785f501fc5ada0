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
mod write;

use std::path::{Path, PathBuf};
use std::sync::Once;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;

pub use rows::{
    Changes, ObjectCounts, ObjectRow, PatientFacts, Problem, ReportRound, ResultSummary,
    StudyDetails, StudyRow, StudyState, StudyTimes, UnreadableObject, Worklist,
};

/// The database's file name inside the data folder.
const DATABASE_FILE: &str = "tez.sqlite";
/// Connections that read at the same time.
const READERS_MAX: u32 = 4;

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
        Self::Database(error)
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
}

impl State {
    /// Opens the database in `data_dir`, which must exist, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it cannot be opened, or was written by a newer Tez.
    pub async fn open(data_dir: &Path) -> Result<Self, StateError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let path = data_dir.join(DATABASE_FILE);
        let url = sqlite_url(&path)?;
        let writer = pool(&url, 1, "NORMAL").await?;
        sqlx::migrate!()
            .run(&writer)
            .await
            .map_err(|cause| StateError::Migration { path, cause })?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            readers: pool(&url, READERS_MAX, "NORMAL").await?,
            writer,
            result_writer: pool(&url, 1, "FULL").await?,
        })
    }

    /// Writes everything out and closes the database. Later calls fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.result_writer.close().await;
        // The last connection to close folds the write-ahead log into the database.
        self.writer.close().await;
    }

    /// `path` as it is stored: without the data folder where it lies in it.
    fn stored_path(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.data_dir).unwrap_or(path);
        inside.to_string_lossy().into_owned()
    }
}

async fn pool(url: &str, connections_max: u32, synchronous: &str) -> Result<AnyPool, StateError> {
    let settings = match synchronous {
        "FULL" => "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
        _ => "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
    };
    let pool = AnyPoolOptions::new()
        .max_connections(connections_max)
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
fn sqlite_url(path: &Path) -> Result<String, StateError> {
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
    Ok(format!("sqlite://{encoded}?mode=rwc"))
}

#[cfg(test)]
mod tests;
