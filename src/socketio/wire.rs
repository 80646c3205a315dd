//! What goes out: deliveries, answers and exceptions.

use std::sync::{Arc, OnceLock};

use axum::extract::ConnectInfo;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde::{Serialize, Serializer, ser::SerializeMap};
use socketioxide::{SendError, SocketError, TransportType, extract::SocketRef};

use super::lines::{Line, Lines};
use crate::{
    connection::Connection,
    gateway::{CloseReason, Delivery, Joined, Latest, Offer, Outlet},
    id::JobId,
    refusal::Refusal,
    room::Room,
    store::Entry,
};

/// The sending end of a socket. Until the socket is open it has no place for anything.
pub struct SocketOutlet {
    open: OnceLock<(SocketRef, Arc<Line>)>,
    lines: Lines,
    /// How many bytes may wait before nothing more is taken.
    bound: u64,
    deliveries: Counter,
    connections: Gauge,
}

impl SocketOutlet {
    pub fn new(lines: Lines, bound: u64, deliveries: Counter, connections: Gauge) -> Self {
        connections.inc();
        Self { open: OnceLock::new(), lines, bound, deliveries, connections }
    }

    /// From now on deliveries go to this socket.
    pub fn open(&self, socket: SocketRef) {
        let line = self.lines.line(socket.id.as_str());
        if socket.transport_type() == TransportType::Websocket {
            // Unless an upgrade was noted, it is on the connection of its first request.
            let first = socket.req_parts().extensions.get::<ConnectInfo<Connection>>();
            line.set_websocket(first.map(|info| info.0.clone()), 0);
        }
        // Opened once, by the one inbox that made it.
        let _only_once = self.open.set((socket, line));
    }

    /// Sends something of at least so many bytes, if there is place for it.
    pub fn send(&self, bytes: usize, send: impl FnOnce(&SocketRef) -> Result<(), SendError>) -> Offer {
        let Some((socket, line)) = self.open.get() else { return Offer::Full };
        if line.is_cut() {
            return Offer::Closed;
        }
        if line.waiting() >= self.bound {
            return Offer::Full;
        }
        // Counted before, because it may have left before `send` returns.
        line.hand_over(bytes);
        let offer = outcome(send(socket));
        if offer != Offer::Taken {
            line.take_back(bytes);
        }
        offer
    }
}

impl Drop for SocketOutlet {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// What became of an attempt to send.
fn outcome(sent: Result<(), SendError>) -> Offer {
    match sent {
        Ok(()) => Offer::Taken,
        Err(SendError::Socket(SocketError::InternalChannelFull)) => Offer::Full,
        Err(SendError::Socket(SocketError::Closed)) => Offer::Closed,
        Err(SendError::Serialize(error)) => {
            tracing::error!(%error, "a delivery could not be written");
            Offer::Taken
        }
    }
}

impl Outlet for SocketOutlet {
    fn offer(&self, delivery: Delivery<'_>) -> Offer {
        let offer = self.send(delivery.size(), |socket| match delivery {
            Delivery::Event(event) => socket.emit(event.kind().name(), event.json()),
            Delivery::Gap(gap) => socket.emit("job:gap", gap),
            Delivery::Notice(notice) => socket.emit(notice.name.as_str(), &notice.data),
        });
        if offer == Offer::Taken && matches!(delivery, Delivery::Event(_)) {
            self.deliveries.inc();
        }
        offer
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn waiting(&self) -> u64 {
        self.open.get().map_or(0, |(_, line)| line.waiting())
    }

    fn is_full(&self) -> bool {
        self.open.get().is_none_or(|(_, line)| line.waiting() >= self.bound)
    }

    fn close(&self, reason: CloseReason) {
        let Some((socket, line)) = self.open.get() else { return };
        line.cut();
        if socket.transport_type() == TransportType::Websocket && line.is_known() {
            return;
        }
        // Nobody polls any more, or the connection is not known: the heartbeat would end it later.
        if let Err(error) = socket.clone().disconnect() {
            tracing::debug!(%error, reason = reason.as_str(), "a socket could not be told its end");
        }
    }
}

/// The answer to `subscribe:jobs`.
#[derive(Debug, Serialize)]
pub struct Subscribed<'a> {
    success: bool,
    room: &'a Room,
    message: String,
    latest: &'a Latest,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaying: Option<usize>,
}

impl<'a> Subscribed<'a> {
    pub fn new(joined: &'a Joined<'_>) -> Self {
        Self {
            success: true,
            room: &joined.room,
            message: format!("subscribed to {}", joined.room),
            latest: &joined.latest,
            recovered: joined.resumed.map(|resumed| resumed.recovered),
            replaying: joined.resumed.map(|resumed| resumed.replaying),
        }
    }
}

/// The answer to `unsubscribe:jobs`.
#[derive(Debug, Serialize)]
pub struct Unsubscribed<'a> {
    success: bool,
    room: &'a Room,
    message: String,
}

impl<'a> Unsubscribed<'a> {
    pub fn new(room: &'a Room) -> Self {
        Self { success: true, room, message: format!("unsubscribed from {room}") }
    }
}

/// The answer to `history:jobs`.
#[derive(Debug, Serialize)]
pub struct History {
    success: bool,
    #[serde(rename = "jobId")]
    job: JobId,
    events: Vec<Entry>,
}

impl History {
    pub fn new(job: JobId, events: Vec<Entry>) -> Self {
        Self { success: true, job, events }
    }
}

/// The answer to whatever was refused.
#[derive(Debug, Serialize)]
pub struct Refused<'a> {
    success: bool,
    error: Failure<'a>,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    code: &'static str,
    message: &'a str,
}

impl<'a> Refused<'a> {
    pub fn new(refusal: &'a Refusal) -> Self {
        let message = refusal.message.as_str();
        Self { success: false, error: Failure { code: refusal.code.as_str(), message }, message }
    }
}

/// The `exception` that tells of a refusal where no answer is awaited.
#[derive(Debug)]
pub struct Exception<'a>(pub &'a Refusal);

impl Serialize for Exception<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("status", "error")?;
        map.serialize_entry("code", self.0.code.as_str())?;
        map.serialize_entry("message", &self.0.message)?;
        map.end()
    }
}
