//! What the core knows of an edge: a queue that takes deliveries for one session, or has no place for them.

use serde::Serialize;

use crate::{
    access::forbidden,
    error::{ApiError, ErrorCode},
    event::{Gap, JobEvent},
    id::ClientId,
    notice::Notice,
    position::{Position, Positions, RoomSet},
    room::Room,
    store::Arrival,
    timestamp::Timestamp,
};

/// Something on its way to a session.
#[derive(Debug, Clone, Copy)]
pub enum Delivery<'a> {
    /// A job event, where it stands, and which of its rooms bring it.
    Event(&'a JobEvent, &'a Positions, RoomSet),
    /// Events that can no longer be had, the room that misses them, and where they stood there.
    Gap(&'a Gap, &'a Room, Position),
    /// An event of a publisher's own.
    Notice(&'a Notice),
    /// What the gateway tells this session alone.
    Signal(&'a Signal),
}

/// What the gateway tells one session of its own standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// It was put out of a room that it may not see.
    PutOut(Room),
    /// Its token expires then. A new one in its place keeps the connection.
    Expiring(Timestamp),
}

impl Signal {
    /// What a session is told that was put out of a room.
    pub fn put_out(room: &Room) -> ApiError {
        forbidden(room, "you were put out of it: it is not yours to see")
    }
}

/// The payload that tells when a token expires.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiring {
    /// When.
    pub expires_at: Timestamp,
}

impl Delivery<'_> {
    /// At least so many bytes it is on every wire.
    pub fn size(&self) -> usize {
        match self {
            Delivery::Event(event, ..) => event.json().get().len(),
            Delivery::Gap(gap, ..) => gap.job.as_str().len(),
            Delivery::Notice(notice) => notice.data.get().len(),
            Delivery::Signal(_) => 0,
        }
    }
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is on its way, behind everything taken before.
    Taken,
    /// There is no place for it now.
    Full,
    /// The session is ending; nothing will be taken any more.
    Closed,
}

/// Why the gateway ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It stayed behind for longer than `limits.behind`.
    TooSlow,
    /// More notices waited for it than may.
    TooManyNotices,
    /// An answer that it waits for could not be sent.
    Unreachable,
    /// It sent more than `limits.messages_per_second` for seconds.
    TooManyMessages,
    /// It sent what is no packet.
    Malformed,
    /// It sent a message of more than `server.max_payload`.
    TooLarge,
    /// Its token has expired.
    TokenExpired,
    /// Its token was revoked.
    TokenRevoked,
}

impl CloseReason {
    /// Whether the session still gets what waits for it, and is told the reason.
    pub fn is_orderly(self) -> bool {
        matches!(self, CloseReason::TokenExpired | CloseReason::TokenRevoked)
    }

    /// What a session is told that is sent away in order.
    pub fn error(self) -> ApiError {
        match self {
            CloseReason::TokenExpired => {
                ApiError::new(ErrorCode::TokenExpired, "the token has expired; connect again with a new one")
            }
            CloseReason::TokenRevoked => {
                ApiError::new(ErrorCode::Unauthorized, "the token was revoked; connect again with a new one")
            }
            other => ApiError::new(ErrorCode::Unavailable, other.as_str()),
        }
    }

    /// The reason as a metric's label and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::TooSlow => "too_slow",
            CloseReason::TooManyNotices => "too_many_notices",
            CloseReason::Unreachable => "unreachable",
            CloseReason::TooManyMessages => "too_many_messages",
            CloseReason::Malformed => "malformed",
            CloseReason::TooLarge => "too_large",
            CloseReason::TokenExpired => "token_expired",
            CloseReason::TokenRevoked => "token_revoked",
        }
    }
}

/// The sending end of one session. The hub offers under its lock, so an offer puts something into a queue or refuses
/// it, at once, and does nothing else.
pub trait Outlet: Send + Sync + 'static {
    /// Takes a delivery or refuses it. What is taken is sent in the order of the offers, at the latest after the next
    /// [`Outlet::flush`].
    fn offer(&self, delivery: Delivery<'_>) -> Offer;

    /// Takes events that the same rooms bring, as [`Outlet::offer`] takes each of them. Answers how many it took before
    /// it had no place; what is closed takes all.
    fn offer_all(&self, arrivals: &[Arrival], rooms: RoomSet) -> usize {
        let offer = |arrival: &&Arrival| {
            self.offer(Delivery::Event(&arrival.event, &arrival.positions, rooms)) != Offer::Full
        };
        arrivals.iter().take_while(offer).count()
    }

    /// Sends what was taken, as far as that goes without waiting; the rest follows by itself. It is called after the
    /// offers that come together, so that they can leave together; never under a lock of the hub.
    fn flush(&self) {}

    /// How many bytes wait in this process until the peer takes them.
    fn waiting(&self) -> u64;

    /// Whether an offer would be refused for want of a place, as far as that can be told without one.
    fn is_full(&self) -> bool;

    /// Whether notices are of interest to it.
    fn takes_notices(&self) -> bool;

    /// The name of the record that its client has, if it has one.
    fn client(&self) -> Option<&ClientId> {
        None
    }

    /// Ends the connection behind it; must not wait. For an orderly reason the client is told it, after what it was sent
    /// before; if that does not end the connection, it is told so again with another reason.
    fn close(&self, reason: CloseReason);
}
