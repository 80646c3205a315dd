//! What the hub keeps of one session. For each of its rooms it is at the live edge (no cursor), behind it (it reads the
//! room's log from its cursor) or ahead of it (its snapshot knew more than the feed has brought yet).

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::passed::Passed;
use crate::{
    access::Pass,
    event::{Gap, JobEvent},
    gateway::{
        live_edge::LiveEdge,
        notices::HeldNotice,
        outlet::{Delivery, Offer, Outlet, Signal},
    },
    position::{Position, Positions, RoomSet},
    room::Room,
    store::{Arrival, Content, LogEntry},
};

/// After so many attempts in vain nobody waits for a session: with growing pauses that is half a second.
const FULL_IN_A_ROW: u32 = 7;

/// Where a session stands in the log of a room that it does not follow at the live edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Up to where it has got everything, or was told that it is lost.
    pub position: Position,
    /// Up to where it gets everything again that it may have had by another room, because it asked for that.
    pub asked: Position,
}

impl Cursor {
    /// Whether something that was asked for is yet to come. It is read, wherever the live edge is.
    pub fn has_asked(&self) -> bool {
        self.position < self.asked
    }
}

/// What a catching-up session needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The log of a room after a place, for [`super::Hub::replay`].
    Log {
        room: Room,
        after: Position,
        /// The live edge, or the end of what was asked for: what is read from now on holds everything up to there that
        /// the log has.
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
    /// Whether it took some of a replay that it had asked for, or of the notices that wait for it.
    pub asked: bool,
}

/// Something that waits for a place, in the order in which it came.
pub enum Queued {
    /// A notice.
    Notice(Arc<HeldNotice>),
    /// What the gateway tells this session alone.
    Signal(Signal),
}

impl Queued {
    fn delivery(&self) -> Delivery<'_> {
        match self {
            Queued::Notice(held) => Delivery::Notice(&held.notice),
            Queued::Signal(signal) => Delivery::Signal(signal),
        }
    }

    fn size(&self) -> usize {
        match self {
            Queued::Notice(held) => held.notice.data.get().len(),
            Queued::Signal(_) => 0,
        }
    }
}

/// A room that brings a session events, and the place before the first of them.
pub type Bringing<'a> = (&'a Room, Position);

/// One session.
pub struct SessionState {
    pub outlet: Arc<dyn Outlet>,
    /// The connection that it is counted as.
    pub connection: u64,
    /// What it may do, and for how long.
    pub pass: Arc<Pass>,
    /// In the order in which it joined them: what one that it joined earlier has yet to bring comes first. Most sessions
    /// are in one room for all their life, so it takes no more place than it needs.
    pub rooms: Vec<Room>,
    /// How many rooms it is about to join.
    pub joining: usize,
    /// Rooms that it was put out of meanwhile. What it joins there ends with that.
    pub put_out: Vec<Room>,
    /// Whether it is told right now what it is about to get again. Everything else has to wait until then.
    pub answering: bool,
    /// The rooms that it is not at the live edge of. It catches up in this order: what fell behind first had every event
    /// that those behind it lack as well.
    pub cursors: VecDeque<(Room, Cursor)>,
    /// What its rooms have brought, while it is in several of a job.
    pub passed: Passed,
    /// What waits for a place, and is in no room's log.
    pub notices: VecDeque<Queued>,
    notice_bytes: usize,
    /// How often in a row it had no place for the first of them.
    full_in_a_row: u32,
    /// Whether it has taken something since the last flush.
    pub unflushed: bool,
    /// Whether the gateway has begun to end it.
    pub closing: bool,
    /// Since when somebody looks after it because it is behind.
    pub behind_since: Option<Instant>,
}

impl SessionState {
    pub fn new(outlet: Arc<dyn Outlet>, connection: u64, pass: Arc<Pass>) -> Self {
        Self {
            outlet,
            connection,
            pass,
            rooms: Vec::new(),
            joining: 0,
            put_out: Vec::new(),
            answering: false,
            cursors: VecDeque::new(),
            passed: Passed::default(),
            notices: VecDeque::new(),
            notice_bytes: 0,
            full_in_a_row: 0,
            unflushed: false,
            closing: false,
            behind_since: None,
        }
    }

