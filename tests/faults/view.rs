//! The world as one watcher sees it, and what it finds wrong with it by itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    ledger::Ledger,
    ranges::Ranges,
    wire::{Answer, Gap, JobEvent, Position, Positions, digest},
};

/// Who owns the jobs of a trial: there are twice as many tenants as users. A tenant's jobs are all of one user, so that
/// a watcher of both is in two rooms of the same job.
#[derive(Debug, Clone, Copy)]
pub struct Owners {
    pub users: usize,
}

impl Owners {
    pub fn user_of(self, job: usize) -> usize {
        job % self.users
    }

    pub fn tenants(self) -> usize {
        2 * self.users
    }

    pub fn tenant_of(self, job: usize) -> usize {
        job % self.tenants()
    }
}

/// A room, by the numbers of jobs and owners in the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Job(usize),
    User(usize),
    Tenant(usize),
    All,
}

impl Room {
    fn has(self, job: usize, owners: Owners) -> bool {
        match self {
            Room::Job(number) => job == number,
            Room::User(number) => owners.user_of(job) == number,
            Room::Tenant(number) => owners.tenant_of(job) == number,
            Room::All => true,
        }
    }

    fn is_shared(self) -> bool {
        !matches!(self, Room::Job(_))
    }

    /// What it is called on the wire.
    fn name(self) -> String {
        match self {
            Room::Job(job) => format!("job:job-{job}"),
            Room::User(user) => format!("user:user-{user}"),
            Room::Tenant(tenant) => format!("tenant:tenant-{tenant}"),
            Room::All => "all-jobs".to_owned(),
        }
    }

    /// The payload that subscribes to it.
    fn payload(self) -> Value {
        match self {
            Room::Job(job) => json!({"jobId": format!("job-{job}")}),
            Room::User(user) => json!({"userId": format!("user-{user}")}),
            Room::Tenant(tenant) => json!({"tenantId": format!("tenant-{tenant}")}),
            Room::All => json!({}),
        }
    }
}

/// What a watcher knows of one job.
#[derive(Debug, Default)]
pub struct JobView {
    /// Whether the job's own room brings it.
    pub by_number: bool,
    /// Whether several of the watcher's rooms bring it.
    several: bool,
    /// The newest number seen; where the job's own room is resumed from.
    last: u64,
    /// The newest number that this connection brought.
    on_connection: u64,
    /// How many events its own room is still to replay, which another room may have brought meanwhile.
    replaying: u64,
    /// Whether the store has answered that it does not know `last`, and so replays.
    rewound: bool,
    pub got: Ranges,
    pub gaps: Ranges,
}

/// How far a shared room has come.
#[derive(Debug)]
struct Shared {
    position: Position,
    /// How many events are still to be replayed by it.
    replaying: u64,
    /// Whether the store has answered that the room's log does not reach back, or not so far, and so replays.
    rewound: bool,
}

/// How often something was wrong, or allowed and worth counting.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub duplicated: u64,
    pub disordered: u64,
    /// Gaps announced over numbers that the watcher has.
    pub needless_gaps: u64,
    /// Repeats that a resume by position allows, or that the store's ignorance of a place asks for.
    pub repeated: u64,
    /// Gaps announced.
    pub gaps: u64,
    /// Answers that said that something is missing.
    pub unrecovered: u64,
}

/// All that a watcher knows.
#[derive(Debug)]
pub struct View {
    pub name: String,
    pub rooms: Vec<Room>,
    pub jobs: BTreeMap<usize, JobView>,
    pub counts: Counts,
    /// Its shared rooms, by name.
    shared: BTreeMap<String, Shared>,
}

impl View {
    /// A watcher that has seen nothing yet, and wants all since `begun` (Unix, in milliseconds).
    pub fn new(name: String, rooms: Vec<Room>, jobs: usize, owners: Owners, begun: u64) -> Self {
        let view = |job| {
            let by_number = rooms.contains(&Room::Job(job));
            let bringing = rooms.iter().filter(|room| room.has(job, owners)).count();
            (bringing > 0).then(|| (job, JobView { by_number, several: bringing > 1, ..JobView::default() }))
        };
        let jobs = (0..jobs).filter_map(view).collect();
        let begin = |room: &Room| {
            (room.name(), Shared { position: Position::before(begun), replaying: 0, rewound: false })
        };
        let shared = rooms.iter().filter(|room| room.is_shared()).map(begin).collect();
        Self { name, rooms, jobs, counts: Counts::default(), shared }
    }

    /// A new connection: what it brings of a job is in order and without repeats by itself.
    pub fn connected(&mut self) {
        self.shared.values_mut().for_each(|room| (room.replaying, room.rewound) = (0, false));
        for view in self.jobs.values_mut() {
            (view.on_connection, view.replaying, view.rewound) = (0, 0, false);
        }
    }

    /// What to subscribe with, to go on from here.
    pub fn subscription(&self, room: usize) -> Value {
        let room = self.rooms[room];
        let mut payload = room.payload();
        payload["since"] = match room {
            Room::Job(job) => self.jobs[&job].last.into(),
            _ => self.shared[&room.name()].position.to_string().into(),
        };
        payload
    }

