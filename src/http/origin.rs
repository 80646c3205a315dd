//! Which browsers may speak to the gateway: those on its own pages, and those on the origins that are named.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::refusal::{Code, Refusal};

/// Which other origins are welcome.
#[derive(Debug, Clone)]
pub struct CorsOptions {
    /// Origins as browsers write them (`https://app.example.com`), or `*` for all.
    pub origins: Vec<String>,
    /// Whether pages there may send cookies and other credentials.
    pub credentials: bool,
}

impl Default for CorsOptions {
    fn default() -> Self {
        Self { origins: vec!["http://localhost:5173".to_owned()], credentials: true }
    }
}

impl CorsOptions {
    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }
}

/// Refuses requests from pages of other origins. Unlike CORS headers, which only keep a page from reading the
/// answer, this also holds for WebSockets and for requests that change something.
pub async fn guard(State(cors): State<Arc<CorsOptions>>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return next.run(request).await };
    let origin = origin.to_str().unwrap_or_default();
    if is_own(origin, request.headers()) || cors.allows(origin) {
        return next.run(request).await;
    }
    let message = format!("the origin {origin:.200} is not one of cors.origins");
    Refusal::new(Code::Forbidden, message).into_response()
}

/// Whether the page came from the very host that is spoken to.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == host
}

/// The CORS headers.
pub fn layer(cors: &CorsOptions) -> CorsLayer {
    let welcome = cors.clone();
    let headers: [HeaderName; 6] = [
        header::CONTENT_TYPE,
        header::AUTHORIZATION,
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("x-api-key"),
        HeaderName::from_static("x-request-id"),
    ];
    let named = move |origin: &HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|origin| welcome.allows(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(named))
        .allow_credentials(cors.credentials)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(headers)
        .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER])
        .max_age(Duration::from_secs(600))
}
