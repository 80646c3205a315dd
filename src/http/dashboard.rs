//! The live dashboard: files of our own, embedded in the binary.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// The content security policy: scripts, styles and calls of this server alone, no frames, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page needs the clipboard, and nothing else that a browser could give it.
const PERMISSIONS: &str = "camera=(), clipboard-read=(), clipboard-write=(self), display-capture=(), geolocation=(), \
                           hid=(), microphone=(), midi=(), payment=(), serial=(), usb=()";

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // A new binary must not run with cached files of an old one.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), text).into_response()
}

macro_rules! modules {
    ($($file:literal),* $(,)?) => {
        [$((concat!("/dashboard/", $file), include_str!(concat!("dashboard/", $file)))),*]
    };
}

/// The script's modules, by path.
const MODULES: [(&str, &str); 12] = modules!(
    "account.js",
    "api.js",
    "dom.js",
    "event.js",
    "first-steps.js",
    "history.js",
    "job.js",
    "list.js",
    "live.js",
    "publish.js",
    "stream.js",
    "time.js",
);

/// The dashboard's routes.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let html = || async { asset("text/html; charset=utf-8", include_str!("dashboard/index.html")) };
    let css = || async { asset("text/css; charset=utf-8", include_str!("dashboard/dashboard.css")) };
    let entry = || async { asset(SCRIPT, include_str!("dashboard/dashboard.js")) };
    let router = Router::new()
        .route("/", get(html))
        .route("/dashboard.css", get(css))
        .route("/dashboard.js", get(entry))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }));
    MODULES.into_iter().fold(router, |router, (path, text)| {
        router.route(path, get(move || async move { asset(SCRIPT, text) }))
    })
}
