//! The model: a store, a feed of one or two connections, sessions, and the tasks around the hub step by step.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{
    super::{Admitted, Fill, Hub, Need, PutOut, SessionKey, Start},
    store::{PAGE, Store, job, room},
};
use crate::{
    access::{Identity, OwnerlessJobs, Ownership, Watching},
    event::{JobEvent, Owner, Seq},
    gateway::{CloseReason, Delivery, Offer, Outlet, Signal},
    id::JobId,
    position::{Position, Positions},
    room::Room,
    store::{Arrival, LogPage, Rooms},
    timestamp::Timestamp,
};

/// What reached a session, and what it was owed from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
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
pub struct Outbox {
    pub log: Mutex<Vec<Seen>>,
    pub places: Mutex<usize>,
    identity: Identity,
    ownerless: OwnerlessJobs,
    /// The owner of each job, as the store knows it.
    owners: Owners,
}

/// The jobs of one name after the other, each with when the first of them began: a store that has lost everything begins
/// anew with them.
type Owners = Arc<Mutex<Vec<(Timestamp, BTreeMap<JobId, Owner>)>>>;

impl Outbox {
    /// Whether its session may see a job that has this owner, or no event.
    fn watching(&self, job: &JobId, owner: Option<&Owner>) -> Watching {
        let ownership = owner.map_or(Ownership::Pending, Ownership::Known);
        self.identity.watching(job, ownership, self.ownerless)
    }

