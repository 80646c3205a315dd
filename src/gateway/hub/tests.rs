//! The hub under a model: a store with histories that rotate and logs that may lose their tail, a feed that comes over one
//! or two connections and is cut now and then, sessions that come, go, leave, come back and fill up, and catch-ups and fills
//! whose reading and handing over lie apart. Whatever happens, every session gets each event of its rooms' logs once and in
//! order, or a gap in its place where history has rotated past it.
//!
//! Every run has a seed of its own, which it prints. `SEED=n` repeats one, `CASES=n` runs so many for each property.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Instant,
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

use super::*;
use crate::{
    event::{Draft, Gap, JobEvent, Owner, Seq},
    gateway::{CloseReason, Delivery, Offer, Outlet},
    id::JobId,
    position::{Position, Positions},
    store::{Arrival, Content, LogEntry, LogPage, Rooms},
    timestamp::Timestamp,
};

/// How many events of a job the model's store keeps, and how many entries a page has.
const RETAINED: usize = 6;
const PAGE: usize = 3;

/// How far a number jumps at least after a loss, and how much further for each millisecond since the last event.
const JUMP: (Seq, Seq) = (1000, 64);

/// What reached a session, and what it was owed from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// From here on everything after a place in a room's log; whether it asked for that, and the newest number of each
    /// job that there was.
    From(Room, Position, bool, BTreeMap<JobId, Seq>),
    Left(Room),
    Event(JobId, Seq),
    Gap(JobId, Seq, Seq),
    /// The store has begun anew.
    Anew,
}

/// An outlet with a bounded outbox.
#[derive(Default)]
struct Outbox {
    log: Mutex<Vec<Seen>>,
    places: Mutex<usize>,
}

impl Outbox {
    fn note(&self, seen: Seen) {
        self.log.lock().unwrap().push(seen);
    }
}

impl Outlet for Outbox {
    fn offer(&self, delivery: Delivery<'_>) -> Offer {
        let mut places = self.places.lock().unwrap();
        if *places == 0 {
            return Offer::Full;
        }
        *places -= 1;
        match delivery {
            Delivery::Event(event, ..) => self.note(Seen::Event(event.job().clone(), event.seq())),
            Delivery::Gap(gap, ..) => self.note(Seen::Gap(gap.job.clone(), gap.from, gap.to)),
            Delivery::Notice(_) => {}
        }
        Offer::Taken
    }

    fn waiting(&self) -> u64 {
        0
    }

    fn is_full(&self) -> bool {
        *self.places.lock().unwrap() == 0
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn close(&self, _: CloseReason) {}
}

/// What one connection of the feed brings.
#[derive(Default)]
struct Line {
    items: VecDeque<Item>,
    is_cut: bool,
}

#[derive(Clone)]
enum Item {
    Arrival(Arrival),
    Interrupted,
    Restored,
}

/// The store: all that it ever accepted and has not lost, of which it keeps the newest.
#[derive(Default)]
struct Store {
    clock: u64,
    histories: BTreeMap<JobId, Vec<JobEvent>>,
    logs: BTreeMap<Room, Vec<(Position, JobEvent)>>,
    /// Whether the next number of a job jumps.
    jumps: BTreeMap<JobId, bool>,
    /// What positions are not below.
    floor: u64,
    /// The oldest number of each job that history has not rotated past.
    oldest: BTreeMap<JobId, Seq>,
}

impl Store {
    fn retained(&self, job: &JobId) -> &[JobEvent] {
        let events = self.histories.get(job).map_or(&[][..], Vec::as_slice);
        let oldest = self.oldest.get(job).copied().unwrap_or(0);
        &events[events.partition_point(|event| event.seq() < oldest)..]
    }

    /// The log of a room as it was written, with what history has rotated past.
    fn written(&self, room: &Room) -> Vec<(Position, JobEvent)> {
        match room {
            Room::Job(job) => {
                let events = self.histories.get(job).into_iter().flatten();
                events.map(|event| (Position::of_seq(event.seq()), event.clone())).collect()
            }
            shared => self.logs.get(shared).cloned().unwrap_or_default(),
        }
    }

