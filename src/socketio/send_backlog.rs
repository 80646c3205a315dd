//! How many bytes wait to be sent to each Socket.IO client, and on which connection. socketioxide tells neither. The
//! gateway needs the first to bound a slow client, and the second to abort one that reads nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    body::HttpBody,
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use socketioxide::{TransportType, extract::SocketRef};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{ApiError, ErrorCode},
    net::Connection,
};

/// How many bytes wait for one socket, and its WebSocket if it has one.
///
/// Queued bytes are counted by the caller and are at most the size on the wire. Sent bytes are counted at the
/// connection and include pings. So the difference may be slightly low, and is reset whenever nothing waits.
#[derive(Debug, Default)]
pub struct SendBacklog {
    /// The value that [`SendBacklog::sent`] will have once the last queued byte is out.
    queued: AtomicU64,
    /// Bytes sent as responses to polls.
    sent_by_polling: AtomicU64,
    websocket: OnceLock<WebSocket>,
    aborted: CancellationToken,
}

#[derive(Debug)]
struct WebSocket {
    /// `None` if an application serves the router without connect info.
    connection: Option<Connection>,
    /// What the connection had written before the upgrade.
    offset: u64,
}

impl SendBacklog {
    /// How many bytes have been sent. `None` if that is unknown.
    fn sent(&self) -> Option<u64> {
        let by_websocket = match self.websocket.get() {
            None => 0,
            Some(WebSocket { connection, offset }) => connection.as_ref()?.written()?.saturating_sub(*offset),
        };
        Some(self.sent_by_polling.load(Ordering::Relaxed) + by_websocket)
    }

    /// How many bytes wait in this process.
    pub fn pending(&self) -> u64 {
        let queued = self.queued.load(Ordering::Relaxed);
        self.sent().map_or(0, |sent| queued.saturating_sub(sent))
    }

    /// Counts bytes that are about to be queued.
    pub fn add(&self, bytes: usize) {
        let Some(sent) = self.sent() else { return };
        let add = |queued: u64| queued.max(sent) + bytes as u64;
        let _previous =
            self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| Some(add(queued)));
    }

    /// Undoes a [`SendBacklog::add`] whose packet was not queued.
    pub fn remove(&self, bytes: usize) {
        let subtract = |queued: u64| queued.saturating_sub(bytes as u64);
        let _previous =
            self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| Some(subtract(queued)));
    }

    /// Notes the WebSocket that carries the packets from here on. Only the first call counts.
    pub fn set_websocket(&self, connection: Option<Connection>, offset: u64) {
        let _only_once = self.websocket.set(WebSocket { connection, offset });
    }

    /// Aborts the connection and refuses further polls. The client sees a lost network, reconnects and resumes.
    pub fn abort(&self) {
        self.aborted.cancel();
        if let Some(connection) = self.connection() {
            connection.abort();
        }
    }

    /// Whether the socket was aborted.
    pub fn is_aborted(&self) -> bool {
        self.aborted.is_cancelled()
    }

    /// The connection of the WebSocket, if it is known.
    pub fn connection(&self) -> Option<&Connection> {
        self.websocket.get()?.connection.as_ref()
    }
}

/// The backlogs of all sockets by id: at most twice as many as there are open sockets.
#[derive(Debug, Clone, Default)]
pub struct SendBacklogs(Arc<Mutex<BacklogTable>>);

#[derive(Debug)]
struct BacklogTable {
    backlogs: HashMap<String, Arc<SendBacklog>>,
    /// The size at which entries of closed connections are removed.
    sweep_at: usize,
}

/// Below this size the table is not swept.
const MIN_SWEEP: usize = 64;

impl Default for BacklogTable {
    fn default() -> Self {
        Self { backlogs: HashMap::new(), sweep_at: MIN_SWEEP }
    }
}

