//! Membership: which sessions are in which room, and from which place of its log on.

use std::sync::Arc;

use super::{
    Admitted, CatchUpReason, Hub, SessionKey,
    continuity::Continuity,
    session::{Cursor, SessionState},
};
use crate::{
    access::Pass,
    gateway::{live_edge::LiveEdge, outlet::Outlet},
    position::Position,
    room::Room,
    timestamp::Timestamp,
};

/// From where on a room reaches a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The room's log is delivered from behind this place on.
    pub after: Position,
    /// The end of the log when it was read, after the feed covered the room.
    pub end: Position,
    /// No event up to the end has a later time.
    pub at: Timestamp,
    /// Whether what is between both was asked for, so that it comes again where another room has brought it.
    pub asked: bool,
}

impl Hub {
    /// Adds a session that is in no room.
    pub fn connect(&mut self, outlet: Arc<dyn Outlet>, connection: u64, pass: Arc<Pass>) -> SessionKey {
        self.sessions.insert(Box::new(SessionState::new(outlet, connection, pass)))
    }

    /// Removes a session, and tells which rooms it was in.
    pub fn disconnect(&mut self, key: SessionKey) -> Vec<Room> {
        let Some(session) = self.sessions.remove(key) else { return Vec::new() };
        for room in &session.rooms {
            self.remove_member(key, room);
        }
        session.rooms
    }

    /// In how many rooms a session is or is about to be.
    pub fn room_count(&self, key: SessionKey) -> usize {
        self.sessions.get(key).map_or(0, |session| session.rooms.len() + session.joining)
    }

    /// Whether a session is in a room.
    pub fn is_in(&self, key: SessionKey, room: &Room) -> bool {
        self.sessions.get(key).is_some_and(|session| session.is_in(room))
    }

    /// Up to where a session has got everything of one of several rooms; `None` where it is in no other one.
    pub fn place_beside_others(&self, key: SessionKey, room: &Room) -> Option<Position> {
        let session = self.sessions.get(key).filter(|session| session.rooms.len() > 1)?;
        let edge = self.rooms.get(room).and_then(|state| state.edge).map(|edge| edge.position);
        session.cursor(room).map(|cursor| cursor.position).or(edge).filter(|_| session.is_in(room))
    }

