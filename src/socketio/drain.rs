//! Drains Socket.IO clients one by one, in a way that makes stock clients reconnect.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
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

/// The long-polling sockets that are to be closed.
#[derive(Debug, Clone, Default)]
pub struct ClosingPolls(Arc<watch::Sender<HashSet<String>>>);

impl ClosingPolls {
    /// Closes a socket with its next poll that has no packets.
    fn add(&self, socket: &SocketRef) {
        self.0.send_modify(|sockets| _ = sockets.insert(socket.id.to_string()));
    }

    /// Ends a socket in order, after what it was sent and what `tell` sends it.
    pub fn send_away(&self, socket: &SocketRef, tell: impl FnOnce()) {
        match websocket(socket) {
            Some(connection) => {
                tell();
                connection.end_reading();
            }
            None => {
                self.add(socket);
                tell();
            }
        }
    }

    fn has(&self, socket: &str) -> bool {
        self.0.borrow().contains(socket)
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
        let reconnect_after = u64::try_from(reconnect_after.as_millis()).unwrap_or(u64::MAX);
        self.closing_polls.send_away(socket, || {
            // A client with a full buffer notices the end of the connection anyway.
            let _full = socket.emit(DRAINING_EVENT, &DrainingNotice { reconnect_after });
        });
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

/// How long the last poll of a socket waits for packets that were sent before its end.
const LAST_PACKETS: Duration = Duration::from_millis(50);

/// Middleware. Ends long-polling sockets that are to be closed. A stock client drops the packets that come together with a
/// close packet, so it gets those first, and the close packet with its next poll. Once all sockets are closed it answers the
/// polls that still wait, which would otherwise last until their heartbeat.
pub async fn end_polling(State(sockets): State<Sockets>, request: Request, next: Next) -> Response {
    let polling = request.method() == Method::GET;
    let socket = request.uri().query().and_then(socket_id).filter(|_| polling).map(str::to_owned);
    let closing = socket.filter(|socket| sockets.closing_polls.has(socket));
    let response = sockets.closed.run_until_cancelled(async {
        let Some(socket) = closing else { return next.run(request).await };
        match tokio::time::timeout(LAST_PACKETS, next.run(request)).await {
            Ok(response) if response.status() == StatusCode::OK => response,
            _ => {
                sockets.closing_polls.take(&socket);
                let text = HeaderValue::from_static("text/plain; charset=UTF-8");
                ([(header::CONTENT_TYPE, text)], CLOSE).into_response()
            }
        }
    });
    response.await.unwrap_or_else(|| {
        ApiError::new(ErrorCode::Unavailable, "the gateway is shutting down").into_response()
    })
}
