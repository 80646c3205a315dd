//! What the hub keeps of one session. For each of its rooms it is at the live edge (no cursor), behind it (it reads the
//! room's log from its cursor) or ahead of it (its snapshot knew more than the feed has brought yet).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::super::outlet::{Delivery, Offer, Outlet};
use crate::{
    event::{Gap, JobEvent, Seq},
    id::JobId,
    notice::Notice,
    position::{Position, Positions, RoomSet},
    room::Room,
    store::{Arrival, Content, LogEntry},
};

/// How many jobs a session in several rooms remembers deliveries of.
const JOBS_REMEMBERED: usize = 4096;

/// Where a session stands in the log of a room that it does not follow at the live edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Up to where it has got everything, or was told that it is lost.
    pub position: Position,
    /// Up to where it gets everything again that it may have had by another room, because it asked for that.
    pub asked: Position,
}

/// What a catching-up session needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The log of a room after a place, for [`super::Hub::replay`].
    Log {
        room: Room,
        after: Position,
        /// The live edge: what is read from now on holds everything up to there that the log has.
        until: Position,
    },
    /// Place for waiting notices, for [`super::Hub::flush_notices`].
    Notices,
}

/// What became of an attempt to hand a session what it needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether it had no place for all of it.
    pub full: bool,
    /// Whether it took some of a replay that it had asked for.
    pub asked: bool,
}

/// A room that brings a session events, and the place before the first of them.
pub type Bringing<'a> = (&'a Room, Position);

/// One session.
pub struct SessionState {
    pub outlet: Arc<dyn Outlet>,
    /// In order. Most sessions are in one room for all their life, so it takes no more place than it needs.
    pub rooms: Vec<Room>,
    /// How many rooms it is about to join.
    pub joining: usize,
    /// The rooms that it is not at the live edge of. It catches up in this order: what fell behind first had every event
    /// that those behind it lack as well.
    pub cursors: VecDeque<(Room, Cursor)>,
    /// For a session in several rooms of a job: the first and the last number of those that it was brought without a
    /// break.
    delivered: HashMap<JobId, (Seq, Seq)>,
    pub notices: VecDeque<Notice>,
    /// Whether it has taken something since the last flush.
    pub unflushed: bool,
    /// Whether the gateway has begun to end it.
    pub closing: bool,
    /// Since when somebody looks after it because it is behind.
    pub behind_since: Option<Instant>,
}

impl SessionState {
    pub fn new(outlet: Arc<dyn Outlet>) -> Self {
        Self {
            outlet,
            rooms: Vec::new(),
            joining: 0,
            cursors: VecDeque::new(),
            delivered: HashMap::new(),
            notices: VecDeque::new(),
            unflushed: false,
            closing: false,
            behind_since: None,
        }
    }

    pub fn is_in(&self, room: &Room) -> bool {
        self.rooms.binary_search(room).is_ok()
    }

    pub fn cursor(&self, room: &Room) -> Option<Cursor> {
        self.cursors.iter().find(|(other, _)| other == room).map(|(_, cursor)| *cursor)
    }

    pub fn remove_cursor(&mut self, room: &Room) -> Option<Cursor> {
        let place = self.cursors.iter().position(|(other, _)| other == room)?;
        let (_, cursor) = self.cursors.remove(place)?;
        if self.cursors.is_empty() {
            // Nearly always, for nearly all.
            self.cursors = VecDeque::new();
        }
        Some(cursor)
    }

    /// Offers something that the node delivers now.
    pub fn offer(&mut self, delivery: Delivery<'_>) -> Offer {
        let offer = self.outlet.offer(delivery);
        self.unflushed |= offer == Offer::Taken;
        offer
    }

