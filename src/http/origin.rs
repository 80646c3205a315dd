//! The door of all edges: checks `Host`, and `Origin`, by which the gateway's own pages and the configured origins may call
//! it. Each counts only where a request has no second one.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError,
    body::HttpBody,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{
    TryFutureExt,
    future::{Either, MapOk, Ready, ready},
};
use tower::{Layer, Service, layer::layer_fn};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

use super::host::HostOptions;
use crate::error::{ApiError, ErrorCode};

/// The other origins that may call the gateway.
#[derive(Debug, Clone)]
pub struct CorsOptions {
    /// Origins as browsers write them (`https://app.example.com`), or `*` for all.
    pub origins: Vec<String>,
    /// Whether pages of these origins may send cookies and other credentials.
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

/// Who may call, by `Host` and `Origin`.
#[derive(Debug, Clone)]
pub struct CallerRules {
    /// The names by which the gateway may be called.
    pub hosts: HostOptions,
    /// The other origins.
    pub cors: CorsOptions,
    /// Whether the gateway itself speaks TLS, so that a page of its own came over TLS too. Without that, the scheme of its
    /// pages is unknown: a proxy may speak TLS for it.
    pub speaks_tls: bool,
}

/// Refuses requests that name another host or come from pages of other origins, and sends CORS headers. Those only keep a
/// page from reading the response. The refusal also stops WebSockets, and requests that change something.
pub fn layer<S>(rules: CallerRules) -> impl Layer<S, Service = OriginGuard<S>> + Clone + use<S> {
    let (cors, rules) = (headers(&rules.cors), Arc::new(rules));
    layer_fn(move |inner| OriginGuard { inner: cors.layer(inner), rules: rules.clone() })
}

/// A service behind the [`layer`].
#[derive(Debug, Clone)]
pub struct OriginGuard<S> {
    inner: Cors<S>,
    rules: Arc<CallerRules>,
}

type Answer<F, T> = MapOk<F, fn(T) -> Response>;

impl<S, B> Service<Request> for OriginGuard<S>
where
    S: Service<Request, Response = Response<B>>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Default + Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<
        Answer<S::Future, S::Response>,
        Either<Answer<<Cors<S> as Service<Request>>::Future, S::Response>, Ready<Result<Response, S::Error>>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if let Some(error) = check_single(request.headers()).or_else(|| self.rules.hosts.check(&request)) {
            return Either::Right(Either::Right(ready(Ok(error.into_response()))));
        }
        if !request.headers().contains_key(header::ORIGIN) {
            // A same-origin response still varies by `Origin`, because a cache must not serve it to another origin.
            return Either::Left(self.inner.get_mut().call(request).map_ok(with_vary));
        }
        Either::Right(match self.rules.check_origin(request.headers()) {
            None => Either::Left(self.inner.call(request).map_ok(IntoResponse::into_response)),
            Some(error) => Either::Right(ready(Ok(error.into_response()))),
        })
    }
}

fn with_vary(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    response
}

/// Refuses a request that has a header twice of which others, a proxy perhaps, may have read the other one.
fn check_single(headers: &HeaderMap) -> Option<ApiError> {
    let repeated = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
    let name = [header::HOST, header::ORIGIN].into_iter().find(repeated)?;
    let message = format!("a request may have one {name} header, this one has more");
    Some(ApiError::new(ErrorCode::Malformed, message))
}

impl CallerRules {
    fn check_origin(&self, headers: &HeaderMap) -> Option<ApiError> {
        let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
        if self.is_own(origin, headers) || self.cors.allows(origin) {
            return None;
        }
        let message = format!("the origin {origin:.200} is not one of cors.origins");
        Some(ApiError::new(ErrorCode::Forbidden, message))
    }

    /// Whether the page came from the host of the request. Browsers write both alike, without the scheme's port.
    fn is_own(&self, origin: &str, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let Some(("https" | "http", authority)) = origin.split_once("://") else { return false };
        host == Some(authority) && (origin.starts_with("https:") || !self.speaks_tls)
    }
}

fn headers(cors: &CorsOptions) -> CorsLayer {
    let allowed = cors.clone();
    let headers: [HeaderName; 6] = [
        header::CONTENT_TYPE,
        header::AUTHORIZATION,
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("x-api-key"),
        HeaderName::from_static("x-request-id"),
    ];
    let named = move |origin: &HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|origin| allowed.allows(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(named))
        .allow_credentials(cors.credentials)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(headers)
        .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER])
        .max_age(Duration::from_secs(600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_our_own_by_host_and_where_it_is_known_by_scheme() {
        let is_own = |speaks_tls, origin: &str, host: &str| {
            let rules =
                CallerRules { hosts: HostOptions::default(), cors: CorsOptions::default(), speaks_tls };
            let headers = [(header::HOST, HeaderValue::from_str(host).unwrap())].into_iter().collect();
            rules.is_own(origin, &headers)
        };
        for (origin, host, without, with) in [
            ("http://localhost:3000", "localhost:3000", true, false),
            ("https://localhost:3000", "localhost:3000", true, true),
            ("https://jobs.example", "jobs.example", true, true),
            ("http://jobs.example", "jobs.example", true, false),
            ("https://[::1]:3000", "[::1]:3000", true, true),
            ("https://jobs.example:3000", "jobs.example", false, false),
            ("https://evil.example", "jobs.example", false, false),
            ("null", "null", false, false),
            ("://", "", false, false),
            ("ftp://localhost", "localhost", false, false),
            ("localhost:3000", "localhost:3000", false, false),
        ] {
            assert_eq!(is_own(false, origin, host), without, "{origin} {host}");
            assert_eq!(is_own(true, origin, host), with, "{origin} {host} with TLS");
        }
    }
}
