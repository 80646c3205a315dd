//! The outlet of a socket: decides how a packet is sent, and whether it still fits.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Bytes;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::{SendError, SocketError, TransportType, extract::SocketRef};

use super::{
    drain::ClosingPolls,
    packet::{FrameCache, Packet},
    polling::{PollingSession, first_connection},
};
use crate::{
    gateway::{CloseReason, Delivery, Expiring, Offer, Outlet, Signal},
    id::ClientId,
    net::{Connection, Limits, Outbox, Push},
    position::RoomSet,
    store::Arrival,
};

/// What all outlets share.
#[derive(Debug)]
pub struct OutletShared {
    /// How much may wait for a socket.
    pub limits: Limits,
    pub deliveries: Counter,
    pub connections: Gauge,
    /// Whether sockets also join socketioxide's rooms.
    pub joins_rooms: bool,
    pub frames: FrameCache,
    pub closing_polls: ClosingPolls,
}

/// The event after which frames bypass socketioxide. socketioxide writes it, and it never leaves the process.
const MARK: &str = "jobcast:beside";

/// The outlet of a socket. It is full until the socket is open.
///
/// While the socket polls, socketioxide sends all packets. Once it has a WebSocket, frames that all sockets share go to
/// the connection's outbox and bypass socketioxide, which then sends only pings and what an application emits.
pub struct SocketOutlet {
    shared: Arc<OutletShared>,
    open: OnceLock<(SocketRef, Transport)>,
    direct: OnceLock<Arc<Outbox>>,
    /// Held while a packet goes to socketioxide, so that packets keep their order.
    emit_order: Mutex<()>,
    client: ClientId,
}

/// What carries the packets of a socket.
enum Transport {
    /// A WebSocket from the beginning. `None` if an application serves the router without connect info.
    WebSocket(Option<Connection>),
    /// Polls at first, and a WebSocket after an upgrade.
    Polls(Arc<PollingSession>),
}

impl Transport {
    fn connection(&self) -> Option<Connection> {
        match self {
            Transport::WebSocket(connection) => connection.clone(),
            Transport::Polls(session) => session.connection(),
        }
    }

    fn polls(&self) -> Option<&PollingSession> {
        match self {
            Transport::WebSocket(_) => None,
            Transport::Polls(session) => Some(session),
        }
    }
}

impl SocketOutlet {
    pub fn new(shared: Arc<OutletShared>, client: ClientId) -> Self {
        shared.connections.inc();
        Self { shared, open: OnceLock::new(), direct: OnceLock::new(), emit_order: Mutex::default(), client }
    }

    /// From now on packets go to this socket.
    pub fn open(&self, socket: SocketRef) {
        let transport = match PollingSession::of(&socket) {
            Some(session) => Transport::Polls(session),
            None => Transport::WebSocket(first_connection(&socket)),
        };
        // The inbox opens its outlet once.
        let _only_once = self.open.set((socket, transport));
    }

    /// Whether the socket also joins socketioxide's rooms of the same names.
    pub fn joins_rooms(&self) -> bool {
        self.shared.joins_rooms
    }

    /// Queues a packet, if it fits. [`Outlet::flush`] sends it.
    pub fn take(&self, packet: &Packet<'_>) -> Offer {
        self.take_framed(packet, || packet.frame())
    }

    fn take_framed(&self, packet: &Packet<'_>, frame: impl FnOnce() -> Bytes) -> Offer {
        if let Some(outbox) = self.direct.get() {
            return self.push(outbox, &frame(), 1);
        }
        let Some((socket, transport)) = self.open.get() else { return Offer::Full };
        let _in_order = self.emit_order.lock().unwrap_or_else(PoisonError::into_inner);
        match self.direct.get().or_else(|| self.start_direct(socket, transport)) {
            Some(outbox) => self.push(outbox, &frame(), 1),
            None => self.emit(packet, socket, transport.polls()),
        }
    }

    /// Switches to the outbox of the WebSocket, if the socket has one.
    fn start_direct(&self, socket: &SocketRef, transport: &Transport) -> Option<&Arc<Outbox>> {
        if socket.transport_type() != TransportType::Websocket {
            return None;
        }
        let outbox = transport.connection()?.outbox()?;
        let nothing = RawValue::NULL;
        if !outbox
            .write_directly_after(Packet::Event { name: MARK, argument: nothing, positions: None }.frame())
        {
            return None;
        }
        socket.emit(MARK, nothing).ok()?;
        if let Some(session) = transport.polls() {
            session.clear();
        }
        Some(self.direct.get_or_init(|| outbox))
    }

    fn push(&self, outbox: &Outbox, frames: &Bytes, count: usize) -> Offer {
        match outbox.push(frames, count, self.shared.limits) {
            Push::Queued => Offer::Taken,
            Push::Full => Offer::Full,
            Push::Closed => Offer::Closed,
        }
    }