    fn end(&self, room: &Room) -> Position {
        match (self.written(room).last(), room) {
            (Some((position, _)), _) => *position,
            (None, Room::Job(_)) => Position::START,
            // Of a room without entries the end is the present.
            (None, _) => Position::of_entry(self.clock.max(self.floor), 0),
        }
    }

    fn entries(&self, room: &Room, after: Position) -> Vec<LogEntry> {
        let written = self.written(room);
        let newer = written.iter().filter(|(position, _)| *position > after);
        let is_kept = |event: &JobEvent| self.retained(event.job()).iter().any(|kept| kept.is_same(event));
        let lost = |event: &JobEvent, from: Seq| {
            Content::Lost(Gap { job: event.job().clone(), from, to: event.seq() })
        };
        let mut entries: Vec<LogEntry> = Vec::new();
        for (position, event) in newer {
            let content = match (is_kept(event), room, entries.last_mut()) {
                (true, ..) => Content::Event(event.clone()),
                // In a job's room all that is lost is one gap.
                (false, Room::Job(_), Some(LogEntry { position: last, content: Content::Lost(gap) })) => {
                    (*last, gap.to) = (*position, event.seq());
                    continue;
                }
                (false, Room::Job(_), _) => lost(event, event.seq()),
                (false, ..) => lost(event, event.seq()),
            };
            entries.push(LogEntry { position: *position, content });
        }
        entries
    }

    fn page(&self, room: &Room, after: Position) -> LogPage {
        let mut entries = self.entries(room, after);
        let is_last = entries.len() <= PAGE;
        entries.truncate(PAGE);
        LogPage { entries, is_last, end: self.end(room) }
    }

    fn accept(&mut self, number: usize) -> JobEvent {
        self.clock += 1;
        let job = job(number);
        let events = self.histories.entry(job.clone()).or_default();
        let jumps = std::mem::take(self.jumps.entry(job.clone()).or_default());
        let seq = match events.last() {
            Some(last) if jumps => {
                let idle = self.clock - last.timestamp().millis();
                (last.seq() + JUMP.0 + JUMP.1 * idle).max(self.clock)
            }
            Some(last) => last.seq() + 1,
            None => self.clock,
        };
        let draft = Draft::update(job, "s", None, Owner::default()).unwrap();
        let at = Timestamp::from_millis(self.clock).unwrap();
        let event = draft.accept(&owner(number, events.len()), at, seq);
        events.push(event.clone());
        if let Some(oldest) = events.len().checked_sub(RETAINED) {
            let oldest = events[oldest].seq();
            let known = self.oldest.entry(event.job().clone()).or_default();
            *known = oldest.max(*known);
        }
        event
    }

    /// Writes an event into the log of a room.
    fn log(&mut self, room: &Room, event: &JobEvent) -> Position {
        if let Room::Job(_) = room {
            return Position::of_seq(event.seq());
        }
        let log = self.logs.entry(room.clone()).or_default();
        let millis = self.clock.max(self.floor);
        let position = match log.last() {
            Some((last, _)) if last.millis() >= millis => {
                Position::of_entry(last.millis(), last.number() + 1)
            }
            _ => Position::of_entry(millis, 1),
        };
        log.push((position, event.clone()));
        position
    }

    /// Loses the newest events of every job, in all logs.
    fn lose(&mut self, count: usize) {
        for (job, events) in &mut self.histories {
            let kept = events.len().saturating_sub(count).max(1).min(events.len());
            for event in events.drain(kept..) {
                for log in self.logs.values_mut() {
                    log.retain(|(_, other)| !other.is_same(&event));
                }
            }
            self.jumps.insert(job.clone(), true);
        }
        // A server takes its time to come back.
        self.clock += 50;
        self.floor = self.clock + 20;
    }

