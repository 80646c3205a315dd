//! The HTTP edge (contract, section 3).

mod batch;
mod caller;
mod clients;
mod compression;
mod dashboard;
mod events;
mod extract;
mod health;
mod host;
mod jobs;
mod notices;
mod openapi;
mod origin;
mod pages;
mod problem;
mod publish;
mod sse;
mod streams;
mod tokens;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, header},
};
use bytes::Bytes;
use tower::ServiceBuilder;
use tower_http::{
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    set_header::SetResponseHeaderLayer,
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What the fuzz targets of this repository use besides.
#[doc(hidden)]
pub mod internals {
    pub use super::batch::read as read_batch;
}

pub(crate) use self::origin::CallerRules;
pub use self::{
    host::{Host, HostOptions, InvalidHost},
    origin::CorsOptions,
};
use crate::{
    auth::Authenticator,
    drain::Draining,
    error::{ApiError, ErrorCode},
    gateway::Gateway,
};

/// The bounds of HTTP requests.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions {
    /// The largest body of one event, in bytes.
    pub max_payload: usize,
    /// The largest body of a batch, in bytes.
    pub max_batch: usize,
    /// How many deliveries wait for a slow stream before it has to catch up from history.
    pub outbox: usize,
    /// How many bytes of deliveries wait before it has to.
    pub outbox_bytes: u64,
    /// How many streams one address may have for clients without a user; an IPv6 network of 64 bits counts as one. `None` for
    /// 100, and for any number from this machine.
    pub streams_per_address: Option<usize>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            max_payload: 128 * 1024,
            max_batch: 8 * 1024 * 1024,
            outbox: 1024,
            outbox_bytes: 1024 * 1024,
            streams_per_address: None,
        }
    }
}

/// The state of all handlers.
#[derive(Debug)]
pub(crate) struct HttpState {
    gateway: Gateway,
    options: HttpOptions,
    auth: Authenticator,
    draining: Draining,
    streams: streams::Streams,
    /// The JSON of the OpenAPI description.
    description: Bytes,
}

fn api_routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(publish::update))
        .routes(routes!(publish::progress))
        .routes(routes!(publish::completed))
        .routes(routes!(publish::error))
        .routes(routes!(publish::batch, events::all))
        .routes(routes!(jobs::newest))
        .routes(routes!(jobs::history))
        .routes(routes!(jobs::list))
        .routes(routes!(events::of_job))
        .routes(routes!(events::of_user))
        .routes(routes!(events::of_tenant))
        .routes(routes!(notices::broadcast))
        .routes(routes!(notices::emit))
        .routes(routes!(tokens::mint))
        .routes(routes!(tokens::revoke))
        .routes(routes!(clients::list))
        .routes(routes!(clients::one))
        .routes(routes!(clients::room))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::serve))
}

/// The routes of the HTTP edge, without middleware.
pub fn routes(gateway: Gateway, options: HttpOptions, auth: Authenticator, draining: Draining) -> Router {
    let (routes, mut description) = api_routes().split_for_parts();
    openapi::secure(&mut description);
    let description = description.to_json().unwrap_or_default().into();
    let unknown =
        || async { ApiError::new(ErrorCode::NotFound, "there is nothing at this path; see /openapi.json") };
    let other_method = || async {
        ApiError::new(ErrorCode::MethodNotAllowed, "this path has no such method; see /openapi.json")
    };
    routes.merge(dashboard::routes()).fallback(unknown).method_not_allowed_fallback(other_method).with_state(
        Arc::new(HttpState {
            gateway,
            options,
            auth,
            draining,
            streams: streams::Streams::default(),
            description,
        }),
    )
}

/// The middleware of all edges: request ids, the check of hosts and origins, compression of all but large answers and streams, and
/// the count of errors. Every publish passes through it, so none of it does more than it must.
pub fn with_middleware(router: Router, gateway: &Gateway, callers: CallerRules) -> Router {
    let gateway = gateway.clone();
    let middleware = ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(RandomId))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetResponseHeaderLayer::if_not_present(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF))
        .layer(origin::layer(callers))
        .map_request(compression::allow_identity)
        .layer(compression::layer())
        .map_response(move |response| problem::count_error(&gateway, response));
    router.layer(middleware)
}

/// Gives a random id to requests that have none.
#[derive(Debug, Clone, Copy)]
struct RandomId;

impl MakeRequestId for RandomId {
    fn make_request_id<B>(&mut self, _: &http::Request<B>) -> Option<RequestId> {
        let id = format!("{:032x}", fastrand::u128(..));
        HeaderValue::try_from(id).ok().map(RequestId::new)
    }
}

/// Browsers take an answer for what it says it is.
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
