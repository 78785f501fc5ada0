//! `GET /api/v1/events`: what happens to studies, as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio_stream::wrappers::{BroadcastStream, WatchStream};
use tokio_stream::{Stream, StreamExt};

use super::problem::Problem;
use super::{AppState, Shutdown};
use crate::events::{Event, Subscription};

/// What happens to studies, live, as server-sent events.
///
/// Each has an id, a type and one JSON object as data. A client that was away sends the last id
/// that it saw in `Last-Event-ID` and gets what it missed. If that is no longer kept, or the client
/// was too slow, it gets an event `reset`: then it reads the worklist afresh.
#[utoipa::path(get, path = "/api/v1/events", tag = "worklist",
    params(("Last-Event-ID" = Option<u64>, Header, description = "Id of the last event that was seen")),
    responses(
    (status = 200, description = "The events", body = Event, content_type = "text/event-stream"),
    (status = 503, description = "Too many listeners", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn events(
    State(app): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = Arc::clone(&app.listeners)
        .try_acquire_owned()
        .map_err(|_full| {
            Problem::busy(format!(
                "{} listeners are connected, which is the limit.",
                app.config.listeners_max
            ))
        })?;
    let last_seen = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let messages = messages(app.events.subscribe(last_seen));
    let messages = until_shutdown(messages, app.shutdown.clone()).map(move |message| {
        // The listener's place is free again once the stream is dropped.
        let _held = &place;
        Ok::<_, Infallible>(message)
    });
    let keep_alive = Duration::from_secs(app.config.keep_alive_seconds.max(1));
    let stream = Sse::new(messages).keep_alive(KeepAlive::new().interval(keep_alive).text("alive"));
    let mut response = stream.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Reverse proxies buffer otherwise (nginx).
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

type Messages = Pin<Box<dyn Stream<Item = Message> + Send>>;

fn messages(subscription: Subscription) -> Messages {
    // The first bytes at once: a client knows that it is connected before anything happens.
    let hello = Message::default()
        .comment("Tez")
        .retry(Duration::from_secs(2));
    let reset = subscription.missed.then(reset);
    let start = std::iter::once(hello).chain(reset);
    let backlog = subscription
        .backlog
        .into_iter()
        .map(|event| message(&event));
    let live = BroadcastStream::new(subscription.live)
        .map(|event| event.map_or_else(|_lagged| self::reset(), |event| message(&event)));
    Box::pin(tokio_stream::iter(start.chain(backlog)).chain(live))
}

/// Ends the stream when the service stops, which otherwise would wait for its listeners.
fn until_shutdown(messages: Messages, shutdown: Shutdown) -> impl Stream<Item = Message> + Send {
    let stop = WatchStream::new(shutdown)
        .filter(|stop| *stop)
        .map(|_stop| None);
    messages.map(Some).merge(stop).map_while(|message| message)
}

fn reset() -> Message {
    let detail = "Events were missed: read the worklist afresh.";
    Message::default()
        .event("reset")
        .data(serde_json::json!({"type": "reset", "detail": detail}).to_string())
}

fn message(event: &Event) -> Message {
    let json = serde_json::to_value(event).unwrap_or_default();
    let kind = json["type"].as_str().unwrap_or("event").to_owned();
    Message::default()
        .id(event.id.to_string())
        .event(kind)
        .data(json.to_string())
}