    pub fn note(&self, seen: Seen) {
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
            Delivery::Event(event, ..) => {
                // An event that is older than its job's owner is that owner's too.
                let owners = self.owners.lock().unwrap();
                let lives = owners.iter().rev().find(|(begun, _)| *begun <= event.timestamp());
                let known =
                    lives.and_then(|(_, owners)| owners.get(event.job())).cloned().unwrap_or_default();
                drop(owners);
                let owner = event.owner().merged(&known).unwrap_or_else(|| event.owner().clone());
                let may = [event.owner(), &owner]
                    .into_iter()
                    .any(|owner| self.watching(event.job(), Some(owner)) != Watching::Never);
                assert!(may, "{:?} got {event:?}", self.identity);
                self.note(Seen::Event(event.job().clone(), event.seq()));
            }
            Delivery::Gap(gap, ..) => self.note(Seen::Gap(gap.job.clone(), gap.from, gap.to)),
            Delivery::Signal(Signal::PutOut(room)) => self.note(Seen::Left(room.clone())),
            Delivery::Notice(_) | Delivery::Signal(_) => {}
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
pub struct Line {
    pub items: VecDeque<Item>,
    pub is_cut: bool,
}

#[derive(Clone)]
pub enum Item {
    Arrival(Arrival),
    Interrupted,
    Restored,
}
pub struct Watcher {
    pub key: SessionKey,
    pub connection: u64,
    pub outbox: Arc<Outbox>,
    /// The rooms that it is in, with the place from which on.
    pub rooms: BTreeMap<Room, Position>,
}

/// A join that has begun.
pub struct Joining {
    pub watcher: usize,
    pub room: Room,
    /// Once it has been read and answered.
    pub start: Option<(Start, Admitted)>,
}

pub struct Model {
    pub hub: Hub,
    ownerless: OwnerlessJobs,
    owners: Owners,
    connections: u64,
    pub store: Store,
    /// One connection brings everything of all rooms together; two bring each room by itself.
    pub lines: Vec<Line>,
    pub watchers: Vec<Watcher>,
    pub joining: Vec<Joining>,
    /// What was read and is yet to be handed over.
    pub catch_ups: Vec<(SessionKey, Option<(Need, LogPage)>)>,
    pub fills: Vec<(Fill, Option<LogPage>)>,
}

impl Model {
    pub fn new(lines: usize, ownerless: OwnerlessJobs) -> Self {
        Self {
            hub: Hub::new(ownerless),
            ownerless,
            owners: Owners::default(),
            connections: 0,
            store: Store { clock: 100, ..Store::default() },
            lines: (0..lines).map(|_| Line::default()).collect(),
            watchers: Vec::new(),
            joining: Vec::new(),
            catch_ups: Vec::new(),
            fills: Vec::new(),
        }
    }

    pub fn line_of(&self, room: &Room) -> usize {
        (0..6).position(|number| super::store::room(number) == *room).unwrap_or(0) % self.lines.len()
    }

    pub fn rooms_of(&self, line: usize) -> Rooms {
        match self.lines.len() {
            1 => Rooms::All,
            _ => Rooms::Some((0..6).map(room).filter(|room| self.line_of(room) == line).collect()),
        }
    }

    pub fn publish(&mut self, number: usize, copies: usize) {
        let event = self.store.accept(number);
        self.note_owner(&event);
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

    /// An owner stays known where the store has lost the event that named it.
    fn note_owner(&self, event: &JobEvent) {
        let mut owners = self.owners.lock().unwrap();
        if owners.is_empty() {
            owners.push((Timestamp::default(), BTreeMap::new()));
        }
        let Some((_, owners)) = owners.last_mut() else { return };
        let known = owners.entry(event.job().clone()).or_default();
        *known = known.merged(event.owner()).unwrap_or_else(|| event.owner().clone());
    }

    /// Has the store lose everything, and know nothing of it.
    pub fn flush(&mut self) {
        self.store.flush();
        let begun = Timestamp::from_millis(self.store.clock).unwrap();
        self.owners.lock().unwrap().push((begun, BTreeMap::new()));
        self.watchers.iter().for_each(|watcher| watcher.outbox.note(Seen::Anew));
    }

    pub fn bring(&mut self, line: usize, arrival: Arrival) {
        if !self.lines[line].is_cut {
            self.lines[line].items.push_back(Item::Arrival(arrival));
        }
    }

    pub fn receive(&mut self, line: usize, many: usize) {
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

    pub fn take(&mut self, arrivals: &mut Vec<Arrival>) {
        let mut rest = arrivals.as_slice();
        while !rest.is_empty() {
            rest = &rest[self.hub.receive(rest)..];
        }
        arrivals.clear();
    }

    /// Cuts a connection, and what is on its way; or makes it anew.
    pub fn toggle(&mut self, line: usize) {
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

    pub fn connect(&mut self, places: usize, identity: Identity) {
        let (log, pass) = (Mutex::default(), Arc::new(identity.clone().into()));
        let outbox = Outbox {
            log,
            places: Mutex::new(places),
            identity,
            ownerless: self.ownerless,
            owners: self.owners.clone(),
        };
        let outbox = Arc::new(outbox);
        self.connections += 1;
        let key = self.hub.connect(outbox.clone(), self.connections, pass);
        self.watchers.push(Watcher { key, connection: self.connections, outbox, rooms: BTreeMap::new() });
    }

    /// Forgets the rooms that sessions were put out of.
    pub fn note_put_out(&mut self) {
        for PutOut { connection, room, .. } in self.hub.take_put_out() {
            for watcher in self.watchers.iter_mut().filter(|watcher| watcher.connection == connection) {
                watcher.rooms.remove(&room);
            }
        }
    }

    pub fn begin_join(&mut self, watcher: usize, number: usize) {
        let Some(watcher) = watcher.checked_rem(self.watchers.len()) else { return };
        let room = room(number);
        // One connection handles its messages one after the other; a room that is not covered has to wait.
        let busy = self.joining.iter().any(|joining| joining.watcher == watcher);
        let may = self.watchers[watcher].outbox.identity.check_room(&room).is_ok();
        if !busy
            && may
            && !self.lines[self.line_of(&room)].is_cut
            && self.hub.begin_join(self.watchers[watcher].key, &room)
        {
            self.joining.push(Joining { watcher, room, start: None });
        }
    }

    /// Goes on with a join: reads the room, or starts.
    pub fn advance_join(&mut self, which: usize, since: Option<u64>) {
        let Some(which) = which.checked_rem(self.joining.len()) else { return };
        let Joining { watcher, room, start } = &mut self.joining[which];
        let Some((found, admitted)) = start.take() else {
            let (written, end) = (self.store.written(room), self.store.end(room));
            let at = self.store.clock;
            let outbox = &self.watchers[*watcher].outbox;
            let newest = written.last().map(|(at, event)| (*at, event.owner().clone()));
            let admitted = match room {
                Room::Job(job) => match outbox.watching(job, newest.as_ref().map(|(_, owner)| owner)) {
                    Watching::Always => Admitted::Always,
                    Watching::WithThisOwner => Admitted::ByOwner(newest),
                    Watching::Never => {
                        self.hub.cancel_join(self.watchers[*watcher].key, room);
                        self.joining.swap_remove(which);
                        return;
                    }
                },
                _ => Admitted::Always,
            };
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
            let (found, newest) = (Start { after, end, at, asked: since.is_some() }, newest.collect());
            outbox.note(Seen::From(room.clone(), found.after, found.asked, newest));
            if found.asked {
                self.hub.begin_answer(self.watchers[*watcher].key);
            }
            *start = Some((found, admitted));
            return;
        };
        let watcher = &mut self.watchers[*watcher];
        let newly = self.hub.start(watcher.key, room, found, admitted);
        if self.hub.is_in(watcher.key, room) {
            let from = watcher.rooms.entry(room.clone()).or_insert(found.after);
            if !newly && found.asked {
                *from = found.after.min(*from);
            }
        }
        self.joining.swap_remove(which);
    }

    pub fn leave(&mut self, watcher: usize, number: usize) {
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

    pub fn collect_due(&mut self) {
        let due = self.hub.take_catch_ups_due(Instant::now());
        self.catch_ups.extend(due.into_iter().map(|(key, _)| (key, None)));
        self.fills.extend(self.hub.take_fills_due().into_iter().map(|fill| (fill, None)));
    }

    pub fn advance_catch_up(&mut self, which: usize) {
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

    pub fn advance_fill(&mut self, which: usize) {
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
    pub fn settle(&mut self) {
        for line in 0..self.lines.len() {
            if self.lines[line].is_cut {
                self.toggle(line);
            }
            while !self.lines[line].items.is_empty() {
                self.receive(line, 0);
            }
        }
        self.note_put_out();
        while !self.joining.is_empty() {
            self.advance_join(0, None);
            self.note_put_out();
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
            self.note_put_out();
            assert!(round < 100_000, "it never comes to rest");
        }
        assert!(self.hub.is_whole());
    }

    pub fn check(&self) {
        for watcher in &self.watchers {
            let log = watcher.outbox.log.lock().unwrap();
            self.check_complete(watcher, &log);
            check_order(&log);
            check_asked_first(&log);
        }
    }

    /// Every entry that it is owed was delivered, or told as lost where it is.
    pub fn check_complete(&self, watcher: &Watcher, log: &[Seen]) {
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
pub fn check_order(log: &[Seen]) {
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

/// What a session asked for of a job comes before anything of the job that happened since (contract, section 2).
pub fn check_asked_first(log: &[Seen]) {
    for (place, seen) in log.iter().enumerate() {
        let Seen::From(Room::Job(of), after, true, newest) = seen else { continue };
        let (asked, mut live, mut had) = (newest.get(of).copied().unwrap_or(0), false, BTreeSet::new());
        for seen in &log[place + 1..] {
            match seen {
                Seen::Event(job, seq) if job == of && *seq > asked => live = true,
                Seen::Event(job, seq) if job == of && Position::of_seq(*seq) > *after => {
                    assert!(
                        !had.insert(*seq) || !live,
                        "{seen:?} comes after what happened later in {log:?}"
                    );
                }
                // Another room may still bring what history has lost.
                Seen::Gap(job, from, to) if job == of => had.extend(*from..=*to),
                Seen::Left(Room::Job(job)) | Seen::From(Room::Job(job), ..) if job == of => break,
                Seen::Anew => break,
                _ => {}
            }
        }
    }
}

/// Whether an event of job 1 is one from before its owner was known, which only some of its rooms bring.
pub fn is_unowned(of: &JobId, seq: Seq, log: &[Seen]) -> bool {
    let older =
        log.iter().filter(|seen| matches!(seen, Seen::Event(job, other) if job == of && *other < seq));
    *of == job(1) && older.count() < 2
}
