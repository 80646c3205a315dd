//! Upgrades Engine.IO requests to WebSockets before they reach socketioxide.

use std::fmt::Debug;

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{self, HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use tower::Service;

use super::{
    admission::Slot,
    send_backlog::{SendBacklogs, socket_id},
};
use crate::{
    net::{self, Connection, WebSocket},
    tasks::Tasks,
};

/// What the upgrade middleware needs.
#[derive(Clone)]
pub struct UpgradeState<S> {
    /// Serves upgraded WebSockets.
    pub service: S,
    pub backlogs: SendBacklogs,
    pub tasks: Tasks,
}

/// The request headers that a socket keeps.
static KEPT_HEADERS: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    header::ORIGIN,
    header::USER_AGENT,
    HeaderName::from_static("x-forwarded-for"),
];

/// Upgrades WebSocket requests itself, so that the connection of a socket is known from its first byte. Passes on all
/// other requests.
pub async fn upgrade_websockets<S>(
    State(state): State<UpgradeState<S>>,
    mut request: Request,
    next: Next,
) -> Response
where
    S: Service<(WebSocket, http::Request<()>), Error: Debug, Future: Send> + Send + 'static,
{
    let query = request.uri().query().unwrap_or_default();
    let is_engine_io = ["EIO=4", "transport=websocket"].iter().all(|is| query.split('&').any(|it| it == *is));
    let session = socket_id(query).map(str::to_owned);
    let upgrade = if is_engine_io { net::upgrade(&mut request) } else { None };
    let (parts, body) = request.into_parts();
    let Some(upgrade) = upgrade else {
        let parts = if session.is_none() { copy_head(&parts) } else { parts };
        return next.run(Request::from_parts(parts, body)).await;
    };
    let (response, upgraded) = upgrade.split();
    let head = http::Request::from_parts(copy_head(&parts), ());
    let UpgradeState { mut service, backlogs, tasks } = state;
    tasks.spawn_until_stop("socketio-upgrades", async move {
        let Some(socket) = upgraded.await else { return };
        if let Some(session) = session {
            let connection = head.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.clone());
            let offset = connection.as_ref().and_then(Connection::written).unwrap_or(0);
            backlogs.get_or_create(&session).set_websocket(connection, offset);
        }
        if let Err(error) = service.call((socket, head)).await {
            tracing::debug!(?error, "a WebSocket has no session");
        }
    });
    response
}

/// Copies the parts of a request's head that are needed. The socket keeps them for life, and the originals would keep
/// the whole read buffer alive.
fn copy_head(parts: &Parts) -> Parts {
    let mut request = http::Request::new(());
    *request.method_mut() = parts.method.clone();
    if let Ok(uri) = parts.uri.to_string().parse() {
        *request.uri_mut() = uri;
    }
    let names = KEPT_HEADERS.iter().filter(|name| parts.headers.contains_key(*name));
    let mut headers = HeaderMap::with_capacity(names.clone().count());
    for name in names {
        headers.extend(parts.headers.get_all(name).iter().map(|value| (name.clone(), copy_value(value))));
    }
    *request.headers_mut() = headers;
    if let Some(slot) = parts.extensions.get::<Slot>() {
        request.extensions_mut().insert(slot.clone());
    }
    if let Some(connection) = parts.extensions.get::<ConnectInfo<Connection>>() {
        request.extensions_mut().insert(connection.clone());
    }
    request.into_parts().0
}

fn copy_value(value: &HeaderValue) -> HeaderValue {
    // Bytes that were valid once stay valid.
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copy.set_sensitive(value.is_sensitive());
    copy
}
