//! Everything together: what `tez serve` starts and stops, and what `tez check` looks at.

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet, spawn_blocking};

pub use check::{Check, Status, check};

use crate::clock::Clock;
use crate::config::Config;
use crate::events::Events;
use crate::health::Health;
use crate::http::{self, AppState};
use crate::intake::Intake;
use crate::scp;
use crate::scrub;
use crate::studies::{Studies, StudiesOptions};
use crate::telemetry::{self, FilterError};
use crate::worker::{DecodedFolder, Launch, WorkerSettings, WorkersOptions, launch_process};
use store::artefacts::ArtefactStore;
use store::objects::{ObjectStore, RecoveredObject, StoreError};
use store::state::{Durability, FoundFile, State, StateError};

/// Events of the intake that may wait for the studies' task. Every open association or upload holds
/// one place, so this is far above their limits.
const INTAKE_EVENTS_MAX: usize = 4_096;
/// Longest time that a sender waits for a place among them.
const INTAKE_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for associations and requests in flight when the service stops.
const STOP_SECONDS_MAX: u64 = 15;
/// Longest wait for threads that are at the disk, at the very end.
const THREADS_TIME_MAX: Duration = Duration::from_secs(5);

/// Why the service cannot start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The system gives no runtime or signal.
    #[error("the system does not let Tez start: {0}")]
    System(io::Error),
    /// `log.filter` cannot be read.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The data folder cannot be made.
    #[error(
        "cannot use the data folder {}: {cause}; give Tez's user the right to write there, or \
         choose another one (data_dir)",
        path.display()
    )]
    DataFolder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The object store cannot be opened; another Tez may have it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database cannot be opened.
    #[error(transparent)]
    State(#[from] StateError),
    /// A port cannot be listened on.
    #[error(
        "cannot listen for {what} on {address}: {cause}. {}",
        bind_cure(cause, setting)
    )]
    Bind {
        /// Which protocol.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The setting that chooses it.
        setting: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// A listener ended by itself.
    #[error("the {what} listener failed: {cause}")]
    Listener {
        /// Which protocol.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
}

/// The running listeners; each ends with an error only if it fails by itself.
type Listeners = JoinSet<Result<(), ServiceError>>;

/// A running service.
#[derive(Debug)]
pub struct Service {
    dicom: SocketAddr,
    http: SocketAddr,
    state: State,
    health: Health,
    shutdown: watch::Sender<bool>,
    listeners: Listeners,
    studies: Studies,
}

/// Runs the service until SIGTERM or Ctrl-C. Says on standard error when it is ready, in one line:
/// `tez ready dicom=127.0.0.1:11112 http=http://127.0.0.1:8080`.
///
/// # Errors
///
/// [`ServiceError`] if it cannot start or a listener fails.
pub fn run(config: Config) -> Result<(), ServiceError> {
    telemetry::start_logs(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ServiceError::System)?;
    let ended = runtime.block_on(async {
        let mut service = Service::start(config, Clock::system()).await?;
        // Listened for before it is ready: whoever then asks it to stop is heard.
        let terminate = signal(SignalKind::terminate()).map_err(ServiceError::System)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::System)?;
        say_ready(&service);
        let ended = service.wait_for_signal(terminate, interrupt).await;
        tracing::info!("stopping");
        service.stop().await;
        ended
    });
    // A thread that waits for a disk which does not answer is not waited for.
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    ended
}

/// Lists the files of the object folder that no row names, for the studies to take in: they were
/// acknowledged when the last run ended, or the database was lost.
async fn find_files(store: &ObjectStore, state: &State) -> Result<(), ServiceError> {
    let database_is_new = !state.objects().are_known().await?;
    let mut objects = 0;
    for first in 0..=u8::MAX {
        let known = state.objects().files_in_folder(first).await?;
        let store = store.clone();
        let found = spawn_blocking(move || unknown_files(&store, first, &known)).await;
        let found = found.unwrap_or_else(|error| Err(io::Error::other(error)));
        let found = found.map_err(ServiceError::System)?;
        if found.is_empty() {
            continue;
        }
        objects += found.len();
        let mut transaction = state.begin(Durability::Process).await?;
        for file in &found {
            transaction.add_found(file).await?;
        }
        transaction.commit().await?;
    }
    if database_is_new && objects > 0 {
        tracing::warn!(
            objects,
            "the database knows no object of the data folder, as if it were lost: it is made again \
             from the objects, and all studies are analysed again"
        );
    }
    Ok(())
}

