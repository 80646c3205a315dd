//! Delivery: what becomes of what the feed brings, and of what sessions read that are behind.

use std::{sync::Arc, time::Instant};

use super::{
    CatchUpReason, Hub, SessionKey,
    continuity::Continuity,
    session::{Bringing, Cursor, Need, Progress, Queued, SessionState},
};
use crate::{
    gateway::{
        live_edge::{LiveEdge, Step},
        notices::HeldNotice,
        outlet::{Delivery, Offer, Outlet, Signal},
    },
    notice::Audience,
    position::{Position, Positions},
    room::Room,
    store::{Arrival, Content, LogEntry, LogPage},
};

/// How many notices, and how many bytes of them, wait for a session that is full.
const MAX_WAITING_NOTICES: (usize, usize) = (1024, 16 * 1024 * 1024);

/// How many notices wait for a session that reads, before publishers wait for it.
const NOTICES_PILE_UP: usize = 64;

/// Rooms that bring an event now, each with its live edge before.
type Reached = Vec<(Room, Position)>;

impl Hub {
    /// Takes the first of some arrivals that the feed brings, and with it those that follow it in the same rooms: one
    /// look at a session serves them all. Answers how many it took.
    pub fn receive(&mut self, arrivals: &[Arrival]) -> usize {
        let Some(first) = arrivals.first() else { return 0 };
        let (reached, mut anew) = self.advance(first);
        let mut count = 1;
        while !reached.is_empty() && !anew && count < arrivals.len() {
            match self.would_reach(&arrivals[count], &reached) {
                true => (_, anew) = self.advance(&arrivals[count]),
                false => break,
            }
            count += 1;
        }
        let reached: Vec<Bringing<'_>> = reached.iter().map(|(room, before)| (room, *before)).collect();
        self.deliver(&arrivals[..count], &reached);
        count
    }

    /// Moves the live edges that an arrival moves. Answers the rooms that bring it, and whether the log of one of them
    /// began anew.
    fn advance(&mut self, arrival: &Arrival) -> (Reached, bool) {
        let (mut reached, mut anew, mut is_guarded) = (Reached::new(), false, false);
        for (room, position) in arrival.positions.rooms(&arrival.event) {
            let Some(state) = self.rooms.get_mut(&room) else { continue };
            is_guarded |= state.guard.is_some();
            if !state.continuity.follows(position) {
                continue;
            }
            let Some(edge) = &mut state.edge else {
                // Nobody is in it yet.
                state.edge = Some(LiveEdge { position, at: arrival.event.timestamp() });
                continue;
            };
            let before = edge.position;
            match edge.decide(position, &arrival.event) {
                Step::Duplicate => continue,
                Step::Next => self.recent.push(&room, before, position, arrival),
                Step::Anew => anew = true,
            }
            edge.advance(position, &arrival.event);
            reached.push((room, before));
        }
        if anew {
            reached.iter().for_each(|(room, _)| self.begin_anew(room));
        }
        if is_guarded {
            let event = &arrival.event;
            self.admit(event.job(), Position::of_seq(event.seq()), event.owner());
        }
        (reached, anew)
    }

    /// Whether an arrival that follows on one moves the edges of exactly the same rooms.
    fn would_reach(&self, arrival: &Arrival, rooms: &Reached) -> bool {
        let mut count = 0;
        for (room, position) in arrival.positions.rooms(&arrival.event) {
            let Some(state) = self.rooms.get(&room) else { continue };
            let is_next = |edge: &LiveEdge| edge.decide(position, &arrival.event) == Step::Next;
            let next = state.continuity == Continuity::Whole && state.edge.as_ref().is_some_and(is_next);
            if !next || rooms.get(count).is_none_or(|(other, _)| *other != room) {
                return false;
            }
            count += 1;
        }
        count == rooms.len()
    }

    /// Has those who are behind in a room begin with its new log.
    fn begin_anew(&mut self, room: &Room) {
        self.recent.forget(room);
        self.forget_owner(room);
        for key in self.rooms.get(room).into_iter().flat_map(|state| &state.members) {
            let cursors = self.sessions.get_mut(*key).map(|session| &mut session.cursors);
            for (_, cursor) in cursors.into_iter().flatten().filter(|(other, _)| other == room) {
                *cursor = Cursor { position: Position::START, asked: Position::START };
            }
        }
    }

