//! The model's store: histories that rotate, logs of rooms that may lose their tail, and three jobs with their owners.

use std::collections::BTreeMap;

use crate::{
    event::{Draft, Gap, JobEvent, Owner, Seq},
    id::JobId,
    position::Position,
    room::Room,
    store::{Content, LogEntry, LogPage},
    timestamp::Timestamp,
};

/// How many events of a job the model's store keeps, and how many entries a page has.
const RETAINED: usize = 6;
pub const PAGE: usize = 3;

/// How far a number jumps at least after a loss, and how much further for each millisecond since the last event.
const JUMP: (Seq, Seq) = (1000, 64);
/// The store: all that it ever accepted and has not lost, of which it keeps the newest.
#[derive(Default)]
pub struct Store {
    pub clock: u64,
    pub histories: BTreeMap<JobId, Vec<JobEvent>>,
    pub logs: BTreeMap<Room, Vec<(Position, JobEvent)>>,
    /// Whether the next number of a job jumps.
    pub jumps: BTreeMap<JobId, bool>,
    /// How often it has lost everything. Then the jobs are another user's.
    pub generation: usize,
    /// What positions are not below.
    pub floor: u64,
    /// The oldest number of each job that history has not rotated past.
    pub oldest: BTreeMap<JobId, Seq>,
}

impl Store {
    pub fn retained(&self, job: &JobId) -> &[JobEvent] {
        let events = self.histories.get(job).map_or(&[][..], Vec::as_slice);
        let oldest = self.oldest.get(job).copied().unwrap_or(0);
        &events[events.partition_point(|event| event.seq() < oldest)..]
    }

    /// The log of a room as it was written, with what history has rotated past.
    pub fn written(&self, room: &Room) -> Vec<(Position, JobEvent)> {
        match room {
            Room::Job(job) => {
                let events = self.histories.get(job).into_iter().flatten();
                events.map(|event| (Position::of_seq(event.seq()), event.clone())).collect()
            }
            shared => self.logs.get(shared).cloned().unwrap_or_default(),
        }
    }

    pub fn end(&self, room: &Room) -> Position {
        match (self.written(room).last(), room) {
            (Some((position, _)), _) => *position,
            (None, Room::Job(_)) => Position::START,
            // Of a room without entries the end is the present.
            (None, _) => Position::of_entry(self.clock.max(self.floor), 0),
        }
    }

    pub fn entries(&self, room: &Room, after: Position) -> Vec<LogEntry> {
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

    pub fn page(&self, room: &Room, after: Position) -> LogPage {
        let mut entries = self.entries(room, after);
        let is_last = entries.len() <= PAGE;
        entries.truncate(PAGE);
        LogPage { entries, is_last, end: self.end(room) }
    }

    pub fn accept(&mut self, number: usize) -> JobEvent {
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
        let event = draft.accept(&owner(number, events.len(), self.generation), at, seq);
        events.push(event.clone());
        if let Some(oldest) = events.len().checked_sub(RETAINED) {
            let oldest = events[oldest].seq();
            let known = self.oldest.entry(event.job().clone()).or_default();
            *known = oldest.max(*known);
        }
        event
    }

    /// Writes an event into the log of a room.
    pub fn log(&mut self, room: &Room, event: &JobEvent) -> Position {
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
    pub fn lose(&mut self, count: usize) {
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
    pub fn flush(&mut self) {
        // No server has forgotten everything in the millisecond in which it accepted something.
        *self = Store { clock: self.clock + 1, generation: self.generation + 1, ..Store::default() };
    }
}

pub fn job(number: usize) -> JobId {
    format!("job-{number}").parse().unwrap()
}

/// Jobs 0 and 1 are of one user, as job 1 says with its third event, and job 2 is of a tenant.
pub fn owner(number: usize, events: usize, generation: usize) -> Owner {
    let user = if generation.is_multiple_of(2) { "u" } else { "v" };
    let user = (number == 0 || number == 1 && events >= 2).then(|| user.parse().unwrap());
    let tenant = (number == 2).then(|| "t".parse().unwrap());
    Owner { user, tenant }
}

pub fn room(number: usize) -> Room {
    match number % 6 {
        3 => Room::User("u".parse().unwrap()),
        4 => Room::Tenant("t".parse().unwrap()),
        5 => Room::AllJobs,
        number => Room::Job(job(number)),
    }
}
