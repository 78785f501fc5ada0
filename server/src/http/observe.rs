//! What every request passes through: a log line, metrics, security headers, one form for errors.

use std::any::Any;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::problem::Problem;

/// Longest text of a foreign error that is handed on, bytes.
const ERROR_TEXT_BYTES_MAX: usize = 4 << 10;

/// Nothing but Tez's own files, and no other page around Tez's.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Logs and counts the request, by the route and never by what stands in its path.
pub(super) async fn observe(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let started = app.clock.monotonic();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let seconds = app.clock.monotonic().saturating_sub(started).as_secs_f64();
    let route = route
        .as_ref()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let status = response.status().as_u16();
    tracing::debug!(%method, route, status, seconds, "answered");
    let method = known_method(&method);
    metrics::counter!("tez_http_requests_total", "method" => method, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!("tez_http_request_seconds", "method" => method, "route" => route)
        .record(seconds);
    response
}

/// A client may invent methods; each would be a metric of its own.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Tells the browser what Tez's answers may be used for.
pub(super) async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    // Patients' data must not stay in a browser's cache.
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// Ends requests that take too long; not for uploads and event streams.
pub(super) async fn in_time(State(app): State<AppState>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.config.answer_max(), next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let seconds = app.config.answer_seconds_max;
            Problem::busy(format!("There was no answer within {seconds} seconds.")).into_response()
        }
    }
}

/// Gives errors that did not come from our handlers the form of the others.
pub(super) async fn as_problem(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || has_own_form(&response) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, ERROR_TEXT_BYTES_MAX)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let code = status
        .canonical_reason()
        .unwrap_or("error")
        .to_lowercase()
        .replace(' ', "_");
    let mut response = Problem::new(status, &code, text).into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

fn has_own_form(response: &Response) -> bool {
    let media = response.headers().get(header::CONTENT_TYPE);
    let media = media
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    [
        "application/problem+json",
        "application/dicom+json",
        "application/dicom+xml",
    ]
    .contains(&media)
}

/// 404 for paths that no route has.
pub(super) async fn no_such_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::not_found(format!(
        "There is nothing at {path}; /api/openapi.json lists what there is."
    ))
}

/// 405 for methods that a route does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("{method} does not work on {path}; the header Allow lists what does.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// 500 instead of a broken connection.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the form that CatchPanicLayer calls it in"
)]
pub(super) fn after_panic(panic: Box<dyn Any + Send>) -> Response<Body> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    Problem::internal(&Panicked(text.to_owned())).into_response()
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);
