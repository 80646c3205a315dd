//! What goes out: deliveries, answers and exceptions.

use axum::extract::ConnectInfo;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde::{Serialize, Serializer, ser::SerializeMap};
use socketioxide::{SendError, SocketError, TransportType, extract::SocketRef};

use super::upgrades::Upgrades;
use crate::{
    connection::Connection,
    gateway::{CloseReason, Delivery, Joined, Latest, Offer, Outlet},
    id::JobId,
    refusal::Refusal,
    room::Room,
    store::Entry,
};

/// The sending end of a socket.
pub struct SocketOutlet {
    socket: SocketRef,
    upgrades: Upgrades,
    deliveries: Counter,
    open: Gauge,
}

impl SocketOutlet {
    pub fn new(socket: SocketRef, upgrades: Upgrades, deliveries: Counter, open: Gauge) -> Self {
        open.inc();
        Self { socket, upgrades, deliveries, open }
    }
}

impl Drop for SocketOutlet {
    fn drop(&mut self) {
        self.open.dec();
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
        match delivery {
            Delivery::Event(event) => {
                let offer = outcome(self.socket.emit(event.kind().name(), event.json()));
                if offer == Offer::Taken {
                    self.deliveries.inc();
                }
                offer
            }
            Delivery::Gap(gap) => outcome(self.socket.emit("job:gap", gap)),
            Delivery::Notice(notice) => outcome(self.socket.emit(notice.name.as_str(), &notice.data)),
        }
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn close(&self, reason: CloseReason) {
        let first = self.socket.req_parts().extensions.get::<ConnectInfo<Connection>>();
        match (self.socket.transport_type(), first) {
            // Cut like a lost network, so that the client comes back and resumes; a full socket takes no packet
            // that would tell it anything.
            (TransportType::Websocket, Some(ConnectInfo(first))) => {
                if !self.upgrades.cut(self.socket.id.as_str()) {
                    first.cut();
                }
            }
            _ => {
                if let Err(error) = self.socket.clone().disconnect() {
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
