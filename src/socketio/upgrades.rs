//! Which connection an upgraded socket is on. socketioxide knows only a socket's first request, and a client that
//! began with long-polling is on another connection after its upgrade: the one that may have to be cut.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use socketioxide::{TransportType, extract::SocketRef};

use crate::connection::Connection;

/// The connections of upgraded sockets, by socket id. It holds no more than twice as many as are open.
#[derive(Debug, Clone, Default)]
pub struct Upgrades(Arc<Mutex<Connections>>);

#[derive(Debug)]
struct Connections {
    by_socket: HashMap<String, Connection>,
    /// At how many entries those of closed connections are looked for.
    sweep_at: usize,
}

/// How many entries are never looked through.
const FEW: usize = 64;

impl Default for Connections {
    fn default() -> Self {
        Self { by_socket: HashMap::new(), sweep_at: FEW }
    }
}

impl Upgrades {
    /// The connection of a socket, unless it is long-polling, which has one for each request.
    pub fn connection_of(&self, socket: &SocketRef) -> Option<Connection> {
        if socket.transport_type() == TransportType::Polling {
            return None;
        }
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let upgraded = connections.by_socket.get(socket.id.as_str()).cloned();
        drop(connections);
        upgraded.or_else(|| {
            let first = socket.req_parts().extensions.get::<ConnectInfo<Connection>>();
            first.map(|ConnectInfo(connection)| connection.clone())
        })
    }

    fn note(&self, socket: String, connection: Connection) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.by_socket.len() >= connections.sweep_at {
            connections.by_socket.retain(|_, connection| connection.is_open());
            connections.sweep_at = (connections.by_socket.len() * 2).max(FEW);
        }
        connections.by_socket.insert(socket, connection);
    }
}

/// Notes every upgrade that succeeds.
pub async fn note(State(upgrades): State<Upgrades>, request: Request, next: Next) -> Response {
    let Some(socket) = request.uri().query().and_then(socket_id).map(str::to_owned) else {
        return next.run(request).await;
    };
    let connection = request.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.clone());
    let response = next.run(request).await;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(connection)) = (response.status(), connection) {
        upgrades.note(socket, connection);
    }
    response
}

/// The session that a request of Engine.IO belongs to.
pub fn socket_id(query: &str) -> Option<&str> {
    query.split('&').find_map(|parameter| parameter.strip_prefix("sid="))
}
