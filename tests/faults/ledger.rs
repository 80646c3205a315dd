//! The ledger: what publishers were answered, and what stands under each number, as everybody has seen it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{ranges::Ranges, wire::JobEvent};

/// How many differences of a kind are told one by one.
pub const TOLD: usize = 10;

/// How far a job's numbers jump at least, which is more than a store can lose.
const JUMP: u64 = 1 << 20;

/// What the ids of jobs begin with that are not the trial's.
pub const OF_OTHERS: &str = "others-";

/// All jobs of a trial. A job's place in it is the number in its id.
pub struct Ledger {
    /// Whether the store may lose what it has accepted.
    forgetful: bool,
    /// Whether a job's numbers jump where the store runs on as another run of itself.
    jumps: bool,
    jobs: Vec<Job>,
    differences: Mutex<Vec<String>>,
    foreign: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

/// One job: who owns it, and its records.
struct Job {
    id: String,
    records: Mutex<Records>,
}

/// What is known of a job's events by number.
#[derive(Default)]
struct Records {
    /// The publisher's serial of each number that it was answered.
    answered: BTreeMap<u64, u64>,
    /// Serial and digest of each event that anybody has seen.
    seen: HashMap<u64, (u64, u64)>,
}

impl Ledger {
    pub fn new(jobs: usize, forgetful: bool, jumps: bool) -> Self {
        let job = |number| Job { id: format!("job-{number}"), records: Mutex::default() };
        Self {
            forgetful,
            jumps,
            jobs: (0..jobs).map(job).collect(),
            differences: Mutex::default(),
            foreign: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    pub fn is_forgetful(&self) -> bool {
        self.forgetful
    }

    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    pub fn id(&self, job: usize) -> &str {
        &self.jobs[job].id
    }

    /// The place of a job, by its id.
    pub fn job(&self, id: &str) -> Option<usize> {
        let job = id.strip_prefix("job-")?.parse().ok()?;
        (job < self.jobs.len()).then_some(job)
    }

    /// Whether a job belongs to somebody else on the same gateway, so that nothing is known of its events.
    pub fn is_of_others(&self, id: &str) -> bool {
        id.starts_with(OF_OTHERS)
    }

    fn records(&self, job: usize) -> MutexGuard<'_, Records> {
        self.jobs[job].records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A publisher was answered. Under that number stands what watchers see there, and it follows on the one before,
    /// with a jump where the store allows one.
    pub fn answered(&self, job: usize, seq: u64, serial: u64) {
        let mut records = self.records(job);
        let before = records.answered.last_key_value().map(|(seq, _)| *seq);
        let seen = records.seen.get(&seq).map(|(serial, _)| *serial);
        records.answered.insert(seq, serial);
        drop(records);
        if let Some(last) = before.filter(|last| !self.follows(*last, seq)) {
            self.foreign(format!("{}: serial {serial} was answered {seq} after {last}", self.id(job)));
        }
        if let Some(other) = seen.filter(|other| *other != serial) {
            let id = self.id(job);
            self.foreign(format!("{id}: {seq} was answered for serial {serial}, and seen with {other}"));
        }
    }

    /// Whether a job's next number may be that one: the very next, or one after a jump.
    fn follows(&self, last: u64, seq: u64) -> bool {
        let jumped = seq >= last.saturating_add(JUMP) || self.forgetful && seq > last;
        seq == last + 1 || self.jumps && jumped
    }

    /// Somebody has seen an event: a watcher, or whoever reads history.
    pub fn seen(&self, who: &str, job: usize, event: &JobEvent<'_>, digest: u64) {
        let Some(stamp) = event.stamp() else {
            return self.foreign(format!("{who}: {} {} has no stamp", event.job, event.seq));
        };
        let (seq, now) = (event.seq, (stamp.serial, digest));
        let mut records = self.records(job);
        let before = *records.seen.entry(seq).or_insert(now);
        let answered = records.answered.get(&seq).copied();
        drop(records);
        if before != now {
            let (id, other) = (event.job, before.0);
            self.foreign(format!("{who}: {id} {seq} has serial {}, others saw {other} there", stamp.serial));
        } else if let Some(other) = answered.filter(|serial| *serial != stamp.serial && !self.forgetful) {
            let id = event.job;
            self.foreign(format!("{who}: {id} {seq} has serial {}, answered for {other}", stamp.serial));
        }
    }

    /// A publish was refused although it was right.
    pub fn refused(&self, difference: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.tell(difference);
    }

    /// A history is not what it should be.
    pub fn history_differs(&self, difference: String) {
        self.foreign(difference);
    }

    /// The store has lost what it had accepted, both numbers inclusive, as the trial allows: it is not due to anybody.
    pub fn lost(&self, job: usize, from: u64, to: u64) {
        self.lost.fetch_add(to - from + 1, Ordering::Relaxed);
        self.records(job).answered.retain(|seq, _| !(from..=to).contains(seq));
    }

    /// How many answered events histories have lost.
    pub fn lost_count(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn foreign(&self, difference: String) {
        self.foreign.fetch_add(1, Ordering::Relaxed);
        self.tell(difference);
    }

    /// Keeps one difference for the report.
    pub fn tell(&self, difference: String) {
        let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        if differences.len() < TOLD {
            differences.push(difference);
        }
    }

    /// The first differences, one by one.
    pub fn differences(&self) -> Vec<String> {
        self.differences.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many contents were not what they should be, and how many publishes were refused.
    pub fn troubles(&self) -> (u64, u64) {
        (self.foreign.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// The numbers of a job that were answered.
    pub fn numbers(&self, job: usize) -> Ranges {
        let mut numbers = Ranges::default();
        self.records(job).answered.keys().for_each(|seq| numbers.insert(*seq));
        numbers
    }

    /// The last number that was answered of each job; 0 where there is none.
    pub fn last_answered(&self) -> Vec<u64> {
        let last = |job| self.records(job).answered.last_key_value().map_or(0, |(seq, _)| *seq);
        (0..self.jobs.len()).map(last).collect()
    }

    /// Compares what watchers saw with what was answered: a serial that stands under two numbers was stored twice.
    pub fn check_serials(&self) {
        for job in 0..self.jobs.len() {
            let records = self.records(job);
            let by_serial: HashMap<u64, u64> =
                records.answered.iter().map(|(seq, serial)| (*serial, *seq)).collect();
            let twice: Vec<_> = records
                .seen
                .iter()
                .filter_map(|(seq, (serial, _))| Some((*seq, *serial, *by_serial.get(serial)?)))
                .filter(|(seq, _, answered)| seq != answered)
                .collect();
            drop(records);
            for (seq, serial, answered) in twice {
                let id = self.id(job);
                self.foreign(format!(
                    "{id}: serial {serial} was answered {answered}, and stands at {seq} too"
                ));
            }
        }
    }
}