    /// Loses everything, and knows nothing of it.
    fn flush(&mut self) {
        // No server has forgotten everything in the millisecond in which it accepted something.
        *self = Store { clock: self.clock + 1, ..Store::default() };
    }
}

fn job(number: usize) -> JobId {
    format!("job-{number}").parse().unwrap()
}

/// Jobs 0 and 1 are of one user, as job 1 says with its third event, and job 2 is of a tenant.
fn owner(number: usize, events: usize) -> Owner {
    let user = (number == 0 || number == 1 && events >= 2).then(|| "u".parse().unwrap());
    let tenant = (number == 2).then(|| "t".parse().unwrap());
    Owner { user, tenant }
}

fn room(number: usize) -> Room {
    match number % 6 {
        3 => Room::User("u".parse().unwrap()),
        4 => Room::Tenant("t".parse().unwrap()),
        5 => Room::AllJobs,
        number => Room::Job(job(number)),
    }
}

struct Watcher {
    key: SessionKey,
    outbox: Arc<Outbox>,
    /// The rooms that it is in, with the place from which on.
    rooms: BTreeMap<Room, Position>,
}

/// A join that has begun.
struct Joining {
    watcher: usize,
    room: Room,
    /// Once it has been read, with the newest number of each job.
    start: Option<(Start, BTreeMap<JobId, Seq>)>,
}

struct Model {
    hub: Hub,
    store: Store,
    /// One connection brings everything of all rooms together; two bring each room by itself.
    lines: Vec<Line>,
    watchers: Vec<Watcher>,
    joining: Vec<Joining>,
    /// What was read and is yet to be handed over.
    catch_ups: Vec<(SessionKey, Option<(Need, LogPage)>)>,
    fills: Vec<(Fill, Option<LogPage>)>,
}

impl Model {
    fn new(lines: usize) -> Self {
        Self {
            hub: Hub::default(),
            store: Store { clock: 100, ..Store::default() },
            lines: (0..lines).map(|_| Line::default()).collect(),
            watchers: Vec::new(),
            joining: Vec::new(),
            catch_ups: Vec::new(),
            fills: Vec::new(),
        }
    }

    fn line_of(&self, room: &Room) -> usize {
        (0..6).position(|number| super::tests::room(number) == *room).unwrap_or(0) % self.lines.len()
    }

    fn rooms_of(&self, line: usize) -> Rooms {
        match self.lines.len() {
            1 => Rooms::All,
            _ => Rooms::Some((0..6).map(room).filter(|room| self.line_of(room) == line).collect()),
        }
    }

    fn publish(&mut self, number: usize, copies: usize) {
        let event = self.store.accept(number);
        let mut together = Positions::JOB;
        for room in event.rooms().collect::<Vec<_>>() {
            let position = self.store.log(&room, &event);
            let alone = Positions::in_room(&room, position);
            together.user = together.user.or(alone.user);
            together.tenant = together.tenant.or(alone.tenant);
            together.all_jobs = together.all_jobs.or(alone.all_jobs);
            if self.lines.len() > 1 {
                let line = self.line_of(&room);
                self.bring(line, Arrival { event: event.clone(), positions: alone });
            }
        }
        if self.lines.len() == 1 {
            for _ in 0..=copies % 2 {
                self.bring(0, Arrival { event: event.clone(), positions: together });
            }
        }
    }

    fn bring(&mut self, line: usize, arrival: Arrival) {
        if !self.lines[line].is_cut {
            self.lines[line].items.push_back(Item::Arrival(arrival));
        }
    }

    fn receive(&mut self, line: usize, many: usize) {
        let line = line % self.lines.len();
        let mut arrivals = Vec::new();
        for _ in 0..=many % 4 {
            match self.lines[line].items.pop_front() {
                Some(Item::Arrival(arrival)) => arrivals.push(arrival),
                Some(other) => {
                    self.take(&mut arrivals);
                    let rooms = self.rooms_of(line);
                    match other {
                        Item::Interrupted => self.hub.interrupt(&rooms),
                        _ => self.hub.restore(&rooms),
                    }
                }
                None => break,
            }
        }
        self.take(&mut arrivals);
    }

    fn take(&mut self, arrivals: &mut Vec<Arrival>) {
        let mut rest = arrivals.as_slice();
        while !rest.is_empty() {
            rest = &rest[self.hub.receive(rest)..];
        }
        arrivals.clear();
    }