    /// Offers arrivals that the node delivers now, by the rooms that bring them to this session. Answers whether the
    /// session fell behind by them.
    pub fn offer_live(&mut self, arrivals: &[Arrival], rooms: &[Bringing<'_>]) -> bool {
        if !self.cursors.is_empty() || self.rooms.len() > 1 {
            return self.offer_one_by_one(arrivals, rooms);
        }
        let taken = self.outlet.offer_all(arrivals, set(rooms));
        self.unflushed |= taken > 0;
        if taken == arrivals.len() {
            return false;
        }
        for (room, first) in rooms {
            self.fall_behind(room, place_before(room, *first, arrivals, taken));
        }
        true
    }

    fn offer_one_by_one(&mut self, arrivals: &[Arrival], rooms: &[Bringing<'_>]) -> bool {
        let mut fell_behind = false;
        for (place, arrival) in arrivals.iter().enumerate() {
            let (mut live, mut behind) = (Vec::with_capacity(rooms.len()), false);
            for (room, first) in rooms {
                let before = place_before(room, *first, arrivals, place);
                match self.cursor(room).map(|cursor| cursor.position) {
                    Some(at) if at > before => {
                        // Known from its snapshot, until the edge is there.
                        if at == place_before(room, *first, arrivals, place + 1) {
                            self.remove_cursor(room);
                        }
                    }
                    Some(at) if at < before => behind = true,
                    _ => live.push((*room, before)),
                }
            }
            if live.is_empty() {
                continue;
            }
            // Where another of its rooms is behind, the event comes from there, in order.
            if behind || !self.offer_one(arrival, &live) {
                for (room, before) in live {
                    self.remove_cursor(room);
                    self.fall_behind(room, before);
                }
                fell_behind = true;
            } else {
                live.iter().for_each(|(room, _)| _ = self.remove_cursor(room));
            }
        }
        fell_behind
    }

    /// Says whether there was place for it.
    fn offer_one(&mut self, arrival: &Arrival, rooms: &[Bringing<'_>]) -> bool {
        if self.has_had(&arrival.event) {
            return true;
        }
        let taken =
            self.offer(Delivery::Event(&arrival.event, &arrival.positions, set(rooms))) != Offer::Full;
        if taken {
            self.note_delivered(std::slice::from_ref(arrival));
        }
        taken
    }

    /// Offers what is lost in a room, after a place in its log. Answers whether the session fell behind by it.
    pub fn offer_lost(&mut self, entry: &LogEntry, gap: &Gap, room: &Room, before: Position) -> bool {
        if let Some(cursor) = self.cursor(room) {
            if cursor.position == entry.position {
                self.remove_cursor(room);
            }
            // Behind, its own reading meets the same; ahead, its snapshot knew.
            return false;
        }
        let full = self.offer(Delivery::Gap(gap, room, entry.position)) == Offer::Full;
        if full {
            self.fall_behind(room, before);
        }
        full
    }

    /// Leaves what comes after a place to be read from the room's log.
    fn fall_behind(&mut self, room: &Room, position: Position) {
        self.cursors.push_back((room.clone(), Cursor { position, asked: Position::START }));
    }

    /// Whether an event was brought before by another room.
    fn has_had(&self, event: &JobEvent) -> bool {
        let delivered = self.delivered.get(event.job());
        delivered.is_some_and(|(first, last)| (*first..=*last).contains(&event.seq()))
    }

    /// Forgets what was brought: from now on it may be brought with a break.
    pub fn forget_deliveries(&mut self) {
        self.delivered = HashMap::new();
    }

    fn note_delivered(&mut self, arrivals: &[Arrival]) {
        if self.rooms.len() < 2 {
            return;
        }
        for event in arrivals.iter().map(|arrival| &arrival.event) {
            if event.rooms().filter(|room| self.is_in(room)).nth(1).is_none() {
                continue;
            }
            if self.delivered.len() >= JOBS_REMEMBERED && !self.delivered.contains_key(event.job()) {
                // The copies of older events have come long since.
                self.delivered.clear();
            }
            let seq = event.seq();
            let known = self.delivered.entry(event.job().clone()).or_insert((seq, seq));
            *known = (known.0.min(seq), known.1.max(seq));
        }
    }

    /// Hands over entries of a room's log that follow on its cursor there, until it has no place. The room's log had
    /// everything up to `until` when it was read, if these are the last.
    pub fn replay(&mut self, room: &Room, entries: &[LogEntry], until: Option<Position>) -> Progress {
        let Some(place) = self.cursors.iter().position(|(other, _)| other == room) else {
            return Progress::default();
        };
        let before = self.cursors[place].1;
        let mut cursor = before;
        let mut rest = entries;
        while !rest.is_empty() {
            let (passed, taken) = self.hand_run(room, cursor, rest);
            if let Some(last) = rest[..passed].last() {
                cursor.position = last.position;
            }
            rest = &rest[passed..];
            if !taken {
                self.cursors[place].1 = cursor;
                return Progress { full: true, asked: cursor.position > before.position.max(before.asked) };
            }
        }
        if let Some(until) = until {
            cursor.position = cursor.position.max(until);
        }
        self.cursors[place].1 = cursor;
        let moved = before.position < cursor.position;
        Progress { full: false, asked: moved && before.position < cursor.asked }
    }

    /// Hands over the first entries of some that can go together. Answers how many are done with, and whether there was
    /// place for all of these.
    fn hand_run(&mut self, room: &Room, cursor: Cursor, entries: &[LogEntry]) -> (usize, bool) {
        let shared = self.rooms.len() > 1;
        let is_copy = |state: &Self, entry: &LogEntry, event: &JobEvent| {
            shared && entry.position > cursor.asked && state.has_had(event)
        };
        match &entries[0].content {
            Content::Lost(gap) => {
                let taken = self.outlet.offer(Delivery::Gap(gap, room, entries[0].position)) != Offer::Full;
                (usize::from(taken), taken)
            }
            Content::Event(event) if is_copy(self, &entries[0], event) => (1, true),
            Content::Event(_) => {
                let run: Vec<Arrival> = entries
                    .iter()
                    .map_while(|entry| match &entry.content {
                        Content::Event(event) if !is_copy(self, entry, event) => Some(Arrival {
                            event: event.clone(),
                            positions: Positions::in_room(room, entry.position),
                        }),
                        _ => None,
                    })
                    .collect();
                let taken = self.outlet.offer_all(&run, RoomSet::of(room));
                self.note_delivered(&run[..taken]);
                (taken, taken == run.len())
            }
        }
    }

    /// Hands over the notices that wait for it.
    pub fn flush_notices(&mut self) -> Progress {
        while let Some(notice) = self.notices.pop_front() {
            if self.outlet.offer(Delivery::Notice(&notice)) == Offer::Full {
                self.notices.push_front(notice);
                return Progress { full: true, asked: false };
            }
        }
        Progress::default()
    }
}

fn set(rooms: &[Bringing<'_>]) -> RoomSet {
    rooms.iter().fold(RoomSet::default(), |set, (room, _)| set.with(RoomSet::of(room)))
}

/// The place right before one of some arrivals in the log of a room that brings them all.
fn place_before(room: &Room, first: Position, arrivals: &[Arrival], place: usize) -> Position {
    let previous = place.checked_sub(1).and_then(|place| arrivals.get(place));
    previous.and_then(|arrival| arrival.positions.in_log_of(room, &arrival.event)).unwrap_or(first)
}
