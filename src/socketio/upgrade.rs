//! Upgrades Engine.IO requests to WebSockets before they reach socketioxide.

use std::{fmt::Debug, sync::Arc, time::Duration};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{self, HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use tower::Service;

use super::{
    SocketIoOptions,
    admission::Slot,
    gate::{Closing, Gate},
    gated_socket::GatedSocket,
    poll_requests::{MISMATCH, bad_request},
    polling::{PollingSession, Probe, socket_id},
};
use crate::{
    access::Pass,
    gateway::Gateway,
    net::{self, Connection, WebSocket},
};

/// How long a client may take to complete an upgrade. Its session goes on polling meanwhile.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the upgrade middleware needs.
#[derive(Clone)]
pub struct UpgradeState<S> {
    /// Serves upgraded WebSockets.
    pub service: S,
    pub gateway: Gateway,
    pub options: SocketIoOptions,
}

/// The request headers that a socket keeps.
static KEPT_HEADERS: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    header::ORIGIN,
    header::USER_AGENT,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-forwarded-for"),
];

/// Upgrades WebSocket requests itself, so that the connection of a socket is known from its first byte, and so that
/// socketioxide only sees upgrades that succeed. Passes on all other requests.
pub async fn upgrade_websockets<S>(
    State(state): State<UpgradeState<S>>,
    mut request: Request,
    next: Next,
) -> Response
where
    S: Service<(Box<GatedSocket<WebSocket>>, http::Request<()>), Error: Debug, Future: Send> + Send + 'static,
{
    let query = request.uri().query().unwrap_or_default();
    let is_engine_io = ["EIO=4", "transport=websocket"].iter().all(|is| query.split('&').any(|it| it == *is));
    let session = request.extensions().get::<Arc<PollingSession>>().filter(|_| is_engine_io).cloned();
    let upgrade = if is_engine_io { net::upgrade(&mut request) } else { None };
    let (parts, body) = request.into_parts();
    let Some(upgrade) = upgrade else {
        let begins = parts.uri.query().and_then(socket_id).is_none();
        let parts = if begins { copy_head(&parts) } else { parts };
        return next.run(Request::from_parts(parts, body)).await;
    };
    let probe = session.map(|session| session.begin_upgrade());
    if matches!(probe, Some(None)) {
        return bad_request(MISMATCH);
    }
    let (response, upgraded) = upgrade.split();
    let head = http::Request::from_parts(copy_head(&parts), ());
    let UpgradeState { mut service, gateway, options } = state;
    gateway.tasks().clone().spawn_until_stop("socketio-upgrades", async move {
        let Some(socket) = upgraded.await else { return };
        let connection = head.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.clone());
        let slot = head.extensions().get::<Slot>().cloned();
        let closing = Closing { gateway, connection: connection.clone() };
        let gate = Gate::new(options.messages_per_second);
        // Boxed, because the tasks that hold it for life have room for several.
        let mut socket = Box::new(GatedSocket::new(socket, gate, options.max_payload, slot, closing));
        if let Some(probe) = probe.flatten() {
            let completing = Box::pin(complete(&mut socket, &probe));
            match tokio::time::timeout(PROBE_TIMEOUT, completing).await {
                Ok(true) => probe.complete(connection),
                Ok(false) | Err(_) => return,
            }
        }
        if let Err(error) = service.call((socket, head)).await {
            tracing::debug!(?error, "a WebSocket has no session");
        }
    });
    response
}

/// Does what socketioxide would do for an upgrade, and then has it see the same in one step. On its own it would jam the
/// session for as long as a client does not go on. Says whether the client has chosen the WebSocket.
async fn complete(socket: &mut GatedSocket<WebSocket>, probe: &Probe) -> bool {
    if !socket.expect(b"2probe").await || !socket.say(b"3probe").await {
        return false;
    }
    probe.probed();
    if !socket.expect(b"5").await {
        return false;
    }
    socket.replay(&["2probe", "5"], b"3probe");
    true
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
    if let Some(pass) = parts.extensions.get::<Pass>() {
        request.extensions_mut().insert(pass.clone());
    }
    if let Some(slot) = parts.extensions.get::<Slot>() {
        request.extensions_mut().insert(slot.clone());
    }
    if let Some(connection) = parts.extensions.get::<ConnectInfo<Connection>>() {
        request.extensions_mut().insert(connection.clone());
    }
    if let Some(session) = parts.extensions.get::<Arc<PollingSession>>() {
        request.extensions_mut().insert(session.clone());
    }
    request.into_parts().0
}

fn copy_value(value: &HeaderValue) -> HeaderValue {
    // Bytes that were valid once stay valid.
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copy.set_sensitive(value.is_sensitive());
    copy
}
