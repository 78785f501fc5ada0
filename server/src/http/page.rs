//! The page at `/`: plain files inside the program, nothing from elsewhere.

use axum::Router;
use axum::http::header;
use axum::routing::get;

use super::AppState;

/// Path, media type and content of each file.
const FILES: [(&str, &str, &str); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    (
        "/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    ),
    (
        "/favicon.svg",
        "image/svg+xml",
        include_str!("page/favicon.svg"),
    ),
];

/// The page's routes.
pub(super) fn routes() -> Router<AppState> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, media_type, content)| {
            let answer = move || async move {
                (
                    [
                        (header::CONTENT_TYPE, media_type),
                        (header::CACHE_CONTROL, "no-cache"),
                    ],
                    content,
                )
            };
            router.route(path, get(answer))
        })
}