impl SendBacklogs {
    /// The backlog of an open socket.
    pub fn get_or_create(&self, socket: &str) -> Arc<SendBacklog> {
        let mut table = self.table();
        if let Some(backlog) = table.backlogs.get(socket) {
            return backlog.clone();
        }
        if table.backlogs.len() >= table.sweep_at {
            let is_open = |backlog: &SendBacklog| backlog.connection().is_some_and(Connection::is_open);
            table.backlogs.retain(|_, backlog| Arc::strong_count(backlog) > 1 || is_open(backlog));
            table.sweep_at = (table.backlogs.len() * 2).max(MIN_SWEEP);
        }
        table.backlogs.entry(socket.to_owned()).or_default().clone()
    }

    /// The WebSocket of a socket. `None` while it is long-polling, where each request has its own connection.
    pub fn connection_of(&self, socket: &SocketRef) -> Option<Connection> {
        if socket.transport_type() == TransportType::Polling {
            return None;
        }
        match self.get(socket.id.as_str()) {
            Some(backlog) => backlog.connection().cloned(),
            None => first_connection(socket),
        }
    }

    /// The backlog of a socket that has one: it began with polls.
    pub fn get(&self, socket: &str) -> Option<Arc<SendBacklog>> {
        self.table().backlogs.get(socket).cloned()
    }

    fn table(&self) -> MutexGuard<'_, BacklogTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection of a socket's first request. `None` if an application serves the router without connect info.
pub fn first_connection(socket: &SocketRef) -> Option<Connection> {
    socket.req_parts().extensions.get::<ConnectInfo<Connection>>().map(|info| info.0.clone())
}

/// Middleware. Counts the bytes of poll responses, and refuses polls of aborted clients.
pub async fn count_poll_responses(
    State(backlogs): State<SendBacklogs>,
    request: Request,
    next: Next,
) -> Response {
    let Some(socket) = request.uri().query().and_then(socket_id).map(str::to_owned) else {
        return next.run(request).await;
    };
    let aborted = backlogs.get(&socket).map(|backlog| backlog.aborted.clone()).unwrap_or_default();
    let Some(response) = aborted.run_until_cancelled(next.run(request)).await else {
        let refusal =
            ApiError::new(ErrorCode::Unavailable, "the client took nothing for too long; connect again");
        return refusal.into_response();
    };
    if response.status() == StatusCode::OK
        && let (Some(backlog), Some(bytes)) = (backlogs.get(&socket), response.body().size_hint().exact())
    {
        backlog.sent_by_polling.fetch_add(bytes, Ordering::Relaxed);
    }
    response
}

/// The session id of an Engine.IO request.
pub fn socket_id(query: &str) -> Option<&str> {
    query.split('&').find_map(|parameter| parameter.strip_prefix("sid="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_pending_bytes() {
        let backlog = SendBacklog::default();
        backlog.add(100);
        backlog.add(50);
        assert_eq!(backlog.pending(), 150);
        backlog.sent_by_polling.fetch_add(120, Ordering::Relaxed);
        assert_eq!(backlog.pending(), 30);
        backlog.remove(10);
        assert_eq!(backlog.pending(), 20);
        // More is sent than was counted: pings, envelopes, an application's own packets.
        backlog.sent_by_polling.fetch_add(1000, Ordering::Relaxed);
        assert_eq!(backlog.pending(), 0);
        backlog.add(7);
        assert_eq!(backlog.pending(), 7);
    }

    #[test]
    fn bounds_nothing_if_sent_bytes_are_unknown() {
        let backlog = SendBacklog::default();
        backlog.add(100);
        backlog.set_websocket(None, 0);
        backlog.add(100);
        assert_eq!(backlog.pending(), 0);
    }

    #[test]
    fn forgets_closed_sockets() {
        let backlogs = SendBacklogs::default();
        let held: Vec<_> = (0..10).map(|number| backlogs.get_or_create(&format!("held-{number}"))).collect();
        held[0].add(5);
        for number in 0..10_000 {
            backlogs.get_or_create(&format!("gone-{number}"));
        }
        assert!(backlogs.table().backlogs.len() <= MIN_SWEEP);
        assert_eq!(backlogs.get_or_create("held-0").pending(), 5);
    }
}