    /// Offers arrivals to everybody in the rooms that bring them, to each once.
    fn deliver(&mut self, arrivals: &[Arrival], rooms: &[Bringing<'_>]) {
        for (place, (room, _)) in rooms.iter().enumerate() {
            let Some(state) = self.rooms.get(*room) else { continue };
            for key in &state.members {
                let Some(session) = self.sessions.get_mut(*key) else { continue };
                let several;
                let bringing = match session.rooms.len() {
                    1 => &rooms[place..=place],
                    _ if rooms[..place].iter().any(|(room, _)| session.is_in(room)) => continue,
                    _ => {
                        let of_session = rooms[place..].iter().filter(|(room, _)| session.is_in(room));
                        several = of_session.copied().collect::<Vec<_>>();
                        &several
                    }
                };
                let edge_of = |room: &Room| {
                    let state = self.rooms.get(room)?;
                    Some((state.edge?.position, state.continuity == Continuity::Whole))
                };
                let offer = |session: &mut SessionState| session.offer_live(arrivals, bringing, edge_of);
                if noting(&mut self.unflushed, *key, session, offer) {
                    self.catch_ups_due.push((*key, CatchUpReason::Slow));
                }
            }
        }
    }

    /// Takes entries of a room's log that the node has read because the feed left some out.
    pub(super) fn take_entries(&mut self, room: &Room, entries: &[LogEntry]) {
        self.admit_entries(room, entries);
        for entry in entries {
            match &entry.content {
                Content::Event(event) => {
                    let Some(edge) = self.rooms.get_mut(room).and_then(|state| state.edge.as_mut()) else {
                        return;
                    };
                    let (before, step) = (edge.position, edge.decide(entry.position, event));
                    if step == Step::Duplicate {
                        continue;
                    }
                    edge.advance(entry.position, event);
                    if step == Step::Anew {
                        self.begin_anew(room);
                        self.admit_entries(room, std::slice::from_ref(entry));
                    }
                    let positions = Positions::in_room(room, entry.position);
                    self.deliver(&[Arrival { event: event.clone(), positions }], &[(room, before)]);
                }
                Content::Lost(_) => self.pass_lost(room, entry),
            }
        }
    }

    /// Tells those at the live edge of a room of something that is lost there, and moves the edge past it.
    fn pass_lost(&mut self, room: &Room, entry: &LogEntry) {
        let Content::Lost(gap) = &entry.content else { return };
        let Some(state) = self.rooms.get_mut(room) else { return };
        let Some(edge) = state.edge.as_mut().filter(|edge| edge.position < entry.position) else { return };
        let before = std::mem::replace(&mut edge.position, entry.position);
        for key in &state.members {
            let Some(session) = self.sessions.get_mut(*key) else { continue };
            let offer = |session: &mut SessionState| session.offer_lost(entry, gap, room, before);
            if noting(&mut self.unflushed, *key, session, offer) {
                self.catch_ups_due.push((*key, CatchUpReason::Slow));
            }
        }
    }

    /// Whether [`Hub::take_catch_ups_due`] may have something to tell.
    pub fn has_catch_ups_due(&self) -> bool {
        !self.catch_ups_due.is_empty()
    }

    /// Takes the sessions that have fallen behind since the last call, each with the reason, and marks them as looked
    /// after from `now` until [`Hub::next_need`] answers `None`.
    pub fn take_catch_ups_due(&mut self, now: Instant) -> Vec<(SessionKey, CatchUpReason)> {
        let mut due = std::mem::take(&mut self.catch_ups_due);
        due.retain(|(key, _)| {
            let needs = self.need(*key).is_some();
            let session =
                self.sessions.get_mut(*key).filter(|session| needs && session.behind_since.is_none());
            session.is_some_and(|session| session.behind_since.replace(now).is_none())
        });
        due
    }

    /// What a session that catches up needs next; `None` once it is behind on nothing.
    pub fn next_need(&mut self, key: SessionKey) -> Option<Need> {
        let need = self.need(key);
        if need.is_none()
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.behind_since = None;
        }
        need
    }

    fn need(&self, key: SessionKey) -> Option<Need> {
        let session = self.sessions.get(key).filter(|session| !session.answering)?;
        if !session.notices.is_empty() {
            return Some(Need::Notices);
        }
        for (room, cursor) in &session.cursors {
            let Some(state) = self.rooms.get(room) else { continue };
            let Some(edge) = state.edge else { continue };
            let until = edge.position.max(cursor.asked);
            if cursor.position < until {
                let (room, after) = (room.clone(), cursor.position);
                return Some(Need::Log { room, after, until });
            }
            if state.continuity != Continuity::Whole {
                // What comes after it in the queue has to wait until the node has read what the feed left out.
                return None;
            }
        }
        None
    }

