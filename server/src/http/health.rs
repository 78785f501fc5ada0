//! Is the service alive, is it ready, and how does it do.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use models::report::ModelIdentity;
use pipeline::reason::Reason;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::problem::Problem;
use crate::telemetry;
use store::state::Trouble;

/// Longest wait for the database's answer. SQLite waits five seconds for another's lock.
const DATABASE_TIME_MAX: Duration = Duration::from_secs(3);

/// One thing that the service needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// `store`, `database`, `dicom`, `inference` or `objects`.
    pub name: &'static str,
    /// It works.
    pub ok: bool,
    /// What it is, or what is wrong and what to do.
    pub text: String,
}

/// Whether the service can do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// Objects are accepted and kept.
    pub ready: bool,
    /// Objects are accepted and kept, but no study can be analysed: each ends as not analysed.
    pub degraded: bool,
    /// What was checked.
    pub checks: Vec<Check>,
    /// The network that runs; `null` without one.
    #[schema(value_type = Option<Object>)]
    pub model: Option<ModelIdentity>,
    /// Tez's version.
    pub version: &'static str,
}

/// The process runs and answers.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses(
    (status = 200, description = "Alive", body = Object),
))]
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(serde_json::json!({"status": "alive", "version": env!("CARGO_PKG_VERSION")}))
}

/// Whether objects are accepted and kept.
///
/// 200 when store, database and SCP work. A service that cannot run its model still accepts
/// objects and shows them as not analysed: it answers 200 with `degraded` true.
#[utoipa::path(get, path = "/readyz", tag = "operation", responses(
    (status = 200, description = "Ready; see `degraded`", body = Readiness),
    (status = 503, description = "Not ready; the member `readiness` says what is not", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn readyz(State(app): State<AppState>) -> Response {
    let readiness = readiness(&app).await;
    if readiness.ready {
        return Json(readiness).into_response();
    }
    let wrong: Vec<_> = readiness.checks.iter().filter(|check| !check.ok).collect();
    let names: Vec<&str> = wrong.iter().map(|check| check.name).collect();
    let texts: Vec<&str> = wrong.iter().map(|check| check.text.as_str()).collect();
    let detail = format!("Not working: {}. {}", names.join(", "), texts.join(" "));
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
        .with("readiness", readiness)
        .into_response()
}

async fn readiness(app: &AppState) -> Readiness {
    let facts = app.health.facts().clone();
    let checks = vec![
        check_store(app).await,
        check_database(app).await,
        check_dicom(facts.dicom),
        check_inference(facts.inference.as_ref()),
        check_objects(app).await,
    ];
    let works = |name| checks.iter().any(|check| check.name == name && check.ok);
    Readiness {
        ready: works("store") && works("database") && works("dicom"),
        degraded: !works("inference"),
        model: facts.inference.and_then(Result::ok),
        version: env!("CARGO_PKG_VERSION"),
        checks,
    }
}

fn check(name: &'static str, verdict: Result<String, String>) -> Check {
    Check {
        name,
        ok: verdict.is_ok(),
        text: verdict.unwrap_or_else(|text| text),
    }
}

async fn check_store(app: &AppState) -> Check {
    check("store", try_store(app).await)
}

/// Tries whether the data folder takes a file now.
async fn try_store(app: &AppState) -> Result<String, String> {
    let spool = app.spool.clone();
    match tokio::task::spawn_blocking(move || spool.try_writing()).await {
        Ok(Ok(())) => Ok("The data folder takes objects.".to_owned()),
        Ok(Err(error)) => Err(format!("No object is taken: {error}.")),
        Err(_panicked) => Err("The data folder could not be tried.".to_owned()),
    }
}

/// Tries to read and to write. The try goes on by itself when this no longer waits for it, so that
/// its end is known to the next one who asks.
async fn check_database(app: &AppState) -> Check {
    let state = app.state.clone();
    let tried = tokio::spawn(async move {
        state.studies().by_state().await?;
        state.try_writing().await
    });
    let trouble = match tokio::time::timeout(DATABASE_TIME_MAX, tried).await {
        Ok(Ok(Ok(()))) => app.state.trouble(), // a damage stays known although other pages are whole
        Ok(Ok(Err(error))) => {
            tracing::error!(%error, "the database does not answer");
            Trouble::of(&error).or(Some(Trouble::Failing))
        }
        Ok(Err(_panicked)) => Some(Trouble::Failing),
        Err(_elapsed) => app.state.trouble().or(Some(Trouble::Locked)),
    };
    let answer = "The database answers and can be written.".to_owned();
    check(
        "database",
        trouble.map_or(Ok(answer), |trouble| Err(trouble.to_string())),
    )
}

/// What keeps the service from its work, in sentences for the worklist's readers: asked for with
/// every list, so nothing here waits.
pub(super) async fn problems(app: &AppState) -> Vec<String> {
    let database = app.state.trouble().map(|trouble| trouble.to_string());
    let spool = app.spool.clone();
    let room = tokio::task::spawn_blocking(move || spool.check_space()).await;
    let store = match room {
        Ok(Err(error)) => Some(format!("No object is taken: {error}.")),
        Ok(Ok(())) | Err(_) => None,
    };
    database.into_iter().chain(store).collect()
}

/// Damaged objects do not keep others from being taken: the service stays ready.
async fn check_objects(app: &AppState) -> Check {
    let known = app.state.objects().damages().await;
    check(
        "objects",
        match known {
            Ok(0) => Ok("No kept object is known to be damaged.".to_owned()),
            Ok(count) => Err(format!(
                "{count} kept objects are damaged or lost: /api/v1/objects/problems names them. \
                 Send their studies again."
            )),
            Err(_told_by_another_check) => Ok("Not known without the database.".to_owned()),
        },
    )
}

fn check_dicom(address: Option<SocketAddr>) -> Check {
    let text = address.map(|address| format!("DICOM is accepted at {address}."));
    check(
        "dicom",
        text.ok_or_else(|| "The DICOM listener does not run.".to_owned()),
    )
}

fn check_inference(inference: Option<&Result<ModelIdentity, Reason>>) -> Check {
    check(
        "inference",
        match inference {
            Some(Ok(model)) => Ok(format!("Model {} {} is loaded.", model.name, model.version)),
            Some(Err(reason)) => Err(reason.text.clone()),
            None => Err("The model is not loaded yet.".to_owned()),
        },
    )
}

/// Counters, gauges and histograms as Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses(
    (status = 200, description = "Prometheus text format 0.0.4", body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(app): State<AppState>) -> Response {
    // Without an answer of the database they stand as they were: `tez_database_ok` tells of that.
    match (
        app.state.studies().by_state().await,
        app.state.objects().damages().await,
    ) {
        (Ok(studies), Ok(damages)) => telemetry::show_database(&studies, damages),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "the studies cannot be counted");
        }
    }
    let text = telemetry::render_metrics();
    let media_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}
