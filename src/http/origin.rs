//! Which browsers may speak to the gateway: those on its own pages, and those on the origins that are named.

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

/// Refuses requests from pages of other origins, and tells browsers which are welcome. Unlike CORS headers, which only
/// keep a page from reading the answer, the refusal also holds for WebSockets and for requests that change something.
pub fn layer<S>(options: &CorsOptions) -> impl Layer<S, Service = Guarded<S>> + Clone + use<S> {
    let (cors, options) = (headers(options), Arc::new(options.clone()));
    layer_fn(move |inner| Guarded { inner: cors.layer(inner), options: options.clone() })
}

/// A service behind the [`layer`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: Cors<S>,
    options: Arc<CorsOptions>,
}

type Answer<F, T> = MapOk<F, fn(T) -> Response>;

impl<S, B> Service<Request> for Guarded<S>
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
        if !request.headers().contains_key(header::ORIGIN) {
            // Not from a page of another origin; but a cache must not give the answer to one.
            return Either::Left(self.inner.get_mut().call(request).map_ok(varying));
        }
        Either::Right(match refusal(&self.options, request.headers()) {
            None => Either::Left(self.inner.call(request).map_ok(IntoResponse::into_response)),
            Some(refusal) => Either::Right(ready(Ok(refusal.into_response()))),
        })
    }
}

fn varying(answer: impl IntoResponse) -> Response {
    let mut answer = answer.into_response();
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    answer
}

fn refusal(cors: &CorsOptions, headers: &HeaderMap) -> Option<Refusal> {
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    if is_own(origin, headers) || cors.allows(origin) {
        return None;
    }
    let message = format!("the origin {origin:.200} is not one of cors.origins");
    Some(Refusal::new(Code::Forbidden, message))
}

/// Whether the page came from the very host that is spoken to.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == host
}

fn headers(cors: &CorsOptions) -> CorsLayer {
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
