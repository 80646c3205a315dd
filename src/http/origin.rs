//! Checks `Origin`: the gateway's own pages and the configured origins may call it. It counts, like `Host`, only where a
//! request has no second one.

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

/// Refuses requests from pages of other origins, and sends CORS headers. Those only keep a page from reading the
/// response. The refusal also stops WebSockets, and requests that change something.
pub fn layer<S>(options: &CorsOptions) -> impl Layer<S, Service = OriginGuard<S>> + Clone + use<S> {
    let (cors, options) = (headers(options), Arc::new(options.clone()));
    layer_fn(move |inner| OriginGuard { inner: cors.layer(inner), options: options.clone() })
}

/// A service behind the [`layer`].
#[derive(Debug, Clone)]
pub struct OriginGuard<S> {
    inner: Cors<S>,
    options: Arc<CorsOptions>,
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
        if let Some(error) = check_single(request.headers()) {
            return Either::Right(Either::Right(ready(Ok(error.into_response()))));
        }
        if !request.headers().contains_key(header::ORIGIN) {
            // A same-origin response still varies by `Origin`, because a cache must not serve it to another origin.
            return Either::Left(self.inner.get_mut().call(request).map_ok(with_vary));
        }
        Either::Right(match check(&self.options, request.headers()) {
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

fn check(cors: &CorsOptions, headers: &HeaderMap) -> Option<ApiError> {
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    if is_own(origin, headers) || cors.allows(origin) {
        return None;
    }
    let message = format!("the origin {origin:.200} is not one of cors.origins");
    Some(ApiError::new(ErrorCode::Forbidden, message))
}

/// Whether the page came from the host of the request.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == host
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