    /// Cuts a connection, and what is on its way; or makes it anew.
    fn toggle(&mut self, line: usize) {
        let line = line % self.lines.len();
        let Line { items, is_cut } = &mut self.lines[line];
        *is_cut = !*is_cut;
        if *is_cut {
            items.retain(|item| !matches!(item, Item::Arrival(_)));
            items.push_back(Item::Interrupted);
        } else {
            items.push_back(Item::Restored);
        }
    }

    fn connect(&mut self, places: usize) {
        let outbox = Arc::new(Outbox::default());
        *outbox.places.lock().unwrap() = places;
        let key = self.hub.connect(outbox.clone());
        self.watchers.push(Watcher { key, outbox, rooms: BTreeMap::new() });
    }

    fn begin_join(&mut self, watcher: usize, number: usize) {
        let Some(watcher) = watcher.checked_rem(self.watchers.len()) else { return };
        let room = room(number);
        // One connection handles its messages one after the other; a room that is not covered has to wait.
        let busy = self.joining.iter().any(|joining| joining.watcher == watcher);
        if !busy
            && !self.lines[self.line_of(&room)].is_cut
            && self.hub.begin_join(self.watchers[watcher].key, &room)
        {
            self.joining.push(Joining { watcher, room, start: None });
        }
    }

    /// Goes on with a join: reads the room, or starts.
    fn advance_join(&mut self, which: usize, since: Option<u64>) {
        let Some(which) = which.checked_rem(self.joining.len()) else { return };
        let Joining { watcher, room, start } = &mut self.joining[which];
        let Some((found, newest)) = start.take() else {
            let (written, end) = (self.store.written(room), self.store.end(room));
            let at = self.store.clock;
            let place = |back: u64| match written.iter().rev().nth(back as usize) {
                None => Position::START,
                // A time is a place between entries.
                Some((at, _)) if back.is_multiple_of(3) && at.number() > 0 => {
                    Position::of_entry(at.millis(), 0)
                }
                Some((at, _)) => *at,
            };
            let after = since.map_or(end, place);
            let at = Timestamp::from_millis(if matches!(room, Room::Job(_)) {
                written.last().map_or(0, |(_, event)| event.timestamp().millis())
            } else {
                at
            })
            .unwrap();
            let newest = self.store.histories.iter();
            let newest = newest.map(|(job, events)| (job.clone(), events.last().map_or(0, JobEvent::seq)));
            *start = Some((Start { after, end, at, asked: since.is_some() }, newest.collect()));
            return;
        };
        let watcher = &mut self.watchers[*watcher];
        watcher.outbox.note(Seen::From(room.clone(), found.after, found.asked, newest));
        let newly = self.hub.start(watcher.key, room, found);
        let from = watcher.rooms.entry(room.clone()).or_insert(found.after);
        if !newly && found.asked {
            *from = found.after.min(*from);
        }
        self.joining.swap_remove(which);
    }

    fn leave(&mut self, watcher: usize, number: usize) {
        let Some(watcher) = watcher.checked_rem(self.watchers.len()) else { return };
        // One connection handles its messages one after the other.
        if self.joining.iter().any(|joining| joining.watcher == watcher) {
            return;
        }
        let (watcher, room) = (&mut self.watchers[watcher], room(number));
        watcher.rooms.remove(&room);
        watcher.outbox.note(Seen::Left(room.clone()));
        self.hub.leave(watcher.key, &room);
    }

    fn collect_due(&mut self) {
        let due = self.hub.take_catch_ups_due(Instant::now());
        self.catch_ups.extend(due.into_iter().map(|(key, _)| (key, None)));
        self.fills.extend(self.hub.take_fills_due().into_iter().map(|fill| (fill, None)));
    }

