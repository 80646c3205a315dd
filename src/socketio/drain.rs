//! Drains Socket.IO clients one by one, in a way that makes stock clients reconnect.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use socketioxide::{SocketIo, extract::SocketRef};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    NAMESPACE,
    polling::{socket_id, websocket},
};
use crate::{
    drain::DrainSchedule,
    error::{ApiError, ErrorCode},
};

/// The event that announces the end of the connection and says when to reconnect.
const DRAINING_EVENT: &str = "server:draining";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DrainingNotice {
    /// In milliseconds.
    reconnect_after: u64,
}

/// The Engine.IO close packet.
const CLOSE: &[u8] = b"1";

/// The separator of packets in one poll response.
const SEPARATOR: &[u8] = b"\x1e";

/// The long-polling sockets that close with their next response.
#[derive(Debug, Clone, Default)]
pub struct ClosingPolls(Arc<watch::Sender<HashSet<String>>>);

impl ClosingPolls {
    /// Closes a socket with its next response.
    pub fn add(&self, socket: &SocketRef) {
        self.0.send_modify(|sockets| _ = sockets.insert(socket.id.to_string()));
    }

    /// Forgets a socket. Says whether it was to be closed.
    pub fn take(&self, socket: &str) -> bool {
        self.0.send_if_modified(|sockets| sockets.remove(socket))
    }
}

/// All sockets of a gateway.
#[derive(Debug, Clone)]
pub struct Sockets {
    io: SocketIo,
    closing_polls: ClosingPolls,
    closed: CancellationToken,
}

impl Sockets {
    pub(super) fn new(io: SocketIo) -> Self {
        Self { io, closing_polls: ClosingPolls::default(), closed: CancellationToken::new() }
    }

    pub(super) fn closing_polls(&self) -> &ClosingPolls {
        &self.closing_polls
    }

    /// The socketioxide handle, for an application that embeds the gateway.
    pub fn io(&self) -> &SocketIo {
        &self.io
    }

    fn open(&self) -> Vec<SocketRef> {
        self.io.of(NAMESPACE).map(|namespace| namespace.sockets()).unwrap_or_default()
    }

    /// Ends the sockets one by one, each after what was sent to it. Waits only for long-polling clients, at the end and
    /// at most `timeout`, because they must ask once more.
    pub async fn drain(&self, schedule: DrainSchedule, timeout: Duration) {
        let sockets = self.open();
        let count = sockets.len() as f64;
        for (index, socket) in sockets.into_iter().enumerate() {
            schedule.wait_until((index + 1) as f64 / count).await;
            self.send_away(&socket, schedule.reconnect_after());
        }
        let mut closing_polls = self.closing_polls.0.subscribe();
        let _in_time = tokio::time::timeout(timeout, closing_polls.wait_for(HashSet::is_empty)).await;
    }

    fn send_away(&self, socket: &SocketRef, reconnect_after: Duration) {
        let connection = websocket(socket);
        if connection.is_none() {
            self.closing_polls.add(socket);
        }
        let reconnect_after = u64::try_from(reconnect_after.as_millis()).unwrap_or(u64::MAX);
        // A client with a full buffer notices the end of the connection anyway.
        let _full = socket.emit(DRAINING_EVENT, &DrainingNotice { reconnect_after });
        if let Some(connection) = connection {
            connection.end_reading();
        }
    }

    /// Ends all sockets as a restart does, so that clients reconnect. Takes at most `timeout`, and then aborts the
    /// connections that are left.
    pub async fn close(&self, timeout: Duration) {
        let sockets = self.open();
        // `close` waits for writers, and a writer whose client does not read never ends.
        if tokio::time::timeout(timeout, self.io.close()).await.is_err() {
            tracing::warn!("some Socket.IO clients did not take their end in time");
            for connection in sockets.iter().filter_map(websocket) {
                connection.abort();
            }
        }
        self.closed.cancel();
    }
}

/// Middleware. Appends a close packet to the last poll response of a draining socket. Once all sockets are closed it
/// answers the polls that still wait, which would otherwise last until their heartbeat.
pub async fn end_polling(State(sockets): State<Sockets>, request: Request, next: Next) -> Response {
    let polling = request.method() == Method::GET;
    let socket = request.uri().query().and_then(socket_id).filter(|_| polling).map(str::to_owned);
    let response = sockets.closed.run_until_cancelled(next.run(request)).await;
    match (response, socket) {
        (Some(response), Some(socket))
            if response.status() == StatusCode::OK && sockets.closing_polls.take(&socket) =>
        {
            with_close(response).await
        }
        (Some(response), _) => response,
        (None, _) => ApiError::new(ErrorCode::Unavailable, "the gateway is shutting down").into_response(),
    }
}

/// Appends a close packet to a response.
async fn with_close(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // Engine.IO bounds the size of a response, and holds it in memory already.
    let packets = to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
    let separator = if packets.is_empty() { &[][..] } else { SEPARATOR };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from([&packets, separator, CLOSE].concat()))
}
