//! What carries a socket's packets: polls, a WebSocket, or first the one and then the other. socketioxide tells
//! neither how much of what it was given has left, nor on which connection a socket is after its upgrade; and the
//! gateway has to know both, to bound what waits for a slow client and to cut one that takes nothing.

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
    connection::Connection,
    refusal::{Code, Refusal},
};

/// What carries one socket's packets, and how many of their bytes wait.
///
/// Both sides of the sum are counted where they pass: what is handed over, by whoever hands it over, as no more than
/// it will be on the wire; what has left, at the connection, with all that it sends besides. So the difference is at
/// times a little too small, never too large for long, and each time that nothing waits the two begin anew.
#[derive(Debug, Default)]
pub struct Line {
    /// Where in the count of [`Line::left`] that will be which was handed over last.
    handed: AtomicU64,
    /// Bytes that have left as answers to polls.
    polled: AtomicU64,
    websocket: OnceLock<WebSocket>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct WebSocket {
    /// `None` where an application serves the router without connect info.
    connection: Option<Connection>,
    /// What the connection had written before it was the socket's.
    before: u64,
}

impl Line {
    /// How many bytes have left; `None` where that cannot be known.
    fn left(&self) -> Option<u64> {
        let by_websocket = match self.websocket.get() {
            None => 0,
            Some(WebSocket { connection, before }) => connection.as_ref()?.written()?.saturating_sub(*before),
        };
        Some(self.polled.load(Ordering::Relaxed) + by_websocket)
    }

    /// How many bytes wait in this process.
    pub fn waiting(&self) -> u64 {
        let handed = self.handed.load(Ordering::Relaxed);
        self.left().map_or(0, |left| handed.saturating_sub(left))
    }

    /// Counts bytes that are about to be handed over.
    pub fn hand_over(&self, bytes: usize) {
        let Some(left) = self.left() else { return };
        let add = |handed: u64| handed.max(left) + bytes as u64;
        let _previous =
            self.handed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |handed| Some(add(handed)));
    }

    /// Takes back a [`Line::hand_over`] that came to nothing.
    pub fn take_back(&self, bytes: usize) {
        let subtract = |handed: u64| handed.saturating_sub(bytes as u64);
        let _previous =
            self.handed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |handed| Some(subtract(handed)));
    }

    /// Notes the WebSocket that carries the packets from here on, unless one was noted before.
    pub fn set_websocket(&self, connection: Option<Connection>, before: u64) {
        let _only_once = self.websocket.set(WebSocket { connection, before });
    }

    /// Ends it like a lost network, so that the client comes back and resumes: its connection is cut, and polls are
    /// refused.
    pub fn cut(&self) {
        self.cut.cancel();
        if let Some(connection) = self.connection() {
            connection.cut();
        }
    }

    /// Whether it was cut.
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// The connection that is its WebSocket, if it has one that can be cut.
    pub fn connection(&self) -> Option<&Connection> {
        self.websocket.get()?.connection.as_ref()
    }
}

/// The lines of all sockets, by socket id. It holds no more than twice as many as are open.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<BySocket>>);

#[derive(Debug)]
struct BySocket {
    lines: HashMap<String, Arc<Line>>,
    /// At how many entries those of closed connections are looked for.
    sweep_at: usize,
}

/// How many entries are never looked through.
const FEW: usize = 64;

impl Default for BySocket {
    fn default() -> Self {
        Self { lines: HashMap::new(), sweep_at: FEW }
    }
}

impl Lines {
    /// The line of a socket that lives.
    pub fn line(&self, socket: &str) -> Arc<Line> {
        let mut by_socket = self.by_socket();
        if let Some(line) = by_socket.lines.get(socket) {
            return line.clone();
        }
        if by_socket.lines.len() >= by_socket.sweep_at {
            let is_open = |line: &Line| line.connection().is_some_and(Connection::is_open);
            by_socket.lines.retain(|_, line| Arc::strong_count(line) > 1 || is_open(line));
            by_socket.sweep_at = (by_socket.lines.len() * 2).max(FEW);
        }
        by_socket.lines.entry(socket.to_owned()).or_default().clone()
    }

    /// The WebSocket of a socket; none while it is long-polling, which has a connection for each request.
    pub fn connection_of(&self, socket: &SocketRef) -> Option<Connection> {
        if socket.transport_type() == TransportType::Polling {
            return None;
        }
        match self.find(socket.id.as_str()) {
            Some(line) => line.connection().cloned(),
            None => first_connection(socket),
        }
    }

    /// The line of a socket that has one: it began with polls.
    pub fn find(&self, socket: &str) -> Option<Arc<Line>> {
        self.by_socket().lines.get(socket).cloned()
    }

    fn by_socket(&self) -> MutexGuard<'_, BySocket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection that a socket's first request came on; none where an application serves the router without connect
/// info.
pub fn first_connection(socket: &SocketRef) -> Option<Connection> {
    socket.req_parts().extensions.get::<ConnectInfo<Connection>>().map(|info| info.0.clone())
}

/// Counts what polls are answered, and refuses those of a line that was cut.
pub async fn follow(State(lines): State<Lines>, request: Request, next: Next) -> Response {
    let Some(socket) = request.uri().query().and_then(socket_id).map(str::to_owned) else {
        return next.run(request).await;
    };
    let cut = lines.find(&socket).map(|line| line.cut.clone()).unwrap_or_default();
    let Some(response) = cut.run_until_cancelled(next.run(request)).await else {
        let refusal = Refusal::new(Code::Unavailable, "the client took nothing for too long; connect again");
        return refusal.into_response();
    };
    if response.status() == StatusCode::OK
        && let (Some(line), Some(bytes)) = (lines.find(&socket), response.body().size_hint().exact())
    {
        line.polled.fetch_add(bytes, Ordering::Relaxed);
    }
    response
}

/// The session that a request of Engine.IO belongs to.
pub fn socket_id(query: &str) -> Option<&str> {
    query.split('&').find_map(|parameter| parameter.strip_prefix("sid="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_waits() {
        let line = Line::default();
        line.hand_over(100);
        line.hand_over(50);
        assert_eq!(line.waiting(), 150);
        line.polled.fetch_add(120, Ordering::Relaxed);
        assert_eq!(line.waiting(), 30);
        line.take_back(10);
        assert_eq!(line.waiting(), 20);
        // More leaves than was handed over: pings, envelopes, an application's own packets.
        line.polled.fetch_add(1000, Ordering::Relaxed);
        assert_eq!(line.waiting(), 0);
        line.hand_over(7);
        assert_eq!(line.waiting(), 7);
    }

    #[test]
    fn bounds_nothing_where_what_leaves_cannot_be_known() {
        let line = Line::default();
        line.hand_over(100);
        line.set_websocket(None, 0);
        line.hand_over(100);
        assert_eq!(line.waiting(), 0);
    }

    #[test]
    fn forgets_the_lines_of_sockets_that_are_gone() {
        let lines = Lines::default();
        let held: Vec<_> = (0..10).map(|number| lines.line(&format!("held-{number}"))).collect();
        held[0].hand_over(5);
        for number in 0..10_000 {
            lines.line(&format!("gone-{number}"));
        }
        assert!(lines.by_socket().lines.len() <= FEW);
        assert_eq!(lines.line("held-0").waiting(), 5);
    }
}