fn unknown_files(
    store: &ObjectStore,
    first: u8,
    known: &BTreeSet<PathBuf>,
) -> io::Result<Vec<FoundFile>> {
    let mut files = store.files(first)?;
    files.retain(|path| !known.contains(path));
    let mut found = Vec::new();
    for path in files {
        if let Some(object) = RecoveredObject::at(&path)? {
            let came_at = object.came_at;
            found.push(FoundFile { path, came_at });
        }
    }
    Ok(found)
}

/// Says what is allowed, but hardly meant.
fn warn_of_open_doors(config: &Config) {
    if config.dicom.allow.is_empty() {
        tracing::warn!("dicom.allow is empty: every DICOM sender is refused");
    }
    if !config.http.bind.ip().is_loopback() {
        tracing::warn!(
            address = %config.http.bind,
            "there is no login: whoever reaches this address sees every patient and can send studies"
        );
    }
}

fn say_ready(service: &Service) {
    let line = format!(
        "tez ready dicom={} http=http://{}\n",
        service.dicom, service.http
    );
    // If nobody reads standard error, nobody waits for the line.
    drop(io::stderr().lock().write_all(line.as_bytes()));
}

impl Service {
    /// Opens the data folder, takes up what was left there, and listens.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; then nothing runs.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, ServiceError> {
        let launch: Launch = Arc::new(launch_process);
        Self::start_with(config, clock, launch).await
    }

    /// [`Service::start`] with workers of the caller's, for tests.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; then nothing runs.
    pub async fn start_with(
        config: Config,
        clock: Clock,
        launch: Launch,
    ) -> Result<Self, ServiceError> {
        let health = Health::default();
        telemetry::start_metrics();
        warn_of_open_doors(&config);
        let store = open_store(&config).await?;
        let state = State::open(&config.database.database(), &config.data_dir).await?;
        let ports = Ports::bind(&config).await?;
        let (shutdown, stopping) = watch::channel(false);
        let (sender, receiver) = mpsc::channel(INTAKE_EVENTS_MAX);
        let scrub = scrub::Scrubber {
            store: store.clone(),
            state: state.clone(),
            clock: clock.clone(),
            bytes_per_second: config.storage.scrub_bytes_per_second,
        };
        find_files(&store, &state).await?;
        let intake = Intake::new(store, state.clone(), sender, INTAKE_WAIT);
        let events = Events::new(clock.clone());
        let options = StudiesOptions {
            assembly: config.assembly.clone(),
            limits: config.limits.clone(),
            clock: clock.clone(),
            state: state.clone(),
            events: events.clone(),
            artefacts: open_artefacts(&config)?,
            workers: workers(&config, launch, &health),
            attempts_max: config.model.analysis_attempts_max.into(),
        };
        let studies = Studies::start(options, receiver).await?;
        let parts = http::HttpServices {
            intake,
            state: state.clone(),
            events,
            clock,
            health: health.clone(),
            shutdown: stopping,
        };
        let (dicom, http) = (address(&ports.dicom)?, address(&ports.http)?);
        let stopping = parts.shutdown.clone();
        let mut listeners = ports.listen(config, parts)?;
        listeners.spawn(async move {
            scrub::run(scrub, stopping.clone()).await;
            until_stopped(stopping).await;
            Ok(())
        });
        health.set_dicom(Some(dicom));
        Ok(Self {
            dicom,
            http,
            state,
            health,
            shutdown,
            listeners,
            studies,
        })
    }

    /// Where DICOM is accepted.
    pub fn dicom_address(&self) -> SocketAddr {
        self.dicom
    }

    /// Where HTTP is answered.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// What is known of studies.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes nothing in any more, lets objects in flight end, writes everything out, and ends.
    pub async fn stop(self) {
        self.health.set_dicom(None);
        self.shutdown.send_replace(true);
        let mut listeners = self.listeners;
        let ends = async {
            while let Some(ended) = listeners.join_next().await {
                if let Err(error) = joined(ended) {
                    tracing::error!(%error, "while stopping");
                }
            }
        };
        // What is not over by then is aborted with the set: its senders were not acknowledged.
        let time_max = Duration::from_secs(STOP_SECONDS_MAX);
        if tokio::time::timeout(time_max, ends).await.is_err() {
            tracing::warn!("requests that were still in flight are cut off");
        }
        drop(listeners);
        self.studies.stop().await;
        self.state.close().await;
    }

    /// Waits for SIGTERM or Ctrl-C, or for a listener that fails.
    async fn wait_for_signal(
        &mut self,
        mut terminate: Signal,
        mut interrupt: Signal,
    ) -> Result<(), ServiceError> {
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            Some(ended) = self.listeners.join_next() => joined(ended),
        }
    }
}

