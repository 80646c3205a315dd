//! The sending end of a socket.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Bytes;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::{SendError, SocketError, TransportType, extract::SocketRef};

use super::{
    lines::{Line, Lines, first_connection},
    packet::{Frames, Packet},
};
use crate::{
    connection::{Connection, Most, Pipe, Queued},
    event::Gap,
    gateway::{CloseReason, Delivery, Offer, Outlet},
    id::ClientId,
    position::{Position, RoomSet},
    room::Room,
    store::Arrival,
};

/// What the outlets of all sockets have in common.
#[derive(Debug)]
pub struct Sending {
    pub lines: Lines,
    /// How much may wait for a socket before nothing more is taken.
    pub most: Most,
    pub deliveries: Counter,
    pub connections: Gauge,
    /// Whether sockets join socketioxide's rooms too.
    pub joins_rooms: bool,
    pub frames: Frames,
}

/// The event after which frames go beside socketioxide. It is given to socketioxide, and never leaves the process.
const MARK: &str = "jobcast:beside";

/// The sending end of a socket. Until the socket is open it has no place for anything.
///
/// While the socket polls, socketioxide sends what it is given. Once a WebSocket carries it, frames that are shared by
/// all sockets go to the connection's pipe, beside socketioxide, which sends only pings and what an application emits.
pub struct SocketOutlet {
    sending: Arc<Sending>,
    open: OnceLock<(SocketRef, Carrier)>,
    beside: OnceLock<Arc<Pipe>>,
    /// Held while something is given to socketioxide, so that nothing given later overtakes it.
    through: Mutex<()>,
    client: ClientId,
}

/// What carries a socket.
enum Carrier {
    /// A WebSocket from the beginning; `None` where an application serves the router without connect info.
    WebSocket(Option<Connection>),
    /// Polls at first.
    Polls(Arc<Line>),
}

impl Carrier {
    fn connection(&self) -> Option<&Connection> {
        match self {
            Carrier::WebSocket(connection) => connection.as_ref(),
            Carrier::Polls(line) => line.connection(),
        }
    }

    fn line(&self) -> Option<&Line> {
        match self {
            Carrier::WebSocket(_) => None,
            Carrier::Polls(line) => Some(line),
        }
    }
}

impl SocketOutlet {
    pub fn new(sending: Arc<Sending>, client: ClientId) -> Self {
        sending.connections.inc();
        Self { sending, open: OnceLock::new(), beside: OnceLock::new(), through: Mutex::default(), client }
    }

    /// From now on deliveries go to this socket.
    pub fn open(&self, socket: SocketRef) {
        let lines = &self.sending.lines;
        let polled = || socket.transport_type() == TransportType::Polling;
        let carrier = match lines.find(socket.id.as_str()) {
            Some(line) => Carrier::Polls(line),
            None if polled() => Carrier::Polls(lines.line(socket.id.as_str())),
            None => Carrier::WebSocket(first_connection(&socket)),
        };
        // Opened once, by the one inbox that made it.
        let _only_once = self.open.set((socket, carrier));
    }

    /// Whether the socket is to join socketioxide's rooms of the same names.
    pub fn joins_rooms(&self) -> bool {
        self.sending.joins_rooms
    }

    /// Takes a packet, if there is place for it; [`Outlet::flush`] sends it.
    pub fn take(&self, packet: &Packet<'_>) -> Offer {
        self.take_framed(packet, || packet.frame())
    }

    fn take_framed(&self, packet: &Packet<'_>, frame: impl FnOnce() -> Bytes) -> Offer {
        if let Some(pipe) = self.beside.get() {
            return self.push(pipe, &frame(), 1);
        }
        let Some((socket, carrier)) = self.open.get() else { return Offer::Full };
        let _one_after_the_other = self.through.lock().unwrap_or_else(PoisonError::into_inner);
        match self.beside.get().or_else(|| self.go_beside(socket, carrier)) {
            Some(pipe) => self.push(pipe, &frame(), 1),
            None => self.emit(packet, socket, carrier.line()),
        }
    }

    /// Leaves it to the pipe to send from now on, where a WebSocket carries the socket.
    fn go_beside(&self, socket: &SocketRef, carrier: &Carrier) -> Option<&Arc<Pipe>> {
        if socket.transport_type() != TransportType::Websocket {
            return None;
        }
        let pipe = carrier.connection()?.pipe()?;
        let nothing = RawValue::NULL;
        if !pipe.write_beside_after(Packet::Event { name: MARK, argument: nothing, positions: None }.frame())
        {
            return None;
        }
        socket.emit(MARK, nothing).ok()?;
        Some(self.beside.get_or_init(|| pipe))
    }

