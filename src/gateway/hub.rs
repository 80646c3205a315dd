//! The hub: which sessions of this node are in which room, how far each room's log has been delivered here, and who is
//! behind.
//!
//! It is a plain state machine: no clock, no network, no await. Every rule that must hold is kept here, under one lock
//! that its owner holds for the length of one call; all that it does to others is to put deliveries into their outboxes.
//!
//! - `membership`: who is in which room.
//! - `delivery`: what becomes of an event that the feed brings.
//! - `continuity`: what the feed left out, and that it is made good.
//! - `session`: one session: its rooms, and a cursor for each room that it is not at the live edge of.
//! - `guard`: who is in a job's room because of the job's owner.
//! - `passed`: what a session in several rooms has had already.

mod continuity;
mod delivery;
mod guard;
mod membership;
mod passed;
mod recent;
mod session;
mod stats;

use std::collections::HashMap;

use indexmap::IndexSet;
use slotmap::{SlotMap, new_key_type};

use self::{continuity::Continuity, guard::Guard, recent::Recent, session::SessionState};
pub use self::{
    continuity::Fill,
    guard::{Admitted, PutOut},
    membership::Start,
    session::Need,
    stats::SessionStats,
};
use super::live_edge::LiveEdge;
use crate::{access::OwnerlessJobs, room::Room};

new_key_type! {
    /// Names a session of this node; never given to another one.
    pub struct SessionKey;
}

/// Sessions, rooms and live edges of one node.
#[derive(Default)]
pub struct Hub {
    // Boxed, because the map has room for up to twice as many as there are.
    sessions: SlotMap<SessionKey, Box<SessionState>>,
    rooms: HashMap<Room, RoomState>,
    recent: Recent,
    /// Sessions that have fallen behind, or may have, and that nobody looks after yet.
    catch_ups_due: Vec<(SessionKey, CatchUpReason)>,
    /// Rooms of which the feed left something out, and that nobody reads yet.
    fills_due: Vec<Fill>,
    /// How many interruptions have been made good, or are about to be.
    restorations: u64,
    /// How many notices waited for the session that has the most, when that was last looked at.
    most_notices: usize,
    /// Sessions that have taken something since they were flushed.
    unflushed: Vec<SessionKey>,
    /// Who sees jobs that have no owner.
    ownerless: OwnerlessJobs,
    /// Sessions that were put out of a room, and are counted there still.
    put_out: Vec<PutOut>,
}

/// One room that sessions of this node are in, or about to be.
#[derive(Default)]
struct RoomState {
    members: IndexSet<SessionKey>,
    /// How many sessions are about to join.
    joining: usize,
    /// `None` until the feed has brought something, or somebody has joined.
    edge: Option<LiveEdge>,
    continuity: Continuity,
    /// Of a job's room with members that were admitted by the job's owner.
    guard: Option<Box<Guard>>,
}

impl Hub {
    /// A hub without sessions.
    pub fn new(ownerless: OwnerlessJobs) -> Self {
        Self { ownerless, ..Self::default() }
    }
}

/// Why a session catches up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUpReason {
    /// It had no place for what was live.
    Slow,
    /// It has just joined a room.
    Joined,
    /// It had to wait for a room of which the feed had left something out.
    Restored,
}

impl CatchUpReason {
    /// The reason as a metric's label and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            CatchUpReason::Slow => "slow",
            CatchUpReason::Joined => "resume",
            CatchUpReason::Restored => "resync",
        }
    }
}

#[cfg(test)]
mod tests;
