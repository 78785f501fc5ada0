//! What both roads for objects ask of a request before they read its body.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, header};
use tokio::sync::OwnedSemaphorePermit;

use super::AppState;
use super::media::MediaType;
use super::problem::Problem;
use fairness::places::Place;

/// A place among the requests that are received at the same time; free again when dropped.
#[derive(Debug)]
pub(super) struct UploadPlace {
    #[expect(dead_code, reason = "held for its drop")]
    permit: OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held for its drop")]
    of_address: Option<Place>,
}

/// A place for `request`, whose body is then read.
///
/// # Errors
///
/// 503 if all are taken, or those of its address.
pub(super) fn place(app: &AppState, request: &Request) -> Result<UploadPlace, Problem> {
    let full = |limit: usize, setting, whose: &str| {
        tracing::warn!(
            peer = peer(request),
            setting,
            "refused an upload: there are too many"
        );
        Problem::busy(format!(
            "{limit} uploads {whose}are being received, which is the limit (http.{setting}); come \
             again in a moment."
        ))
    };
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let of_address = match address {
        None => None,
        Some(ConnectInfo(address)) => {
            let limit = app.config.uploads_per_address_max;
            let place = app.upload_places.take(address.ip());
            let setting = "uploads_per_address_max";
            Some(place.ok_or_else(|| full(limit, setting, "from your address "))?)
        }
    };
    let limit = app.config.uploads_at_once_max;
    let permit = Arc::clone(&app.uploads)
        .try_acquire_owned()
        .map_err(|_full| full(limit, "uploads_at_once_max", ""))?;
    Ok(UploadPlace { permit, of_address })
}

/// Refuses a body that says of itself that it is too long, before it is sent.
///
/// # Errors
///
/// 413.
pub(super) fn check_length(headers: &HeaderMap, bytes_max: u64) -> Result<(), Problem> {
    let stated = headers.get(header::CONTENT_LENGTH);
    let stated: Option<u64> = stated.and_then(|value| value.to_str().ok()?.parse().ok());
    match stated {
        Some(bytes) if bytes > bytes_max => Err(Problem::too_large(format!(
            "The request has {bytes} bytes; {bytes_max} are taken at once. Send it in several requests."
        ))),
        _ => Ok(()),
    }
}

/// The request's media type; empty if it has none.
pub(super) fn content_type(headers: &HeaderMap) -> MediaType {
    let text = headers
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    MediaType::parse(&text.unwrap_or_default())
}

/// Who sends: the address, or `http` where it is not known.
pub(super) fn peer(request: &Request) -> String {
    let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
    info.map_or_else(
        || "http".to_owned(),
        |ConnectInfo(address)| address.ip().to_string(),
    )
}