/// Returns once `shutdown` says true: a task of the listeners that ends before ends the service.
async fn until_stopped(mut shutdown: watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

async fn named(
    what: &'static str,
    listener: impl Future<Output = io::Result<()>>,
) -> Result<(), ServiceError> {
    let ended = listener.await;
    ended.map_err(|cause| ServiceError::Listener { what, cause })
}

fn joined(ended: Result<Result<(), ServiceError>, JoinError>) -> Result<(), ServiceError> {
    ended.unwrap_or_else(|error| Err(ServiceError::System(io::Error::other(error))))
}

fn workers(config: &Config, launch: Launch, health: &Health) -> WorkersOptions {
    WorkersOptions {
        count: config.model.workers(),
        launch,
        settings: WorkerSettings {
            model: config.model.clone(),
            limits: config.limits.clone(),
            log: config.log.clone(),
            decoded: DecodedFolder {
                path: config.data_dir.join("decoded"),
                bytes_max: config.storage.decoded_bytes_max,
            },
        },
        study_time_max: Duration::from_secs(config.model.analysis_seconds_max),
        health: health.clone(),
    }
}

fn open_artefacts(config: &Config) -> Result<ArtefactStore, ServiceError> {
    let path = config.data_dir.join("artefacts");
    ArtefactStore::open(&path).map_err(|cause| ServiceError::DataFolder { path, cause })
}

async fn open_store(config: &Config) -> Result<ObjectStore, ServiceError> {
    let (folder, limits) = (config.data_dir.clone(), config.store_limits());
    let opened = spawn_blocking(move || {
        let cannot = |cause| ServiceError::DataFolder {
            path: folder.clone(),
            cause,
        };
        store::private::folder(&folder).map_err(cannot)?;
        match ObjectStore::open(&folder, limits) {
            Err(StoreError::Failed { source, .. }) => Err(cannot(source)),
            opened => Ok(opened?),
        }
    });
    opened
        .await
        .map_err(|error| ServiceError::System(io::Error::other(error)))?
}

/// The two listening sockets, taken before anything is started.
struct Ports {
    dicom: TcpListener,
    http: TcpListener,
}

impl Ports {
    async fn bind(config: &Config) -> Result<Self, ServiceError> {
        Ok(Self {
            dicom: bind("DICOM", config.dicom.bind, "dicom.bind").await?,
            http: bind("HTTP", config.http.bind, "http.bind").await?,
        })
    }

    /// Serves both until `parts.shutdown` says true.
    fn listen(self, config: Config, parts: http::HttpServices) -> Result<Listeners, ServiceError> {
        let (intake, stopping) = (parts.intake.clone(), parts.shutdown.clone());
        let store = (config.data_dir.as_path(), config.storage.free_bytes_reserve);
        let app = AppState::new(parts, config.http, &config.limits, config.zip, store);
        let app = app.map_err(|cause| ServiceError::DataFolder {
            path: config.data_dir.clone(),
            cause,
        })?;
        let scp = scp::serve(self.dicom, config.dicom, intake, stopping);
        let mut listeners = JoinSet::new();
        listeners.spawn(named("DICOM", scp));
        listeners.spawn(async {
            http::serve(self.http, app).await;
            Ok(())
        });
        Ok(listeners)
    }
}

async fn bind(
    what: &'static str,
    address: SocketAddr,
    setting: &'static str,
) -> Result<TcpListener, ServiceError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|cause| ServiceError::Bind {
        what,
        address,
        setting,
        cause,
    })
}

/// What is done about a port that cannot be listened on.
fn bind_cure(cause: &io::Error, setting: &str) -> String {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "Ports below 1024 need a right of their own: give it to the service \
             (AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit), or set another port \
             in {setting}."
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("This machine has no such address: set one that it has in {setting}.")
        }
        _ => format!("Stop what uses it, or set {setting}."),
    }
}

fn address(listener: &TcpListener) -> Result<SocketAddr, ServiceError> {
    listener.local_addr().map_err(ServiceError::System)
}