    fn emit(&self, packet: &Packet<'_>, socket: &SocketRef, session: Option<&PollingSession>) -> Offer {
        // Without connect info nothing is known of what waits for a WebSocket.
        let polls = socket.transport_type() == TransportType::Polling;
        let Some(session) = session.filter(|_| polls) else { return outcome(packet.emit(socket)) };
        if session.aborted.is_cancelled() {
            return Offer::Closed;
        }
        // Counted before the call, because the packet may be sent before `emit` returns.
        if !session.add(packet.size(), self.shared.limits) {
            return Offer::Full;
        }
        let offer = outcome(packet.emit(socket));
        if offer != Offer::Taken {
            session.remove(packet.size());
        }
        offer
    }

    fn take_one(&self, arrival: &Arrival, rooms: RoomSet) -> Offer {
        let event = &arrival.event;
        // Only for socketioxide: a frame has them already.
        let positions = match self.direct.get() {
            Some(_) => None,
            None => arrival.positions.to_json(event, rooms),
        };
        let (name, argument) = (event.kind().name(), event.json());
        let packet = Packet::Event { name, argument, positions: positions.as_deref() };
        let frame = || self.shared.frames.of(std::slice::from_ref(arrival), rooms);
        let offer = self.take_framed(&packet, frame);
        if offer == Offer::Taken {
            self.shared.deliveries.inc();
        }
        offer
    }

    /// Takes an event of the gateway's own.
    fn take_own(&self, name: &str, payload: &impl Serialize, positions: Option<&RawValue>) -> Offer {
        match to_raw_value(payload) {
            Ok(argument) => self.take(&Packet::Event { name, argument: &argument, positions }),
            Err(error) => {
                tracing::error!(%error, name, "an event could not be written");
                Offer::Taken
            }
        }
    }
}

impl Drop for SocketOutlet {
    fn drop(&mut self) {
        self.shared.connections.dec();
    }
}

/// The outcome of an attempt to send.
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
        match delivery {
            Delivery::Event(event, positions, rooms) => {
                self.take_one(&Arrival { event: event.clone(), positions: *positions }, rooms)
            }
            Delivery::Gap(gap, room, position) => {
                self.take_own("job:gap", gap, position.to_json(room).as_deref())
            }
            Delivery::Signal(Signal::PutOut(room)) => {
                if let Some((socket, _)) = self.open.get().filter(|_| self.joins_rooms()) {
                    socket.leave(room.to_string());
                }
                self.take_own("exception", &Signal::put_out(room).exception(), None)
            }
            Delivery::Signal(Signal::Expiring(expires_at)) => {
                self.take_own("auth:expiring", &Expiring { expires_at: *expires_at }, None)
            }
            Delivery::Notice(notice) => {
                let (name, argument) = (notice.name.as_str(), &*notice.data);
                let packet = Packet::Event { name, argument, positions: None };
                self.take_framed(&packet, || self.shared.frames.of_notice(notice))
            }
        }
    }

    fn offer_all(&self, arrivals: &[Arrival], rooms: RoomSet) -> usize {
        if let Some(outbox) = self.direct.get() {
            let offer = self.push(outbox, &self.shared.frames.of(arrivals, rooms), arrivals.len());
            if offer == Offer::Taken {
                self.shared.deliveries.inc_by(arrivals.len() as u64);
            }
            if offer != Offer::Full {
                return arrivals.len();
            }
        }
        arrivals.iter().take_while(|arrival| self.take_one(arrival, rooms) != Offer::Full).count()
    }

    fn flush(&self) {
        if let Some(outbox) = self.direct.get() {
            outbox.flush();
        }
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn waiting(&self) -> u64 {
        match (self.direct.get(), self.open.get()) {
            (Some(outbox), _) => outbox.pending_bytes(),
            (None, Some((socket, transport))) if socket.transport_type() == TransportType::Polling => {
                transport.polls().map_or(0, PollingSession::pending)
            }
            // With the next packet it has an outbox.
            (None, Some(_)) => 0,
            (None, None) => 0,
        }
    }

    fn is_full(&self) -> bool {
        self.open.get().is_none() || self.waiting() >= self.shared.limits.bytes
    }

    fn client(&self) -> Option<&ClientId> {
        Some(&self.client)
    }

    fn close(&self, reason: CloseReason) {
        let Some((socket, transport)) = self.open.get() else { return };
        if reason.is_orderly() {
            return self.shared.closing_polls.send_away(socket, || {
                // A client whose outbox is full notices the end of the connection anyway.
                let _full = self.take_own("exception", &reason.error().exception(), None);
                self.flush();
            });
        }
        self.shared.closing_polls.take(socket.id.as_str());
        if let Some(session) = transport.polls() {
            session.abort(reason);
        }
        if socket.transport_type() == TransportType::Websocket
            && let Some(connection) = transport.connection()
        {
            return connection.abort();
        }
        // There is no connection to abort, so the session is closed here instead of by the heartbeat.
        if let Err(error) = socket.clone().disconnect() {
            tracing::debug!(%error, reason = reason.as_str(), "a socket could not be told its end");
        }
    }
}