    fn push(&self, pipe: &Pipe, frames: &Bytes, count: usize) -> Offer {
        match pipe.push(frames, count, self.sending.most) {
            Queued::Waits => Offer::Taken,
            Queued::Full => Offer::Full,
            Queued::Closed => Offer::Closed,
        }
    }

    fn emit(&self, packet: &Packet<'_>, socket: &SocketRef, line: Option<&Line>) -> Offer {
        let Some(line) = line else { return outcome(packet.emit(socket)) };
        if line.is_cut() {
            return Offer::Closed;
        }
        if line.waiting() >= self.sending.most.bytes {
            return Offer::Full;
        }
        // Counted before, because it may have left before `emit` returns.
        line.hand_over(packet.size());
        let offer = outcome(packet.emit(socket));
        if offer != Offer::Taken {
            line.take_back(packet.size());
        }
        offer
    }

    fn take_one(&self, arrival: &Arrival, rooms: RoomSet) -> Offer {
        let event = &arrival.event;
        // Only where socketioxide writes them: a frame brings its own.
        let positions = match self.beside.get() {
            Some(_) => None,
            None => arrival.positions.to_json(event, rooms),
        };
        let (name, argument) = (event.kind().name(), event.json());
        let packet = Packet::Event { name, argument, positions: positions.as_deref() };
        let frame = || self.sending.frames.of(std::slice::from_ref(arrival), rooms);
        let offer = self.take_framed(&packet, frame);
        if offer == Offer::Taken {
            self.sending.deliveries.inc();
        }
        offer
    }

    fn take_gap(&self, gap: &Gap, room: &Room, position: Position) -> Offer {
        let positions = position.to_json(room);
        match to_raw_value(gap) {
            Ok(argument) => {
                let (argument, positions) = (&*argument, positions.as_deref());
                self.take(&Packet::Event { name: "job:gap", argument, positions })
            }
            Err(error) => {
                tracing::error!(%error, "a gap could not be written");
                Offer::Taken
            }
        }
    }
}

impl Drop for SocketOutlet {
    fn drop(&mut self) {
        self.sending.connections.dec();
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
        match delivery {
            Delivery::Event(event, positions, rooms) => {
                self.take_one(&Arrival { event: event.clone(), positions: *positions }, rooms)
            }
            Delivery::Gap(gap, room, position) => self.take_gap(gap, room, position),
            Delivery::Notice(notice) => {
                let (name, argument) = (notice.name.as_str(), &*notice.data);
                self.take(&Packet::Event { name, argument, positions: None })
            }
        }
    }

    fn offer_all(&self, arrivals: &[Arrival], rooms: RoomSet) -> usize {
        if let Some(pipe) = self.beside.get() {
            let offer = self.push(pipe, &self.sending.frames.of(arrivals, rooms), arrivals.len());
            if offer == Offer::Taken {
                self.sending.deliveries.inc_by(arrivals.len() as u64);
            }
            if offer != Offer::Full {
                return arrivals.len();
            }
        }
        arrivals.iter().take_while(|arrival| self.take_one(arrival, rooms) != Offer::Full).count()
    }

    fn flush(&self) {
        if let Some(pipe) = self.beside.get() {
            pipe.flush();
        }
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn waiting(&self) -> u64 {
        match (self.beside.get(), self.open.get()) {
            (Some(pipe), _) => pipe.waiting(),
            (None, Some((_, carrier))) => carrier.line().map_or(0, Line::waiting),
            (None, None) => 0,
        }
    }

    fn is_full(&self) -> bool {
        self.open.get().is_none() || self.waiting() >= self.sending.most.bytes
    }

    fn client(&self) -> Option<&ClientId> {
        Some(&self.client)
    }

    fn close(&self, reason: CloseReason) {
        let Some((socket, carrier)) = self.open.get() else { return };
        if let Some(line) = carrier.line() {
            line.cut();
        }
        if socket.transport_type() == TransportType::Websocket
            && let Some(connection) = carrier.connection()
        {
            return connection.cut();
        }
        // Nobody polls any more, or the connection is not known: the heartbeat would end it later.
        if let Err(error) = socket.clone().disconnect() {
            tracing::debug!(%error, reason = reason.as_str(), "a socket could not be told its end");
        }
    }
}
