//! Which database, and how a connection to it is set up: all that differs between the two.

use std::fmt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::MigrateDatabase;
use sqlx::{Any, AnyConnection, AnyPool, Connection};

use super::{Durability, StateError, trouble::Trouble};
use crate::private;

/// The embedded database's file inside the data folder.
const FILE: &str = "tez.sqlite";
/// PostgreSQL's `invalid_catalog_name`.
const NO_SUCH_DATABASE: &str = "3D000";
/// Connections that read at the same time.
pub(super) const READERS_MAX: u32 = 4;
/// Longest wait for a connection. SQLite itself waits five seconds for another's lock.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// Which database Tez keeps its state in.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// SQLite, in `tez.sqlite` of the data folder.
    Embedded,
    /// PostgreSQL, by its URL, `postgres://user:password@host/name` or
    /// `postgres:///name?host=/run/postgresql`.
    Postgres(String),
}

/// A URL may hold a password.
impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Embedded => "Embedded",
            Self::Postgres(_) => "Postgres(…)",
        })
    }
}

/// A database that can be connected to.
#[derive(Clone, Debug)]
pub(super) struct Located {
    database: Database,
    /// For people: a file, or what the other database is called.
    pub(super) name: String,
    url: String,
}

impl Located {
    /// The database of the data folder `data_dir`; the embedded one's file is made where absent.
    pub(super) fn prepare(database: &Database, data_dir: &Path) -> Result<Self, StateError> {
        if let Database::Embedded = database {
            let path = data_dir.join(FILE);
            close_to_others(&path).map_err(|cause| StateError::File { path, cause })?;
        }
        Self::find(database, data_dir, "rwc")
    }

    /// The same to be looked at only; `None` while there is no embedded database yet.
    pub(super) fn existing(
        database: &Database,
        data_dir: &Path,
    ) -> Result<Option<Self>, StateError> {
        if let Database::Embedded = database {
            let path = data_dir.join(FILE);
            match path.try_exists() {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(cause) => return Err(StateError::File { path, cause }),
            }
        }
        Self::find(database, data_dir, "ro").map(Some)
    }

    fn find(database: &Database, data_dir: &Path, mode: &str) -> Result<Self, StateError> {
        install_drivers();
        let file = data_dir.join(FILE);
        Ok(Self {
            database: database.clone(),
            name: match database {
                Database::Embedded => file.display().to_string(),
                Database::Postgres(_) => "of database.url".to_owned(),
            },
            url: match database {
                Database::Embedded => sqlite_url(&file, mode)?,
                Database::Postgres(url) => url.clone(),
            },
        })
    }

    /// A connection for looking; `None` where there is no database yet.
    pub(super) async fn connect_if_there(&self) -> Result<Option<AnyConnection>, StateError> {
        match AnyConnection::connect(&self.url).await {
            Ok(connection) => Ok(Some(connection)),
            Err(error) if is_no_such_database(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Tries to connect; a PostgreSQL database is made where the server has none of its name.
    pub(super) async fn reach(&self) -> Result<(), StateError> {
        if self.database == Database::Embedded {
            return self.try_connecting().await;
        }
        match self.connect_if_there().await? {
            Some(connection) => Ok(connection.close().await?),
            None => Ok(Any::create_database(&self.url).await?),
        }
    }

    /// Opens and closes a connection as a pool would, which itself only says that it waited too long.
    pub(super) async fn try_connecting(&self) -> Result<(), StateError> {
        let mut connection = AnyConnection::connect(&self.url).await?;
        let tried = sqlx::raw_sql(match self.database {
            Database::Embedded => "PRAGMA journal_mode = WAL; SELECT COUNT(*) FROM sqlite_master",
            Database::Postgres(_) => "SELECT 1",
        })
        .execute(&mut connection)
        .await;
        connection.close().await?;
        tried?;
        Ok(())
    }

    /// Reads every page of an embedded database; another one sees to itself.
    pub(super) async fn verify(&self, connection: &mut AnyConnection) -> Result<(), StateError> {
        if let Database::Postgres(_) = self.database {
            return Ok(());
        }
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(connection)
            .await?;
        match verdict.as_str() {
            "ok" => Ok(()),
            _ => Err(StateError::Damaged(verdict)),
        }
    }

    /// Whether a table of this name is there.
    pub(super) async fn has_table(
        &self,
        connection: &mut AnyConnection,
        table: &str,
    ) -> Result<bool, StateError> {
        let count = match self.database {
            Database::Embedded => "SELECT COUNT(*) FROM sqlite_master WHERE name = $1",
            Database::Postgres(_) => {
                "SELECT COUNT(*) FROM information_schema.tables
                 WHERE table_schema = current_schema() AND table_name = $1"
            }
        };
        let count: i64 = sqlx::query_scalar(count)
            .bind(table.to_owned())
            .fetch_one(connection)
            .await?;
        Ok(count > 0)
    }

    /// At most `connections_max` connections whose transactions survive what `durability` says.
    pub(super) async fn pool(
        &self,
        connections_max: u32,
        durability: Durability,
    ) -> Result<AnyPool, StateError> {
        let settings = self.session_settings(durability);
        let options = AnyPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(CONNECTION_TIME_MAX)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(settings).execute(&mut *connection).await?;
                    Ok(())
                })
            });
        Ok(options.connect(&self.url).await?)
    }

    fn session_settings(&self, durability: Durability) -> &'static str {
        match (&self.database, durability) {
            (Database::Embedded, Durability::Process) => {
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
            }
            (Database::Embedded, Durability::PowerCut) => {
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"
            }
            (Database::Postgres(_), Durability::Process) => "SET synchronous_commit = off",
            (Database::Postgres(_), Durability::PowerCut) => "SET synchronous_commit = on",
        }
    }

    /// Brings the tables up to date.
    pub(super) async fn migrate(&self, pool: &AnyPool) -> Result<(), StateError> {
        let migrated = sqlx::migrate!().run(pool).await;
        migrated.map_err(|cause| {
            let text = cause.to_string();
            let error = StateError::Migration {
                database: self.name.clone(),
                cause,
            };
            match Trouble::of(&error) {
                Some(Trouble::Damaged) => StateError::Damaged(text),
                _ => error,
            }
        })
    }
}

fn is_no_such_database(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().as_deref() == Some(NO_SUCH_DATABASE),
        _ => false,
    }
}

/// The database's file, and those that SQLite makes beside it with its rights.
fn close_to_others(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).mode(private::FILE_MODE);
    drop(options.open(path)?);
    for suffix in ["", "-wal", "-shm"] {
        private::file_if_any(&path.with_file_name(format!("{FILE}{suffix}")))?;
    }
    Ok(())
}

fn install_drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

/// A URL for `path`, every byte but the plainest written as `%XX`.
fn sqlite_url(path: &Path, mode: &str) -> Result<String, StateError> {
    let text = path
        .to_str()
        .ok_or_else(|| StateError::PathNotUtf8(PathBuf::from(path)))?;
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
