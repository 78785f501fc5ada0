//! Errors over HTTP: problem documents (RFC 9457), the same shape everywhere.
//!
//! A problem says what is wrong, where, and what to do. It never holds a patient's name, a path on
//! the server or the text of an internal error: those go to the log.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What is wrong with a request, as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank` (RFC 9457 section 4.2.1); programs read `code`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// For programs: one word in snake case.
    code: Box<str>,
    /// For people: what is wrong, where, and what to do.
    detail: String,
    /// More members, such as the verdicts of an upload.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    members: Map<String, Value>,
    /// Seconds after which another try makes sense.
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
}

impl Problem {
    /// A problem of `status`, with a `code` for programs and a `detail` for people.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: code.into(),
            detail: detail.into(),
            members: Map::new(),
            retry_after_seconds: None,
        }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 413: a limit in bytes or files was exceeded.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 415: a media type that is not taken here.
    pub fn media_type(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "unsupported_media_type", detail)
    }

    /// 503: full for the moment; the client should come again.
    pub fn busy(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        problem.retry_after_seconds = Some(5);
        problem
    }

    /// 507: the disk is full.
    pub fn disk_full(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", detail)
    }

    /// 500: our fault. `error` goes to the log, not to the client.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed inside");
        let detail =
            "Something failed inside Tez; its log says what. Try again, and report it if it stays.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The sentence for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_flat_document_with_its_own_media_type() {
        let problem = Problem::busy("full").with("limit", 3);
        let text = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            text,
            serde_json::json!({"type": "about:blank", "title": "Service Unavailable", "status": 503,
                "code": "busy", "detail": "full", "limit": 3})
        );
        let response = problem.into_response();
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }
}
