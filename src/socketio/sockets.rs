//! The end of all sockets: told one after the other, such that stock clients come back by themselves.

use std::{collections::HashSet, time::Duration};

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
    lines::{Lines, socket_id},
};
use crate::{
    draining::Departures,
    refusal::{Code, Refusal},
};

/// What tells a client that its connection is about to be closed, and how long to wait before it comes back.
const LAST_WORDS: &str = "server:draining";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastWords {
    /// In milliseconds.
    reconnect_after: u64,
}

/// Engine.IO's word for the end of a session.
const CLOSE: &[u8] = b"1";

/// What stands between the packets of one answer to long-polling.
const SEPARATOR: &[u8] = b"\x1e";

/// All sockets of a gateway.
#[derive(Debug, Clone)]
pub struct Sockets {
    io: SocketIo,
    lines: Lines,
    /// The long-polling sockets that leave with their next answer.
    leaving: watch::Sender<HashSet<String>>,
    closed: CancellationToken,
}

impl Sockets {
    pub(super) fn new(io: SocketIo, lines: Lines) -> Self {
        Self { io, lines, leaving: watch::Sender::default(), closed: CancellationToken::new() }
    }

    /// What they all belong to, for an application that embeds the gateway.
    pub fn io(&self) -> &SocketIo {
        &self.io
    }

    fn open(&self) -> Vec<SocketRef> {
        self.io.of(NAMESPACE).map(|namespace| namespace.sockets()).unwrap_or_default()
    }

    /// Ends the sockets one after the other, each behind what was sent to it before. Waits for no client, but at
    /// the end for those who poll, at most `patience`: to them the end is an answer that they have to ask for.
    pub async fn leave(&self, departures: Departures, patience: Duration) {
        let sockets = self.open();
        let last = sockets.len() as f64;
        for (place, socket) in sockets.into_iter().enumerate() {
            departures.at((place + 1) as f64 / last).await;
            self.dismiss(&socket, departures.reconnect_after());
        }
        let mut leaving = self.leaving.subscribe();
        let _in_time = tokio::time::timeout(patience, leaving.wait_for(HashSet::is_empty)).await;
    }

    fn dismiss(&self, socket: &SocketRef, reconnect_after: Duration) {
        let connection = self.lines.connection_of(socket);
        if connection.is_none() {
            self.leaving.send_modify(|leaving| _ = leaving.insert(socket.id.to_string()));
        }
        let reconnect_after = u64::try_from(reconnect_after.as_millis()).unwrap_or(u64::MAX);
        // Whoever has no place for it will notice all the same.
        let _full = socket.emit(LAST_WORDS, &LastWords { reconnect_after });
        if let Some(connection) = connection {
            connection.end();
        }
    }

    /// Ends all sockets as a restart does, so that clients come back by themselves; at most `patience`. What does
    /// not take its end in that time is cut.
    pub async fn close(&self, patience: Duration) {
        let sockets = self.open();
        // It waits for writers, and one whose client reads nothing has no end of its own.
        if tokio::time::timeout(patience, self.io.close()).await.is_err() {
            tracing::warn!("some Socket.IO clients did not take their end in time");
            for connection in sockets.iter().filter_map(|socket| self.lines.connection_of(socket)) {
                connection.cut();
            }
        }
        self.closed.cancel();
    }

    /// Whether this is the last answer to a long-polling socket.
    fn takes_leave(&self, socket: &str) -> bool {
        self.leaving.send_if_modified(|leaving| leaving.remove(socket))
    }
}

/// Ends long-polling: the answer to a socket that leaves says so at its end; and requests that still wait when all
/// sockets are closed are answered, because theirs have left the namespace, and nothing else would end them before
/// their heartbeat does.
pub async fn end_polling(State(sockets): State<Sockets>, request: Request, next: Next) -> Response {
    let polling = request.method() == Method::GET;
    let socket = request.uri().query().and_then(socket_id).filter(|_| polling).map(str::to_owned);
    let answer = sockets.closed.run_until_cancelled(next.run(request)).await;
    match (answer, socket) {
        (Some(answer), Some(socket)) if answer.status() == StatusCode::OK && sockets.takes_leave(&socket) => {
            with_close(answer).await
        }
        (Some(answer), _) => answer,
        (None, _) => Refusal::new(Code::Unavailable, "the gateway is shutting down").into_response(),
    }
}

/// Adds the end of the session to an answer.
async fn with_close(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    // Engine.IO bounds what it puts into one answer, and holds it in memory already.
    let packets = to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
    let separator = if packets.is_empty() { &[][..] } else { SEPARATOR };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from([&packets, separator, CLOSE].concat()))
}
