//! The world as one watcher sees it, and what it finds wrong with it by itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    ledger::Ledger,
    ranges::Ranges,
    wire::{Answer, Gap, JobEvent, digest},
};

/// Owners in a trial: job `n` belongs to user `n % USERS` and tenant `n % TENANTS`. A tenant's jobs are all of one
/// user, so that whoever watches both is in two rooms of the same job.
pub const USERS: usize = 5;
pub const TENANTS: usize = 10;

/// A room, by the numbers of jobs and owners in the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Job(usize),
    User(usize),
    Tenant(usize),
    All,
}

impl Room {
    fn has(self, job: usize) -> bool {
        match self {
            Room::Job(number) => job == number,
            Room::User(number) => job % USERS == number,
            Room::Tenant(number) => job % TENANTS == number,
            Room::All => true,
        }
    }
}

/// What a watcher knows of one job.
#[derive(Debug, Default)]
pub struct JobView {
    /// Whether its own room brings it, so that it is resumed by number.
    pub by_number: bool,
    /// The newest number seen; where the job is resumed from.
    last: u64,
    /// The newest number that this connection brought.
    on_connection: u64,
    /// Whether the store has answered that it does not know `last`, and so replays.
    rewound: bool,
    pub got: Ranges,
    pub gaps: Ranges,
}

/// How often something was wrong, or allowed and worth counting.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub duplicated: u64,
    pub disordered: u64,
    /// Gaps announced over numbers that the watcher has.
    pub needless_gaps: u64,
    /// Repeats that a resume by time allows, or that the store's ignorance of a number asks for.
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
    /// The time of the newest event seen, which resumes by time begin at.
    newest: String,
    /// What this connection's resumes by time began at.
    since: String,
}

impl View {
    /// A watcher that has seen nothing yet, and wants all since `begun` (RFC 3339).
    pub fn new(name: String, rooms: Vec<Room>, jobs: usize, begun: &str) -> Self {
        let watched = (0..jobs).filter(|job| rooms.iter().any(|room| room.has(*job)));
        let view = |job| JobView { by_number: rooms.contains(&Room::Job(job)), ..JobView::default() };
        let jobs = watched.map(|job| (job, view(job))).collect();
        let (newest, since) = (begun.to_owned(), begun.to_owned());
        Self { name, rooms, jobs, counts: Counts::default(), newest, since }
    }

    /// A new connection: what it brings is in order and without repeats by itself.
    pub fn connected(&mut self) {
        self.since.clone_from(&self.newest);
        for view in self.jobs.values_mut() {
            (view.on_connection, view.rewound) = (0, false);
        }
    }

    /// What to subscribe with, to go on from here.
    pub fn subscription(&self, room: usize) -> Value {
        match self.rooms[room] {
            Room::Job(job) => json!({"jobId": format!("job-{job}"), "since": self.jobs[&job].last}),
            Room::User(user) => json!({"userId": format!("user-{user}"), "since": self.since}),
            // Its jobs are the user's too, if the watcher is in that room: then nothing is to be replayed twice.
            Room::Tenant(tenant) if self.rooms.iter().any(|room| matches!(room, Room::User(_))) => {
                json!({"tenantId": format!("tenant-{tenant}")})
            }
            Room::Tenant(tenant) => json!({"tenantId": format!("tenant-{tenant}"), "since": self.since}),
            Room::All => json!({"since": self.since}),
        }
    }

    /// A room is joined.
    pub fn joined(&mut self, room: usize, answer: &Answer) {
        if answer.recovered == Some(false) {
            self.counts.unrecovered += 1;
        }
        if let Room::Job(job) = self.rooms[room]
            && let Some(view) = self.jobs.get_mut(&job)
        {
            // The store has lost the number resumed from: all that it has is replayed (contract, section 2).
            view.rewound = answer.recovered == Some(false) && answer.newest() < view.last;
        }
    }

    pub fn event(&mut self, text: &str, ledger: &Ledger) -> Option<u64> {
        let event = JobEvent::read(text)?;
        let watched = ledger.job(event.job).and_then(|job| Some((job, self.jobs.get_mut(&job)?)));
        let Some((job, view)) = watched else {
            ledger.tell(format!("{}: was sent {}, which it does not watch", self.name, event.job));
            self.counts.disordered += 1;
            return None;
        };
        let known = view.got.contains(event.seq);
        let repeatable = if view.by_number { view.rewound } else { event.timestamp >= self.since.as_str() };
        if event.seq <= view.on_connection
            || known && !repeatable
            || !known && event.seq < view.last && view.by_number && !view.rewound
        {
            let (kind, count) = match known {
                true => ("again", &mut self.counts.duplicated),
                false => ("late", &mut self.counts.disordered),
            };
            *count += 1;
            let (last, here) = (view.last, view.on_connection);
            ledger.tell(format!(
                "{}: {} {} came {kind}, after {last} (on this connection {here})",
                self.name, event.job, event.seq
            ));
        } else if known {
            self.counts.repeated += 1;
        }
        view.on_connection = view.on_connection.max(event.seq);
        view.last = view.last.max(event.seq);
        view.got.insert(event.seq);
        if event.timestamp > self.newest.as_str() {
            event.timestamp.clone_into(&mut self.newest);
        }
        ledger.seen(&self.name, job, &event, digest(text));
        event.stamp().map(|stamp| stamp.sent)
    }

    pub fn gap(&mut self, gap: &Gap, ledger: &Ledger) {
        self.counts.gaps += 1;
        let Some(view) = ledger.job(&gap.job).and_then(|job| self.jobs.get_mut(&job)) else { return };
        let mut missing = Ranges::default();
        missing.insert_range(gap.from, gap.to);
        let had = missing.common(&view.got);
        // A resume by time may name numbers older than that time.
        if view.by_number && !view.rewound && !had.is_empty() {
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