    /// What is remembered of a room's log after a place, for [`Hub::replay`]; empty where nothing is, and it has to be
    /// read. What a session asked for is always read: the store has told what there is of it.
    pub fn remembered(&self, key: SessionKey, room: &Room, after: Position, limit: usize) -> Vec<LogEntry> {
        let cursor = self.sessions.get(key).and_then(|session| session.cursor(room));
        if cursor.is_none_or(|cursor| after < cursor.asked) {
            return Vec::new();
        }
        let remembered = self.recent.after(room, after, limit).into_iter();
        remembered
            .map(|(position, arrival)| LogEntry { position, content: Content::Event(arrival.event) })
            .collect()
    }

    /// Hands a session a part of a room's log that it needed ([`Need::Log`]), read after that was said.
    pub fn replay(&mut self, key: SessionKey, need: &Need, page: &LogPage) -> Progress {
        let Need::Log { room, after, until } = need else { return Progress::default() };
        self.admit_entries(room, &page.entries);
        let Some(session) = self.sessions.get_mut(key) else { return Progress::default() };
        if session.answering || session.cursor(room).is_none_or(|cursor| cursor.position != *after) {
            // Moved or left in the meantime: the page is no longer the one that is needed.
            return Progress::default();
        }
        let until = page.is_last.then_some(*until);
        let progress = session.replay(room, &page.entries, until);
        if let Some(state) = self.rooms.get(room)
            && state.continuity == Continuity::Whole
        {
            session.meet_edge(room, state.edge);
        }
        progress
    }

    /// Hands a session the notices that wait for it.
    pub fn flush_notices(&mut self, key: SessionKey) -> Progress {
        let session = self.sessions.get_mut(key).filter(|session| !session.answering);
        session.map_or_else(Progress::default, |session| session.flush_notices())
    }

    /// Notes that a session still has no place for what it needs.
    pub fn note_full(&mut self, key: SessionKey) -> Progress {
        if let Some(session) = self.sessions.get_mut(key) {
            session.note_full();
        }
        Progress { full: true, asked: false }
    }

    /// Whether many notices wait for a session that reads.
    pub fn notices_pile_up(&mut self) -> bool {
        if self.most_notices > NOTICES_PILE_UP {
            let reading = self.sessions.values().filter(|session| session.reads_notices());
            self.most_notices = reading.map(|session| session.notices.len()).max().unwrap_or(0);
        }
        self.most_notices > NOTICES_PILE_UP
    }

    /// Delivers a notice to its audience. Answers the sessions that have to be closed, because more notices wait for
    /// them than may.
    pub fn notify(&mut self, held: &Arc<HeldNotice>) -> Vec<SessionKey> {
        let notice = &held.notice;
        let audience: Vec<SessionKey> = match &notice.audience {
            Audience::Everyone => self.sessions.keys().collect(),
            Audience::User(user) => {
                let state = self.rooms.get(&Room::User(user.clone()));
                state.into_iter().flat_map(|state| state.members.iter().copied()).collect()
            }
        };
        let mut overrun = Vec::new();
        for key in audience {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            if !session.outlet.takes_notices() || session.closing {
                continue;
            }
            let offer = |session: &mut SessionState| session.offer(Delivery::Notice(notice)) != Offer::Full;
            let is_first = session.notices.is_empty() && !session.answering;
            if is_first && noting(&mut self.unflushed, key, session, offer) {
                continue;
            }
            if !session.queue_notice(held, MAX_WAITING_NOTICES) {
                overrun.push(key);
                continue;
            }
            self.most_notices = self.most_notices.max(session.notices.len());
            self.catch_ups_due.push((key, CatchUpReason::Slow));
        }
        overrun
    }

    /// Tells one session something.
    pub fn signal(&mut self, key: SessionKey, signal: Signal) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| !session.closing) else { return };
        let offer = |session: &mut SessionState| session.offer(Delivery::Signal(&signal)) != Offer::Full;
        let is_first = session.notices.is_empty() && !session.answering;
        if is_first && noting(&mut self.unflushed, key, session, offer) {
            return;
        }
        session.notices.push_back(Queued::Signal(signal));
        self.catch_ups_due.push((key, CatchUpReason::Slow));
    }

    /// Takes the sending ends of all that have taken something since the last call.
    pub fn take_unflushed(&mut self) -> Vec<Arc<dyn Outlet>> {
        let mut outlets = Vec::with_capacity(self.unflushed.len());
        for key in self.unflushed.drain(..) {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            session.unflushed = false;
            outlets.push(session.outlet.clone());
        }
        outlets
    }
}

/// Offers something to a session, and notes it among those that have to be flushed if it took any.
fn noting<T>(
    unflushed: &mut Vec<SessionKey>,
    key: SessionKey,
    session: &mut SessionState,
    offer: impl FnOnce(&mut SessionState) -> T,
) -> T {
    let flushed = !session.unflushed;
    let outcome = offer(session);
    if flushed && session.unflushed {
        unflushed.push(key);
    }
    outcome
}
