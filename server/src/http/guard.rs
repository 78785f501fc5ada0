//! Who may speak to a service that has no login: programs, and pages that Tez itself served.
//!
//! Two attacks come by way of a browser that stands inside the hospital's network. *DNS rebinding*:
//! a foreign page points its own name at Tez's address and is then same-origin with it; such a
//! request carries the foreign name in `Host`. *Cross-site requests*: a foreign page posts a form to
//! Tez; such a request carries the page's address in `Origin` and its relation in `Sec-Fetch-Site`.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::config::HttpConfig;
use super::problem::Problem;

/// Refuses requests by foreign names and from foreign pages.
pub(super) async fn guard(State(app): State<AppState>, request: Request, next: Next) -> Response {
    match check(&request, &app.config) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(request: &Request, config: &HttpConfig) -> Result<(), Problem> {
    let authority = authority(request)?;
    if !is_host_allowed(host_of(&authority), &config.hosts_allowed) {
        let detail = format!(
            "Tez does not answer to the name {:?}. If it is meant to, add it to hosts_allowed in [http].",
            shortened(host_of(&authority))
        );
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Err(Problem::new(status, "host_not_allowed", detail));
    }
    let reads = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if reads || is_origin_allowed(request.headers(), &authority, &config.origins_allowed) {
        return Ok(());
    }
    let detail = "This request was sent by a page of another site. If that page may send objects \
                  to Tez, add its origin to origins_allowed in [http].";
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "origin_not_allowed",
        detail,
    ))
}

/// The name and port by which the client called: `:authority` of HTTP/2, else `Host`.
fn authority(request: &Request) -> Result<String, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.as_str().to_ascii_lowercase());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (
        hosts.next().and_then(|host| host.to_str().ok()),
        hosts.next(),
    ) {
        (Some(host), None) => Ok(host.to_ascii_lowercase()),
        _ => Err(Problem::bad_request(
            "bad_host",
            "A request needs exactly one Host header (RFC 9112 section 3.2).",
        )),
    }
}

/// `authority` without its port; an IPv6 address without its brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

fn is_host_allowed(host: &str, allowed: &[String]) -> bool {
    // A rebinding page has a name; a bare address cannot be pointed elsewhere.
    host.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || allowed
            .iter()
            .any(|name| name == "*" || name.eq_ignore_ascii_case(host))
}

fn is_origin_allowed(headers: &HeaderMap, authority: &str, allowed: &[String]) -> bool {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("null"))
    };
    match (text("origin"), text("sec-fetch-site")) {
        (Some(origin), _) => {
            let own = ["http://", "https://"].iter().any(|scheme| {
                origin
                    .strip_prefix(scheme)
                    .is_some_and(|rest| rest.eq_ignore_ascii_case(authority))
            });
            own || allowed.iter().any(|name| name.eq_ignore_ascii_case(origin))
        }
        (None, Some(site)) => matches!(site, "same-origin" | "none"),
        // Not a browser: they send at least one of the two with every form.
        (None, None) => true,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn verdict(method: Method, headers: &[(&str, &str)], config: &HttpConfig) -> u16 {
        let request = headers
            .iter()
            .fold(
                Request::builder().method(method).uri("/api/v1/uploads"),
                |builder, (name, value)| builder.header(*name, *value),
            )
            .body(Body::empty())
            .unwrap();
        check(&request, config).map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_foreign_name_is_refused_and_an_address_is_not() {
        let mut config = HttpConfig::default();
        for (host, expected) in [
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("192.168.1.5", 200),
            ("LocalHost:8080", 200),
            ("evil.example:8080", 421),
            ("127.0.0.1.evil.example", 421),
            ("", 421),
        ] {
            assert_eq!(
                verdict(Method::GET, &[("host", host)], &config),
                expected,
                "{host}"
            );
        }
        assert_eq!(verdict(Method::GET, &[], &config), 400);
        config.hosts_allowed = vec!["tez.example".to_owned()];
        assert_eq!(
            verdict(Method::GET, &[("host", "TEZ.example:1")], &config),
            200
        );
    }

    #[test]
    fn a_post_from_a_foreign_page_is_refused() {
        let mut config = HttpConfig::default();
        let host = ("host", "127.0.0.1:8080");
        for (name, value, expected) in [
            ("origin", "http://127.0.0.1:8080", 200),
            ("origin", "http://127.0.0.1:9090", 403),
            ("origin", "https://evil.example", 403),
            ("origin", "null", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "same-site", 403),
            ("sec-fetch-site", "same-origin", 200),
            ("user-agent", "curl", 200),
        ] {
            let found = verdict(Method::POST, &[host, (name, value)], &config);
            assert_eq!(found, expected, "{name}: {value}");
        }
        let foreign = [host, ("origin", "https://portal.example")];
        assert_eq!(
            verdict(Method::GET, &foreign, &config),
            200,
            "reading is the browser's to refuse"
        );
        config.origins_allowed = vec!["https://portal.example".to_owned()];
        assert_eq!(verdict(Method::POST, &foreign, &config), 200);
    }
}