    /// Begins to join: from now on the hub follows the room's live edge. To be ended by [`Hub::start`] or
    /// [`Hub::cancel_join`]. Says whether the session is there.
    pub fn begin_join(&mut self, key: SessionKey, room: &Room) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        session.joining += 1;
        self.rooms.entry(room.clone()).or_default().joining += 1;
        true
    }

    /// Lets everything wait that reaches a session, for as long as it is told what it is about to get again: that comes
    /// before anything that happens from now on. Until [`Hub::start`] or [`Hub::cancel_join`].
    pub fn begin_answer(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.answering = true;
        }
    }

    /// Gives up joining.
    pub fn cancel_join(&mut self, key: SessionKey, room: &Room) {
        self.end_join(key, room);
        self.remove_if_empty(room);
    }

    fn end_join(&mut self, key: SessionKey, room: &Room) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.joining -= 1;
            if session.joining == 0 {
                session.put_out = Vec::new();
            }
            let has_waited = std::mem::take(&mut session.answering);
            if has_waited && !(session.cursors.is_empty() && session.notices.is_empty()) {
                self.catch_ups_due.push((key, CatchUpReason::Joined));
            }
        }
        if let Some(state) = self.rooms.get_mut(room) {
            state.joining -= 1;
        }
    }

    /// Completes joining: everything after the start reaches the session from here on, once and in order, and nothing
    /// before. A session that is in the room already goes back to the start if that was asked for, and skips nothing.
    /// Says whether it is newly in the room. One that was put out of it meanwhile stays out.
    pub fn start(&mut self, key: SessionKey, room: &Room, start: Start, admitted: Admitted) -> bool {
        let may = self.sessions.get(key).is_some_and(|session| !session.put_out.contains(room));
        self.end_join(key, room);
        if !may {
            self.remove_if_empty(room);
            return false;
        }
        let edge = self.edge_from(room, &start);
        self.hold(key);
        let is_whole = self.is_whole_in(room);
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let newly = session.enter(room);
        if newly || start.asked {
            let had = if newly { start.after } else { session.cursor(room).map_or(edge, |at| at.position) };
            let position = start.after.min(had);
            session.remove_cursor(room);
            session.passed.end_runs(room);
            let asked = if start.asked { start.end } else { Position::START };
            let cursor = Cursor { position, asked };
            if position != edge || cursor.has_asked() || !is_whole {
                session.cursors.push_back((room.clone(), cursor));
                self.catch_ups_due.push((key, CatchUpReason::Joined));
            }
        }
        if let Some(state) = self.rooms.get_mut(room) {
            state.members.insert(key);
        }
        self.guard(key, room, admitted);
        self.remove_if_empty(room);
        newly
    }

    /// The live edge of a room that somebody joins. The first of all sets it: what the feed has yet to bring up to there
    /// is due to nobody.
    fn edge_from(&mut self, room: &Room, start: &Start) -> Position {
        let state = self.rooms.entry(room.clone()).or_default();
        let first = state.members.is_empty();
        let at_end = LiveEdge { position: start.end, at: start.at };
        let edge = state.edge.get_or_insert(at_end);
        if first && edge.position < start.end {
            *edge = at_end;
        }
        let position = edge.position;
        if first && matches!(state.continuity, Continuity::Filling { .. }) {
            self.begin_fill(room);
        }
        position
    }

    /// Takes a session out of a room. Says whether it was there.
    pub fn leave(&mut self, key: SessionKey, room: &Room) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        if !session.exit(room) {
            return false;
        }
        if !session.cursors.is_empty() {
            // What had to wait for this room need not any more.
            self.catch_ups_due.push((key, CatchUpReason::Restored));
        }
        self.remove_member(key, room);
        true
    }

    fn remove_member(&mut self, key: SessionKey, room: &Room) {
        if let Some(state) = self.rooms.get_mut(room) {
            state.members.swap_remove(&key);
            if let Some(guard) = &mut state.guard {
                guard.remove(key);
            }
        }
        self.remove_if_empty(room);
    }

    /// Forgets a room that nobody is in, with its live edge, and a guard that nobody needs.
    fn remove_if_empty(&mut self, room: &Room) {
        if let Some(state) = self.rooms.get_mut(room)
            && state.joining == 0
            && state.guard.as_ref().is_some_and(|guard| guard.is_empty())
        {
            state.guard = None;
        }
        let is_empty = |state: &super::RoomState| state.members.is_empty() && state.joining == 0;
        if self.rooms.get(room).is_some_and(is_empty) {
            self.rooms.remove(room);
            self.recent.forget(room);
        }
    }

    /// What a session may do, and for how long.
    pub fn pass(&self, key: SessionKey) -> Option<Arc<Pass>> {
        self.sessions.get(key).map(|session| session.pass.clone())
    }

    /// Puts another pass in place of a session's. `admitted` tells why it may be in rooms that it is in.
    pub fn renew(&mut self, key: SessionKey, pass: Arc<Pass>, admitted: Vec<(Room, Admitted)>) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.pass = pass;
        }
        for (room, admitted) in admitted {
            if self.is_in(key, &room) {
                self.guard(key, &room, admitted);
            }
        }
    }

    /// The sessions with such a pass.
    pub fn sessions_of(&self, is_such: impl Fn(&Pass) -> bool) -> Vec<SessionKey> {
        let such = self.sessions.iter().filter(|(_, session)| is_such(&session.pass));
        such.map(|(key, _)| key).collect()
    }

    /// The rooms that a session is in.
    pub fn rooms_of(&self, key: SessionKey) -> Vec<Room> {
        self.sessions.get(key).map(|session| session.rooms.clone()).unwrap_or_default()
    }

    /// The sending end of a session.
    pub fn outlet(&self, key: SessionKey) -> Option<Arc<dyn Outlet>> {
        self.sessions.get(key).map(|session| session.outlet.clone())
    }

    /// The sending end of a session that is to be closed; `None` if it is gone or that was said before.
    pub fn begin_close(&mut self, key: SessionKey) -> Option<Arc<dyn Outlet>> {
        let session = self.sessions.get_mut(key)?;
        let before = std::mem::replace(&mut session.closing, true);
        (!before).then(|| session.outlet.clone())
    }
}

impl SessionState {
    /// Puts it into a room. Says whether it was not there before.
    fn enter(&mut self, room: &Room) -> bool {
        let newly = !self.is_in(room);
        if newly {
            self.rooms.reserve_exact(usize::from(self.rooms.is_empty()));
            self.rooms.push(room.clone());
        }
        newly
    }

    /// Takes it out of a room. Says whether it was there.
    fn exit(&mut self, room: &Room) -> bool {
        let Some(place) = self.rooms.iter().position(|other| other == room) else { return false };
        self.rooms.remove(place);
        self.remove_cursor(room);
        true
    }
}
