//! Sections of the settings that belong to no single module.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use store::objects::StoreLimits;
use store::state::Database;

/// The disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Space that is left free on the data folder's disk; below it objects are refused, bytes.
    pub free_bytes_reserve: u64,
    /// How fast kept objects are read again and compared with their hashes, bytes each second: a
    /// round over all of them, then the next. 0: they are not.
    pub scrub_bytes_per_second: u64,
    /// Most decoded slices that are kept on the data folder's disk, bytes: compressed ones are decoded
    /// while others still come. 0: none are.
    pub decoded_bytes_max: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            free_bytes_reserve: StoreLimits::default().free_bytes_reserve,
            scrub_bytes_per_second: 2 << 20,
            decoded_bytes_max: 4 << 30,
        }
    }
}

/// Which model runs, and with how many workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// ONNX Runtime's shared library; unset: looked for in the usual places.
    pub library: Option<PathBuf>,
    /// The model card, its ONNX file beside it; unset: the model inside the program.
    pub card: Option<PathBuf>,
    /// Studies analysed at the same time, 1 to 64; unset: half of the machine's cores, at least 1.
    pub workers: Option<usize>,
    /// Longest time for one study, seconds; a worker that takes longer is ended.
    pub analysis_seconds_max: u64,
    /// Workers that may be lost under a study before it ends as not analysed.
    pub analysis_attempts_max: u32,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            library: None,
            card: None,
            workers: None,
            analysis_seconds_max: 300,
            analysis_attempts_max: 2,
        }
    }
}

/// When a study counts as received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AssemblyConfig {
    /// Quiet time after which a study that cannot be shown to be whole is analysed, seconds, 0 to
    /// 3600.
    pub quiet_seconds: f64,
    /// Other quiet times, seconds, by the sender's AE title.
    pub quiet_seconds_by_sender: BTreeMap<String, f64>,
    /// Most studies that are received at the same time; one more ends the quiet time of the oldest.
    pub open_studies_max: usize,
}

impl Default for AssemblyConfig {
    fn default() -> Self {
        Self {
            quiet_seconds: 5.0,
            quiet_seconds_by_sender: BTreeMap::new(),
            open_studies_max: 256,
        }
    }
}

impl ModelConfig {
    /// Studies analysed at the same time.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| (cores() / 2).max(1))
    }

    /// Threads of one run of the network: its worker's share of the cores. More are slower when all
    /// workers are busy.
    pub fn threads_per_run(&self) -> usize {
        (cores() / self.workers()).max(1)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl AssemblyConfig {
    /// How long a study from `sender` must be quiet.
    pub fn quiet_time(&self, sender: &str) -> Duration {
        let own = self.quiet_seconds_by_sender.get(sender);
        Duration::from_secs_f64(own.copied().unwrap_or(self.quiet_seconds))
    }
}

/// Where studies, results and what is known of objects are kept.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// PostgreSQL (13 or later), such as `postgres://tez:PASSWORD@db.example/tez` or, by its socket,
    /// `postgres://tez@%2Frun%2Fpostgresql/tez`; the database is made where the server has none of
    /// that name. The connection is not encrypted: use a socket or a network of your own. Unset:
    /// SQLite, in the data folder.
    pub url: Option<String>,
}

/// The URL may hold a password.
impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.database().fmt(formatter)
    }
}

impl DatabaseConfig {
    /// The database that is meant.
    pub fn database(&self) -> Database {
        match &self.url {
            None => Database::Embedded,
            Some(url) => Database::Postgres(url.clone()),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let is_postgres =
            |url: &String| url.starts_with("postgres://") || url.starts_with("postgresql://");
        if self.url.as_ref().is_none_or(is_postgres) {
            return Ok(());
        }
        Err(
            "is no PostgreSQL URL, such as postgres://tez:PASSWORD@db.example/tez; leave it out \
             for SQLite in the data folder"
                .to_owned(),
        )
    }
}