    fn advance_catch_up(&mut self, which: usize) {
        self.collect_due();
        let Some(which) = which.checked_rem(self.catch_ups.len()) else { return };
        let (key, read) = &mut self.catch_ups[which];
        if let Some((need, page)) = read.take() {
            self.hub.replay(*key, &need, &page);
            return;
        }
        match self.hub.next_need(*key) {
            None => _ = self.catch_ups.swap_remove(which),
            Some(Need::Notices) => _ = self.hub.flush_notices(*key),
            Some(Need::Log { room, after, until }) => {
                let entries = self.hub.remembered(*key, &room, after, PAGE);
                let page = match entries.last().map(|entry| entry.position) {
                    Some(end) => LogPage { entries, is_last: false, end },
                    None => self.store.page(&room, after),
                };
                *read = Some((Need::Log { room, after, until }, page));
            }
        }
    }

    fn advance_fill(&mut self, which: usize) {
        self.collect_due();
        let Some(which) = which.checked_rem(self.fills.len()) else { return };
        let (fill, read) = &mut self.fills[which];
        match read.take() {
            Some(page) => match self.hub.fill(fill, &page) {
                Some(next) => *fill = next,
                None => _ = self.fills.swap_remove(which),
            },
            None => {
                let mut page = self.store.page(&fill.room, fill.after);
                if page.end < fill.after {
                    fill.after = Position::START;
                    page = self.store.page(&fill.room, fill.after);
                }
                *read = Some(page);
            }
        }
    }

    /// Lets everything come to rest, with place for everybody.
    fn settle(&mut self) {
        for line in 0..self.lines.len() {
            if self.lines[line].is_cut {
                self.toggle(line);
            }
            while !self.lines[line].items.is_empty() {
                self.receive(line, 0);
            }
        }
        while !self.joining.is_empty() {
            self.advance_join(0, None);
        }
        for watcher in &self.watchers {
            *watcher.outbox.places.lock().unwrap() = usize::MAX;
        }
        for round in 0.. {
            self.collect_due();
            if self.catch_ups.is_empty() && self.fills.is_empty() {
                break;
            }
            self.advance_fill(0);
            self.advance_catch_up(round);
            assert!(round < 100_000, "it never comes to rest");
        }
        assert!(self.hub.is_whole());
    }

    fn check(&self) {
        for watcher in &self.watchers {
            let log = watcher.outbox.log.lock().unwrap();
            self.check_complete(watcher, &log);
            check_order(&log);
        }
    }

