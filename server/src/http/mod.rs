//! HTTP: objects in, the worklist out.
//!
//! Every answer that is not a success is a problem document ([`problem`]). The documentation at
//! `/api/openapi.json` is made from the same declarations as the routes, so the two cannot part.

pub mod body;
pub mod config;
mod connections;
pub mod events;
pub mod fault;
mod guard;
pub mod health;
pub mod media;
pub mod multipart;
mod observe;
mod page;
pub mod problem;
mod reader;
pub mod receive;
mod request;
pub mod spool;
mod stow;
pub mod stow_response;
pub mod uploads;
pub mod wire;
pub mod worklist;

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use pipeline::limits::Limits;
use pipeline::uid::Uid;
use tokio::sync::{Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::archive::ArchiveLimits;
use crate::clock::Clock;
use crate::events::Events;
use crate::health::Health;
use crate::intake::Intake;
use fairness::places::Places;
use store::state::State;

pub use config::HttpConfig;
pub use connections::serve;

use receive::Rules;
use spool::Spool;

/// Becomes true when the service stops: event streams end then.
pub type Shutdown = watch::Receiver<bool>;

/// What the service lends to HTTP.
#[derive(Clone, Debug)]
pub struct HttpServices {
    /// The door for objects.
    pub intake: Intake,
    /// What is known of studies.
    pub state: State,
    /// What happens to them.
    pub events: Events,
    /// The time.
    pub clock: Clock,
    /// What the parts of the service say of themselves.
    pub health: Health,
    /// Becomes true when the service stops.
    pub shutdown: Shutdown,
}

/// What the handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState {
    intake: Intake,
    state: State,
    events: Events,
    clock: Clock,
    health: Health,
    shutdown: Shutdown,
    config: Arc<HttpConfig>,
    header_limits: Arc<Limits>,
    archive_limits: ArchiveLimits,
    spool: Spool,
    uploads: Arc<Semaphore>,
    upload_places: Places,
    listeners: Arc<Semaphore>,
}

impl AppState {
    /// Joins the service's `parts` to its settings. Zips are spooled inside `data_dir`, where
    /// `free_bytes_reserve` bytes stay free.
    ///
    /// # Errors
    ///
    /// When the spool's folder cannot be made.
    pub fn new(
        parts: HttpServices,
        config: HttpConfig,
        limits: &Limits,
        archive_limits: ArchiveLimits,
        store: (&Path, u64),
    ) -> io::Result<Self> {
        let (data_dir, free_bytes_reserve) = store;
        Ok(Self {
            intake: parts.intake,
            state: parts.state,
            events: parts.events,
            clock: parts.clock,
            health: parts.health,
            shutdown: parts.shutdown,
            header_limits: Arc::new(limits.clone()),
            archive_limits,
            spool: Spool::open(data_dir, free_bytes_reserve)?,
            uploads: Arc::new(Semaphore::new(config.uploads_at_once_max)),
            upload_places: Places::new(config.uploads_per_address_max),
            listeners: Arc::new(Semaphore::new(config.listeners_max)),
            config: Arc::new(config),
        })
    }

    fn rules(&self, files_max: usize, study: Option<Uid>) -> Rules {
        Rules {
            header: Arc::clone(&self.header_limits),
            archive: self.archive_limits,
            files_max,
            study,
        }
    }
}

/// The whole of HTTP. Its requests carry a `ConnectInfo<SocketAddr>`: see [`serve`].
fn router(app: AppState) -> Router {
    let (api, document) = api(&app).split_for_parts();
    let document = Arc::new(document_text(&document));
    let serve_document = move || {
        let document = Arc::clone(&document);
        async move {
            (
                [("content-type", "application/json")],
                document.as_str().to_owned(),
            )
        }
    };
    Router::new()
        .merge(api)
        .route("/api/openapi.json", get(serve_document))
        .merge(page::routes())
        .fallback(observe::no_such_path)
        .method_not_allowed_fallback(observe::no_such_method)
        // Bodies are limited where they are read.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .layer(CatchPanicLayer::custom(observe::after_panic))
        .layer(from_fn(observe::as_problem))
        .layer(from_fn(observe::security_headers))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

/// The OpenAPI 3.1 document, as text that does not change without the routes.
pub fn openapi_json() -> String {
    document_text(&handlers().merge(quick_handlers()).into_openapi())
}

fn document_text(document: &utoipa::openapi::OpenApi) -> String {
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn api(app: &AppState) -> OpenApiRouter<AppState> {
    let in_time = from_fn_with_state(app.clone(), observe::in_time);
    handlers().merge(quick_handlers().route_layer(in_time))
}

/// Handlers that may take as long as their client is active.
fn handlers() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(uploads::upload))
        .routes(routes!(stow::store))
        .routes(routes!(stow::store_study))
        .routes(routes!(events::events))
}

/// Handlers that answer at once, or not at all.
fn quick_handlers() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(worklist::worklist))
        .routes(routes!(worklist::study))
        .routes(routes!(worklist::report))
        .routes(routes!(worklist::mark_read, worklist::mark_unread))
        .routes(routes!(worklist::problems))
        .routes(routes!(worklist::unreadable))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tez",
        description = "Stroke triage for non-contrast head CT. Triage aid for bleeding. Not for diagnosis. Infarcts are not looked for.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "intake", description = "Objects in"),
        (name = "DICOMweb", description = "Objects in, the DICOM way (PS3.18)"),
        (name = "worklist", description = "Studies, results and events out"),
        (name = "operation", description = "Is the service well"),
    )
)]
struct Document;

#[cfg(test)]
mod tests;
