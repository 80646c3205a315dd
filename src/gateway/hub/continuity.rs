//! Continuity: for which rooms the feed has left something out, and what the node reads to make that good.

use super::{CatchUpReason, Hub, SessionKey};
use crate::{
    position::Position,
    room::Room,
    store::{LogPage, Rooms},
};

/// Whether the feed brings all of a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Continuity {
    /// It does.
    #[default]
    Whole,
    /// It may leave something out from the live edge on.
    Interrupted,
    /// It brings all from now on, and the node reads what came before.
    Filling {
        /// Which restoration this follows on: what was read for an earlier one may be short.
        restoration: u64,
        /// The last place that the feed has brought meanwhile.
        seen: Position,
    },
}

impl Continuity {
    /// Whether what the feed brings follows on the live edge; what does not is fetched later.
    pub fn follows(&mut self, position: Position) -> bool {
        match self {
            Continuity::Whole => true,
            Continuity::Interrupted => false,
            Continuity::Filling { seen, .. } => {
                *seen = position.max(*seen);
                false
            }
        }
    }
}

/// A part of a room's log that the node has to read because the feed left something out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The room.
    pub room: Room,
    /// What comes after this place is needed.
    pub after: Position,
    /// What is read from now on holds everything up to here that the log has.
    until: Position,
    restoration: u64,
}

impl Hub {
    /// Notes that from now on the feed may leave out something of these rooms.
    pub fn interrupt(&mut self, rooms: &Rooms) {
        let mut held = Vec::new();
        for room in self.affected(rooms) {
            let Some(state) = self.rooms.get_mut(&room) else { continue };
            state.continuity = Continuity::Interrupted;
            // The store may come back without some of it.
            self.recent.forget(&room);
            let several =
                |key: &SessionKey| self.sessions.get(*key).is_some_and(|session| session.rooms.len() > 1);
            held.extend(state.members.iter().copied().filter(several));
        }
        // Once all are marked: a session waits for its rooms in the order in which it joined them.
        held.into_iter().for_each(|key| self.hold(key));
    }

    /// Has a session in several rooms wait for those of which the feed has left something out: what they have to bring
    /// comes before whatever else has it.
    pub(super) fn hold(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        for room in session.rooms.clone() {
            let Some(state) = self.rooms.get(&room) else { continue };
            if let Some(edge) = state.edge.filter(|_| state.continuity != Continuity::Whole)
                && session.cursor(&room).is_none()
            {
                session.fall_behind(&room, edge.position);
            }
        }
    }

    /// Whether the feed brings all of a room.
    pub(super) fn is_whole_in(&self, room: &Room) -> bool {
        self.rooms.get(room).is_none_or(|state| state.continuity == Continuity::Whole)
    }

    /// Notes that from now on the feed leaves out nothing of these rooms: what it did is due to be read.
    pub fn restore(&mut self, rooms: &Rooms) {
        self.restorations += 1;
        let (restoration, seen) = (self.restorations, Position::START);
        for room in self.affected(rooms) {
            if let Some(state) = self.rooms.get_mut(&room) {
                state.continuity = Continuity::Filling { restoration, seen };
                self.begin_fill(&room);
            }
        }
    }

    fn affected(&self, rooms: &Rooms) -> Vec<Room> {
        match rooms {
            Rooms::All => {
                let mut rooms: Vec<Room> = self.rooms.keys().cloned().collect();
                rooms.sort_unstable();
                rooms
            }
            Rooms::Some(rooms) => rooms.clone(),
        }
    }

    /// Has a room be read from its live edge on. Where it has none yet, that waits for the first who joins.
    pub(super) fn begin_fill(&mut self, room: &Room) {
        self.fills_due.extend(self.next_fill(room));
    }

    fn next_fill(&self, room: &Room) -> Option<Fill> {
        let state = self.rooms.get(room)?;
        let after = state.edge?.position;
        let Continuity::Filling { restoration, seen } = state.continuity else { return None };
        Some(Fill { room: room.clone(), after, until: seen, restoration })
    }

    /// Takes the rooms that somebody has to read since the last call.
    pub fn take_fills_due(&mut self) -> Vec<Fill> {
        std::mem::take(&mut self.fills_due)
    }

    /// Whether a part that has to be read is still needed: the feed may have been interrupted anew, or nobody be there.
    pub fn is_due(&self, fill: &Fill) -> bool {
        let now = self.rooms.get(&fill.room).map(|state| state.continuity);
        matches!(now, Some(Continuity::Filling { restoration, .. }) if restoration == fill.restoration)
    }

    /// Takes what was read of a room's log because the feed left some out. Answers what has to be read next; `None`
    /// once the feed is whole again there, or has been interrupted anew.
    pub fn fill(&mut self, fill: &Fill, page: &LogPage) -> Option<Fill> {
        if !self.is_due(fill) {
            return None;
        }
        self.take_entries(&fill.room, &page.entries);
        let state = self.rooms.get_mut(&fill.room)?;
        let edge = state.edge.as_mut()?;
        if page.is_last {
            // What the log does not have up to there, it has lost.
            edge.position = edge.position.max(fill.until);
            if let Continuity::Filling { seen, .. } = state.continuity
                && seen <= edge.position
            {
                state.continuity = Continuity::Whole;
                self.release(&fill.room);
                return None;
            }
        }
        let last = page.entries.last().map(|entry| entry.position);
        let next = self.next_fill(&fill.room)?;
        Some(Fill { after: last.filter(|_| !page.is_last).unwrap_or(next.after), ..next })
    }

    /// Lets those go on who had to wait for a room.
    fn release(&mut self, room: &Room) {
        let Some(state) = self.rooms.get(room) else { return };
        for key in &state.members {
            let Some(session) = self.sessions.get_mut(*key) else { continue };
            session.meet_edge(room, state.edge);
            if !session.cursors.is_empty() {
                self.catch_ups_due.push((*key, CatchUpReason::Restored));
            }
        }
    }

    /// Whether the feed brings all of every room.
    pub fn is_whole(&self) -> bool {
        self.rooms.values().all(|state| state.continuity == Continuity::Whole)
    }
}
