//! What goes out: deliveries, answers and exceptions.

use std::sync::OnceLock;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde::{Serialize, Serializer, ser::SerializeMap};
use socketioxide::{SendError, SocketError, extract::SocketRef};

use super::upgrades::Upgrades;
use crate::{
    gateway::{CloseReason, Delivery, Joined, Latest, Offer, Outlet},
    id::JobId,
    refusal::Refusal,
    room::Room,
    store::Entry,
};

/// The sending end of a socket. Until the socket is open it has no place for anything.
pub struct SocketOutlet {
    socket: OnceLock<SocketRef>,
    upgrades: Upgrades,
    deliveries: Counter,
    connections: Gauge,
}

impl SocketOutlet {
    pub fn new(upgrades: Upgrades, deliveries: Counter, connections: Gauge) -> Self {
        connections.inc();
        Self { socket: OnceLock::new(), upgrades, deliveries, connections }
    }

    /// From now on deliveries go to this socket.
    pub fn open(&self, socket: SocketRef) {
        // Opened once, by the one inbox that made it.
        let _only_once = self.socket.set(socket);
    }
}

impl Drop for SocketOutlet {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// What became of an attempt to send.
pub fn outcome(sent: Result<(), SendError>) -> Offer {
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
        let Some(socket) = self.socket.get() else { return Offer::Full };
        match delivery {
            Delivery::Event(event) => {
                let offer = outcome(socket.emit(event.kind().name(), event.json()));
                if offer == Offer::Taken {
                    self.deliveries.inc();
                }
                offer
            }
            Delivery::Gap(gap) => outcome(socket.emit("job:gap", gap)),
            Delivery::Notice(notice) => outcome(socket.emit(notice.name.as_str(), &notice.data)),
        }
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn close(&self, reason: CloseReason) {
        let Some(socket) = self.socket.get() else { return };
        match self.upgrades.connection_of(socket) {
            // Cut like a lost network, so that the client comes back and resumes; a full socket takes no packet
            // that would tell it anything.
            Some(connection) => connection.cut(),
            None => {
                if let Err(error) = socket.clone().disconnect() {
                    tracing::warn!(%error, reason = reason.as_str(), "a socket could not be told its end");
                }
            }
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