    pub fn is_in(&self, room: &Room) -> bool {
        self.rooms.contains(room)
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

    /// Ends the cursor of a room that is at the room's live edge.
    pub fn meet_edge(&mut self, room: &Room, edge: Option<LiveEdge>) {
        let is_met = |edge: LiveEdge| {
            self.cursor(room).is_some_and(|at| at.position == edge.position && !at.has_asked())
        };
        if edge.is_some_and(is_met) {
            self.remove_cursor(room);
        }
    }

    /// Offers something that the node delivers now.
    pub fn offer(&mut self, delivery: Delivery<'_>) -> Offer {
        let offer = self.outlet.offer(delivery);
        self.unflushed |= offer == Offer::Taken;
        offer
    }

    /// Offers arrivals that the node delivers now, by the rooms that bring them to this session. `edge_of` tells of a
    /// room its live edge, and whether the feed brings all of it. Answers whether the session fell behind by them.
    pub fn offer_live(
        &mut self,
        arrivals: &[Arrival],
        bringing: &[Bringing<'_>],
        edge_of: impl Fn(&Room) -> Option<(Position, bool)>,
    ) -> bool {
        if self.rooms.len() > 1 || self.answering || !self.cursors.is_empty() || !self.passed.is_empty() {
            let one = |place| self.offer_one(arrivals, place, bringing, &edge_of);
            return (0..arrivals.len()).map(one).fold(false, |before, behind| before | behind);
        }
        let taken = self.outlet.offer_all(arrivals, set(bringing));
        self.unflushed |= taken > 0;
        for (room, first) in bringing {
            self.note_passed(room, arrivals[..taken].iter().map(|arrival| &arrival.event));
            if taken < arrivals.len() {
                self.fall_behind(room, place_before(room, *first, arrivals, taken));
            }
        }
        taken < arrivals.len()
    }

    /// Offers one of some arrivals. Where another of the session's rooms that has the event is behind, it comes from
    /// there, in order, and the rooms that bring it wait for that.
    fn offer_one(
        &mut self,
        arrivals: &[Arrival],
        place: usize,
        bringing: &[Bringing<'_>],
        edge_of: &impl Fn(&Room) -> Option<(Position, bool)>,
    ) -> bool {
        let arrival = &arrivals[place];
        let (mut live, mut has_to_wait) = (Vec::with_capacity(bringing.len()), false);
        for (room, first) in bringing {
            let before = place_before(room, *first, arrivals, place);
            let here = place_before(room, *first, arrivals, place + 1);
            match self.cursor(room) {
                // Known from its snapshot, until the edge is there.
                Some(at) if at.position > here => {}
                Some(at) if at.has_asked() || at.position < before => has_to_wait = true,
                Some(at) if at.position == here => {
                    self.pass(room, here, edge_of(room).is_some_and(|(_, is_whole)| is_whole));
                }
                _ => live.push((*room, before)),
            }
        }
        if live.is_empty() {
            return false;
        }
        has_to_wait |= self.answering || self.waits_for_others(&arrival.event, bringing, edge_of);
        if !has_to_wait && self.take_one(arrival, set(&live)) {
            for (room, first) in
                bringing.iter().filter(|(room, _)| live.iter().any(|(other, _)| other == room))
            {
                self.note_passed(room, [&arrival.event]);
                let is_whole = edge_of(room).is_some_and(|(_, is_whole)| is_whole);
                self.pass(room, place_before(room, *first, arrivals, place + 1), is_whole);
            }
            return false;
        }
        for (room, before) in live {
            if self.cursor(room).is_none() {
                self.fall_behind(room, before);
            }
        }
        true
    }

    /// Whether a room that has an event too, but does not bring it now, may have something to bring before.
    fn waits_for_others(
        &self,
        event: &JobEvent,
        bringing: &[Bringing<'_>],
        edge_of: &impl Fn(&Room) -> Option<(Position, bool)>,
    ) -> bool {
        let is_next = self.passed.is_next(event);
        let has_to_wait_for = |room: &Room| {
            let Some((edge, is_whole)) = edge_of(room) else { return false };
            let cursor = self.cursor(room);
            let lacks = !is_whole || cursor.is_some_and(|cursor| cursor.position < edge);
            cursor.is_some_and(|cursor| cursor.has_asked()) || lacks && !is_next
        };
        let mut others = event.rooms().filter(|room| bringing.iter().all(|(other, _)| *other != room));
        others.any(|room| self.is_in(&room) && has_to_wait_for(&room))
    }

    /// Notes that a room has brought everything up to a place. While the room is not whole the session keeps its turn.
    fn pass(&mut self, room: &Room, position: Position, is_whole: bool) {
        if is_whole {
            self.remove_cursor(room);
        } else if let Some((_, cursor)) = self.cursors.iter_mut().find(|(other, _)| other == room) {
            cursor.position = position;
        }
    }

    /// Takes an arrival, unless it was brought before. Says whether there was place for it.
    fn take_one(&mut self, arrival: &Arrival, rooms: RoomSet) -> bool {
        let delivery = Delivery::Event(&arrival.event, &arrival.positions, rooms);
        self.passed.has(&arrival.event) || self.offer(delivery) != Offer::Full
    }

    /// Offers what is lost in a room, after a place in its log. Answers whether the session fell behind by it.
    pub fn offer_lost(&mut self, entry: &LogEntry, gap: &Gap, room: &Room, before: Position) -> bool {
        if self.cursor(room).is_some() {
            // Behind, its own reading meets the same; ahead, its snapshot knew.
            return false;
        }
        let full = self.answering || self.offer(Delivery::Gap(gap, room, entry.position)) == Offer::Full;
        if full {
            self.fall_behind(room, before);
        }
        full
    }

    /// Leaves what comes after a place to be read from the room's log, after what other rooms lack already.
    pub fn fall_behind(&mut self, room: &Room, position: Position) {
        self.cursors.push_back((room.clone(), Cursor { position, asked: Position::START }));
    }

    /// Notes that a room has brought events that follow on each other in its log.
    fn note_passed<'a>(&mut self, room: &Room, events: impl IntoIterator<Item = &'a JobEvent>) {
        if self.rooms.len() + self.joining < 2 {
            return;
        }
        for event in events {
            let rooms = event.rooms().filter(|room| self.is_in(room)).count();
            if rooms + self.joining >= 2 {
                self.passed.note(room, event);
            }
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
        let first_live = entries.iter().position(|entry| self.has_to_wait_for_job(room, entry));
        let mut rest = &entries[..first_live.unwrap_or(entries.len())];
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
        if let Some(until) = until.filter(|_| first_live.is_none()) {
            cursor.position = cursor.position.max(until);
        }
        self.cursors[place].1 = cursor;
        if first_live.is_some() {
            // What was asked of the job goes on first.
            self.cursors.rotate_left(place + 1);
        }
        let moved = before.position < cursor.position;
        Progress { full: false, asked: moved && before.position < cursor.asked }
    }

    /// Whether an entry of a room happened after what this session has asked of the job's own room and has yet to get.
    fn has_to_wait_for_job(&self, room: &Room, entry: &LogEntry) -> bool {
        let Content::Event(event) = &entry.content else { return false };
        self.cursors.iter().any(|(other, cursor)| {
            let is_job = matches!(other, Room::Job(job) if job == event.job());
            is_job && other != room && cursor.has_asked() && cursor.asked < Position::of_seq(event.seq())
        })
    }

    /// Hands over the first entries of some that can go together. Answers how many are done with, and whether there was
    /// place for all of these.
    fn hand_run(&mut self, room: &Room, cursor: Cursor, entries: &[LogEntry]) -> (usize, bool) {
        let is_copy = |state: &Self, entry: &LogEntry, event: &JobEvent| {
            entry.position > cursor.asked && state.passed.has(event)
        };
        match &entries[0].content {
            Content::Lost(gap) => {
                let taken = self.outlet.offer(Delivery::Gap(gap, room, entries[0].position)) != Offer::Full;
                (usize::from(taken), taken)
            }
            Content::Event(event) if is_copy(self, &entries[0], event) => {
                self.note_passed(room, [event]);
                (1, true)
            }
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
                self.note_passed(room, run[..taken].iter().map(|arrival| &arrival.event));
                (taken, taken == run.len())
            }
        }
    }

    /// Hands over the notices that wait for it.
    pub fn flush_notices(&mut self) -> Progress {
        let mut asked = false;
        while let Some(queued) = self.notices.front() {
            if self.outlet.offer(queued.delivery()) == Offer::Full {
                self.note_full();
                return Progress { full: true, asked };
            }
            self.notice_bytes -= queued.size();
            self.notices.pop_front();
            (asked, self.full_in_a_row) = (true, 0);
        }
        self.notices = VecDeque::new();
        Progress { full: false, asked }
    }

    /// Lets a notice wait, if there is place for it among at most so many, of so many bytes if they are several.
    pub fn queue_notice(&mut self, held: &Arc<HeldNotice>, (most, most_bytes): (usize, usize)) -> bool {
        let bytes = self.notice_bytes + held.notice.data.get().len();
        let fits = self.notices.len() < most && (bytes <= most_bytes || self.notices.is_empty());
        if fits {
            self.notices.push_back(Queued::Notice(held.clone()));
            self.notice_bytes = bytes;
        }
        fits
    }

    /// Notes that it has no place for what waits for it.
    pub fn note_full(&mut self) {
        self.full_in_a_row = self.full_in_a_row.saturating_add(1);
    }

    /// Whether it takes notices from time to time, so that it is worth waiting for.
    pub fn reads_notices(&self) -> bool {
        self.full_in_a_row < FULL_IN_A_ROW && !self.closing
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