    /// Every entry that it is owed was delivered, or told as lost where it is.
    fn check_complete(&self, watcher: &Watcher, log: &[Seen]) {
        for (room, from) in &watcher.rooms {
            for (position, event) in self.store.written(room) {
                let (job, seq) = (event.job().clone(), event.seq());
                let is_lost = !self.store.retained(&job).iter().any(|kept| kept.is_same(&event));
                let has_it = |seen: &Seen| match seen {
                    Seen::Event(other, at) => *other == job && *at == seq,
                    Seen::Gap(other, first, last) => {
                        is_lost && *other == job && (*first..=*last).contains(&seq)
                    }
                    _ => false,
                };
                let owed = position > *from;
                assert!(
                    !owed || log.iter().any(has_it),
                    "{event:?} at {position} of {room} is missing in {log:?}"
                );
            }
        }
    }
}

/// Each event once and in order within its job, for as long as nothing was asked for again; and nothing of rooms that it is
/// not in.
fn check_order(log: &[Seen]) {
    let mut last: HashMap<&JobId, Seq> = HashMap::new();
    let (mut rooms, mut told): (Vec<&Room>, HashMap<&JobId, &Seq>) = Default::default();
    let mut several = false;
    for (place, seen) in log.iter().enumerate() {
        match seen {
            Seen::From(room, _, asked, newest) => {
                if *asked {
                    last.clear();
                }
                told.extend(newest);
                if !rooms.contains(&room) {
                    rooms.push(room);
                }
            }
            Seen::Left(room) => rooms.retain(|other| *other != room),
            Seen::Anew => last.clear(),
            Seen::Event(job, seq) => {
                assert!(!rooms.is_empty(), "{seen:?} outside of any room in {log:?}");
                let before = last.insert(job, *seq);
                // Two rooms that were both asked for again bring what they share twice.
                let asked = |seen: &Seen| matches!(seen, Seen::From(_, _, true, _));
                several |= rooms.len() > 1;
                let repeats = several && log.iter().any(asked);
                // A room that was joined later may be ahead of another one; its snapshot has told of what that one brings
                // then.
                let known = told.get(job).is_some_and(|told| seq <= *told);
                let late = (known || is_unowned(job, *seq, log)) && !log[..place].contains(seen);
                assert!(before.is_none_or(|before| before < *seq) || repeats || late, "{seen:?} in {log:?}");
            }
            Seen::Gap(..) => {}
        }
    }
}

/// Whether an event of job 1 is one from before its owner was known, which only some of its rooms bring.
fn is_unowned(of: &JobId, seq: Seq, log: &[Seen]) -> bool {
    let older =
        log.iter().filter(|seen| matches!(seen, Seen::Event(job, other) if job == of && *other < seq));
    *of == job(1) && older.count() < 2
}

#[derive(Debug, Clone)]
enum Step {
    Publish(usize, usize),
    Receive(usize, usize),
    Connect(usize),
    BeginJoin(usize, usize),
    Join(usize, Option<u64>),
    Leave(usize, usize),
    Places(usize, usize),
    CatchUp(usize),
    Fill(usize),
    Disconnect(usize),
    Toggle(usize),
    Lose(usize),
    Flush,
}

fn steps(cuts: u32, losses: u32, flushes: u32) -> impl Strategy<Value = Vec<Step>> {
    let n = || 0usize..64;
    let kinds: Vec<(u32, BoxedStrategy<Step>)> = vec![
        (12, (0usize..3, n()).prop_map(|(job, copies)| Step::Publish(job, copies)).boxed()),
        (12, (n(), n()).prop_map(|(line, many)| Step::Receive(line, many)).boxed()),
        (2, (0usize..9).prop_map(Step::Connect).boxed()),
        (6, (n(), n()).prop_map(|(watcher, room)| Step::BeginJoin(watcher, room)).boxed()),
        (8, (n(), prop::option::of(0u64..9)).prop_map(|(which, since)| Step::Join(which, since)).boxed()),
        (1, (n(), n()).prop_map(|(watcher, room)| Step::Leave(watcher, room)).boxed()),
        (4, (n(), 0usize..6).prop_map(|(watcher, places)| Step::Places(watcher, places)).boxed()),
        (8, n().prop_map(Step::CatchUp).boxed()),
        (6, n().prop_map(Step::Fill).boxed()),
        (1, n().prop_map(Step::Disconnect).boxed()),
        (cuts, n().prop_map(Step::Toggle).boxed()),
        (losses, (0usize..4).prop_map(Step::Lose).boxed()),
        (flushes, Just(Step::Flush).boxed()),
    ];
    let step = proptest::strategy::Union::new_weighted(
        kinds.into_iter().filter(|(weight, _)| *weight > 0).collect(),
    );
    prop::collection::vec(step, 1..120)
}

fn run(lines: usize, steps: &[Step]) {
    let mut model = Model::new(lines);
    for step in steps {
        match *step {
            Step::Publish(job, copies) => model.publish(job, copies),
            Step::Receive(line, many) => model.receive(line, many),
            Step::Connect(places) => model.connect(places),
            Step::BeginJoin(watcher, room) => model.begin_join(watcher, room),
            Step::Join(which, since) => model.advance_join(which, since),
            Step::Leave(watcher, room) => model.leave(watcher, room),
            Step::Places(watcher, places) => {
                if let Some(watcher) = watcher.checked_rem(model.watchers.len()) {
                    *model.watchers[watcher].outbox.places.lock().unwrap() += places;
                }
            }
            Step::CatchUp(which) => model.advance_catch_up(which),
            Step::Fill(which) => model.advance_fill(which),
            Step::Disconnect(which) => {
                let busy = |which: usize| model.joining.iter().any(|joining| joining.watcher >= which);
                if let Some(which) = which.checked_rem(model.watchers.len()).filter(|which| !busy(*which)) {
                    let watcher = model.watchers.remove(which);
                    model.hub.disconnect(watcher.key);
                }
            }
            Step::Toggle(line) => model.toggle(line),
            Step::Lose(count) => {
                // A store loses its tail only where it was gone, and nobody reads a room to join it meanwhile.
                if model.joining.is_empty() && model.lines.iter().all(|line| line.is_cut) {
                    model.store.lose(count);
                }
            }
            Step::Flush => {
                if model.joining.is_empty() {
                    model.store.flush();
                    model.watchers.iter().for_each(|watcher| watcher.outbox.note(Seen::Anew));
                }
            }
        }
    }
    model.settle();
    if !steps.iter().any(|step| matches!(step, Step::Flush)) {
        model.check();
    }
    for watcher in std::mem::take(&mut model.watchers) {
        model.hub.disconnect(watcher.key);
    }
    assert!(model.hub.sessions.is_empty() && model.hub.rooms.is_empty());
}

/// Runs a property with a seed of its own, which is printed.
fn property(name: &str, cases: u32, strategy: impl Strategy<Value = Vec<Step>>, test: impl Fn(&[Step])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = number("CASES").map_or(cases, |cases| u32::try_from(cases).unwrap_or(u32::MAX));
    println!("{name}: SEED={seed} CASES={cases}");
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |steps| {
        test(&steps);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{name} with SEED={seed}: {failure:?}"));
}

#[test]
fn everybody_gets_everything_over_one_connection() {
    property("one connection", 2000, steps(0, 0, 0), |steps| run(1, steps));
}

#[test]
fn everybody_gets_everything_room_by_room() {
    property("room by room", 2000, steps(0, 0, 0), |steps| run(2, steps));
}

#[test]
fn interruptions_are_made_good() {
    property("interruptions", 2000, steps(5, 0, 0), |steps| run(1, steps));
    property("interruptions, room by room", 2000, steps(5, 0, 0), |steps| run(2, steps));
}

#[test]
fn a_lost_tail_costs_nothing_else() {
    property("lost tails", 2000, steps(6, 4, 0), |steps| run(1, steps));
    property("lost tails, room by room", 2000, steps(6, 4, 0), |steps| run(2, steps));
}

#[test]
fn a_log_that_began_anew_is_followed() {
    property("flushes", 2000, steps(3, 2, 2), |steps| run(1, steps));
}

/// What properties have found, as the smallest case of each.
mod found {
    use super::{Step::*, run};

    #[test]
    fn memory_has_no_hole_where_a_first_join_moves_the_edge() {
        let early = [Connect(0), Publish(0, 0), BeginJoin(0, 3), Publish(0, 0), Receive(0, 0), Publish(0, 0)];
        let late = [Publish(0, 0), Join(0, Some(1)), Publish(0, 0), Join(0, None), Publish(0, 0)];
        run(1, &[&early[..], &late[..]].concat());
    }

    #[test]
    fn what_came_while_a_second_room_was_joined_comes_once() {
        let first =
            [Connect(1), BeginJoin(0, 3), Join(0, None), Join(0, None), Publish(0, 0), BeginJoin(0, 5)];
        let second = [Join(0, None), Publish(0, 0), Receive(0, 3), Join(0, None)];
        run(1, &[&first[..], &second[..]].concat());
    }

    #[test]
    fn a_room_that_is_not_whole_comes_before_one_that_was_joined_later() {
        let cut = [
            Connect(9),
            BeginJoin(0, 3),
            Join(0, None),
            Join(0, None),
            Toggle(0),
            Publish(0, 0),
            Publish(0, 0),
        ];
        let back = [Toggle(0), BeginJoin(0, 5), Publish(0, 0), Join(0, None), Join(0, None), Publish(0, 0)];
        run(1, &[&cut[..], &back[..]].concat());
    }

    #[test]
    fn a_cursor_at_the_edge_keeps_its_turn_until_its_room_is_whole() {
        let cut =
            [Publish(0, 0), Connect(0), BeginJoin(0, 24), Join(0, None), Publish(0, 0), Toggle(0), Toggle(0)];
        let join =
            [Join(0, None), BeginJoin(0, 5), Publish(0, 0), Publish(0, 0), Publish(0, 0), Join(0, None)];
        run(1, &[&cut[..], &join[..], &[Publish(0, 0)]].concat());
    }

    #[test]
    fn rooms_wait_in_the_order_in_which_they_were_joined() {
        let join = [
            Connect(5),
            BeginJoin(0, 5),
            Join(0, None),
            Join(0, None),
            Publish(1, 0),
            Publish(1, 0),
            Receive(0, 0),
        ];
        let cut = [
            Toggle(0),
            Toggle(0),
            Publish(1, 0),
            BeginJoin(0, 1),
            Join(0, None),
            Join(0, None),
            Publish(1, 0),
        ];
        run(1, &[&join[..], &cut[..]].concat());
    }

    #[test]
    fn leaving_a_room_frees_what_waits_for_it() {
        let join =
            [Connect(0), BeginJoin(0, 29), Toggle(0), Toggle(0), Receive(0, 1), Join(0, None), Join(0, None)];
        let wait = [BeginJoin(0, 55), Join(0, None), Publish(1, 0), Join(0, None), Receive(0, 0), CatchUp(0)];
        run(1, &[&join[..], &wait[..], &[Leave(0, 47)]].concat());
    }

    #[test]
    fn what_one_room_skips_another_one_still_brings() {
        let join = [
            Publish(2, 0),
            Connect(9),
            BeginJoin(0, 2),
            Join(0, None),
            Join(0, None),
            Publish(2, 0),
            Receive(0, 0),
        ];
        let skip = [
            Publish(2, 0),
            Publish(2, 0),
            BeginJoin(0, 4),
            Join(0, Some(1)),
            Join(0, None),
            CatchUp(0),
            CatchUp(0),
        ];
        run(2, &[&join[..], &skip[..]].concat());
    }

    #[test]
    fn a_room_that_was_left_has_brought_what_it_brought() {
        let join = [
            Connect(9),
            BeginJoin(0, 5),
            Join(0, None),
            Join(0, None),
            BeginJoin(0, 4),
            Join(0, None),
            Join(0, None),
        ];
        let leave = [Publish(2, 0), Receive(0, 3), Leave(0, 4), Receive(1, 3)];
        run(2, &[&join[..], &leave[..]].concat());
    }

    #[test]
    fn a_time_is_a_place_between_entries() {
        let first = [Connect(9), Connect(9), BeginJoin(0, 3), Join(0, None), Join(0, None), Publish(2, 0)];
        let second =
            [BeginJoin(1, 3), Join(0, None), Join(0, None), Publish(0, 0), Receive(0, 3), Publish(0, 0)];
        run(1, &[&first[..], &second[..]].concat());
    }

    #[test]
    fn a_room_says_nothing_of_events_that_it_does_not_have() {
        let joined = [
            Publish(1, 0),
            Connect(2),
            Publish(0, 0),
            BeginJoin(0, 21),
            Publish(1, 0),
            Publish(0, 0),
            Join(0, None),
            Publish(0, 0),
            Receive(29, 2),
            Toggle(30),
            Receive(13, 14),
            Publish(1, 0),
            Publish(0, 0),
            Receive(19, 3),
            Receive(5, 1),
        ];
        let lost = [
            Join(0, None),
            Publish(0, 0),
            BeginJoin(0, 31),
            Toggle(1),
            Join(0, None),
            Join(0, None),
            Lose(2),
            Publish(1, 0),
            Toggle(29),
            Toggle(13),
            Publish(0, 0),
            Publish(1, 0),
        ];
        run(2, &[&joined[..], &lost[..]].concat());
    }

    #[test]
    fn what_a_store_has_lost_is_not_remembered_either() {
        let joined = [
            Connect(0),
            Places(0, 1),
            BeginJoin(0, 5),
            Publish(0, 0),
            Join(0, None),
            Connect(0),
            Join(0, None),
            BeginJoin(1, 0),
            Join(0, None),
            Join(0, None),
            Publish(0, 0),
            Receive(0, 1),
        ];
        let lost = [Toggle(0), Lose(1), Toggle(0), BeginJoin(0, 0), Join(0, None), Join(0, None)];
        run(1, &[&joined[..], &lost[..]].concat());
    }
}