    /// A room is joined.
    pub fn joined(&mut self, room: usize, answer: &Answer, ledger: &Ledger) {
        let unrecovered = answer.recovered == Some(false);
        if unrecovered {
            self.counts.unrecovered += 1;
        }
        if let Room::Job(job) = self.rooms[room] {
            if let Some(view) = self.jobs.get_mut(&job) {
                // The store has lost the number resumed from: all that it has is replayed (contract, section 2).
                view.rewound = unrecovered && answer.newest() < view.last;
                view.replaying = answer.replaying.unwrap_or(0);
            }
            return;
        }
        let name = self.rooms[room].name();
        if let Some(shared) = self.shared.get_mut(&name) {
            shared.replaying = answer.replaying.unwrap_or(0);
        }
        match (answer.position, self.shared.get_mut(&name)) {
            (Some(_), Some(shared)) if unrecovered => {
                // All that the room has kept is replayed, from its beginning perhaps.
                (shared.position, shared.rewound) = (Position::START, true);
            }
            // An earlier place is the same where nothing is between.
            (Some(position), Some(shared)) if position <= shared.position => shared.position = position,
            (position, _) => self.wrong(ledger, format!("resumed in {name}, was told {position:?}")),
        }
    }

    /// Something is not as it has to be.
    fn wrong(&mut self, ledger: &Ledger, what: String) {
        self.counts.disordered += 1;
        ledger.tell(format!("{}: {what}", self.name));
    }

    /// Takes an event. Answers which job it is of, and when it was published.
    pub fn event(&mut self, text: &str, positions: &Positions, ledger: &Ledger) -> Option<(usize, u64)> {
        let event = JobEvent::read(text)?;
        if ledger.is_of_others(event.job) {
            self.advance(positions, false, event.job, ledger);
            self.replayed(positions);
            return None;
        }
        let Some(job) = ledger.job(event.job).filter(|job| self.jobs.contains_key(job)) else {
            self.wrong(ledger, format!("was sent {}, which it does not watch", event.job));
            return None;
        };
        let what = format!("{} {}", event.job, event.seq);
        let repeats = self.may_repeat(positions, ledger);
        self.advance(positions, self.jobs[&job].by_number, &what, ledger);
        self.replayed(positions);
        let view = self.jobs.get_mut(&job)?;
        let known = view.got.contains(event.seq);
        let backwards = event.seq <= view.on_connection;
        // What has no place came by the job's own room alone.
        let by_job = positions.is_empty();
        let repeats = repeats || by_job && view.several && view.replaying > 0;
        view.replaying = view.replaying.saturating_sub(u64::from(by_job));
        let rewound = view.rewound || repeats && ledger.is_forgetful();
        if known && !repeats && !view.rewound || !known && backwards && !rewound {
            let (kind, count) = match known {
                true => ("again", &mut self.counts.duplicated),
                false => ("late", &mut self.counts.disordered),
            };
            *count += 1;
            let (last, here) = (view.last, view.on_connection);
            ledger.tell(format!(
                "{}: {what} came {kind} with {positions:?}, after {last} (on this connection {here})",
                self.name
            ));
        } else if known {
            self.counts.repeated += 1;
        }
        view.on_connection = view.on_connection.max(event.seq);
        view.last = view.last.max(event.seq);
        view.got.insert(event.seq);
        ledger.seen(&self.name, job, &event, digest(text));
        event.stamp().map(|stamp| (job, stamp.sent))
    }

    /// Keeps the places that came with something.
    fn advance(&mut self, positions: &Positions, by_number: bool, what: &str, ledger: &Ledger) {
        if positions.is_empty() && !by_number {
            self.wrong(ledger, format!("{what} came without its place"));
        }
        for (name, position) in positions {
            let Some(shared) = self.shared.get_mut(name) else {
                self.wrong(ledger, format!("{what} came with a place in {name}, which it does not watch"));
                continue;
            };
            let before = std::mem::replace(&mut shared.position, *position);
            if before >= *position {
                self.wrong(ledger, format!("{what} came at {position} of {name}, after {before}"));
            }
        }
    }

    /// Whether what shared rooms bring may have come before: by another room, while these replay what was asked for;
    /// or where the store has lost an end of a room.
    fn may_repeat(&self, positions: &Positions, ledger: &Ledger) -> bool {
        let replays = |room: &Shared| room.replaying > 0 || room.rewound;
        let mut rooms = positions.keys().filter_map(|name| self.shared.get(name));
        rooms.any(|room| replays(room) || ledger.is_forgetful())
    }

    /// Rooms that replay have brought one event more.
    fn replayed(&mut self, positions: &Positions) {
        for name in positions.keys() {
            if let Some(room) = self.shared.get_mut(name) {
                room.replaying = room.replaying.saturating_sub(1);
            }
        }
    }

    pub fn gap(&mut self, gap: &Gap, positions: &Positions, ledger: &Ledger) {
        if ledger.is_of_others(&gap.job) {
            return self.advance(positions, false, &gap.job, ledger);
        }
        self.counts.gaps += 1;
        let Some(job) = ledger.job(&gap.job).filter(|job| self.jobs.contains_key(job)) else {
            return self.wrong(ledger, format!("was told of {gap:?}, which it does not watch"));
        };
        let repeats = self.may_repeat(positions, ledger);
        self.advance(positions, self.jobs[&job].by_number, &format!("{gap:?}"), ledger);
        if !positions.is_empty() && gap.from != gap.to {
            self.wrong(ledger, format!("{gap:?} of a shared room names more than one event"));
        }
        let Some(view) = self.jobs.get_mut(&job) else { return };
        let mut missing = Ranges::default();
        missing.insert_range(gap.from, gap.to);
        let had = missing.common(&view.got);
        if !repeats && !view.rewound && !had.is_empty() {
            self.counts.needless_gaps += 1;
            ledger.tell(format!("{}: was told that {gap:?} is missing, and has {had:?} of it", self.name));
        }
        view.gaps.insert_range(gap.from, gap.to);
        view.on_connection = view.on_connection.max(gap.to);
    }

    /// Whether everything up to these numbers has come, one for each job of the trial.
    pub fn has_reached(&self, last: &[u64]) -> bool {
        self.jobs.iter().all(|(job, view)| view.last.max(view.on_connection) >= last[*job])
    }
}
