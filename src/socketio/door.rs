//! What comes in: a request that begins a session, or that brings one from polls to a WebSocket, on its way to
//! socketioxide.

use std::fmt::Debug;

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{self, HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use tower::Service;

use super::{
    admission::Place,
    lines::{Lines, socket_id},
};
use crate::{
    connection::{self, Connection, WebSocket},
    tasks::Tasks,
};

/// The way in.
#[derive(Clone)]
pub struct Door<S> {
    /// What takes WebSockets.
    pub service: S,
    pub lines: Lines,
    pub tasks: Tasks,
}

/// The headers that are of interest to whoever asks a socket about the request that it came with.
static KEPT: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    header::ORIGIN,
    header::USER_AGENT,
    HeaderName::from_static("x-forwarded-for"),
];

/// Makes a WebSocket of a request that asks for one, so that it is known from its first byte on what carries the
/// socket; hands on all others.
pub async fn open<S>(State(door): State<Door<S>>, mut request: Request, next: Next) -> Response
where
    S: Service<(WebSocket, http::Request<()>), Error: Debug, Future: Send> + Send + 'static,
{
    let query = request.uri().query().unwrap_or_default();
    let is_of_engine_io =
        ["EIO=4", "transport=websocket"].iter().all(|is| query.split('&').any(|it| it == *is));
    let session = socket_id(query).map(str::to_owned);
    let upgrade = if is_of_engine_io { connection::upgrade(&mut request) } else { None };
    let (parts, body) = request.into_parts();
    let Some(upgrade) = upgrade else {
        let parts = if session.is_none() { detached(&parts) } else { parts };
        return next.run(Request::from_parts(parts, body)).await;
    };
    let (response, upgraded) = upgrade.split();
    let head = http::Request::from_parts(detached(&parts), ());
    let Door { mut service, lines, tasks } = door;
    tasks.spawn_until_stop("socketio-upgrades", async move {
        let Some(socket) = upgraded.await else { return };
        if let Some(session) = session {
            let connection = head.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.clone());
            let before = connection.as_ref().and_then(Connection::written).unwrap_or(0);
            lines.line(&session).set_websocket(connection, before);
        }
        if let Err(error) = service.call((socket, head)).await {
            tracing::debug!(?error, "a WebSocket has no session");
        }
    });
    response
}

/// Copies of what is of interest in a request's head. The socket keeps them for as long as it lives, and as they came
/// they hold on to the whole buffer that the request was read into.
fn detached(parts: &Parts) -> Parts {
    let mut request = http::Request::new(());
    *request.method_mut() = parts.method.clone();
    if let Ok(uri) = parts.uri.to_string().parse() {
        *request.uri_mut() = uri;
    }
    let names = KEPT.iter().filter(|name| parts.headers.contains_key(*name));
    let mut headers = HeaderMap::with_capacity(names.clone().count());
    for name in names {
        headers.extend(parts.headers.get_all(name).iter().map(|value| (name.clone(), copied(value))));
    }
    *request.headers_mut() = headers;
    if let Some(place) = parts.extensions.get::<Place>() {
        request.extensions_mut().insert(place.clone());
    }
    if let Some(connection) = parts.extensions.get::<ConnectInfo<Connection>>() {
        request.extensions_mut().insert(connection.clone());
    }
    request.into_parts().0
}

fn copied(value: &HeaderValue) -> HeaderValue {
    // The same bytes are as valid as they were.
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copy.set_sensitive(value.is_sensitive());
    copy
}
