//! What has been decided and is not committed yet.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{
    kv::Writes,
    records::{self, JobRecord, KeyRecord, RoomRecord},
};
use crate::{
    event::JobEvent,
    id::JobId,
    position::{Position, Positions},
    room::Room,
    timestamp::Timestamp,
};

/// The end of a room's log.
#[derive(Debug, Clone)]
pub struct RoomState {
    pub record: RoomRecord,
    /// The index of the newest entry.
    pub last: u64,
}

/// A job that changes.
#[derive(Debug)]
pub struct JobChange {
    /// The time of its newest event before.
    pub before: Option<Timestamp>,
    /// What is known of it from now on.
    pub record: Option<JobRecord>,
}

/// The records that change: what is decided next has to know them.
#[derive(Debug, Default)]
pub struct Changes {
    pub jobs: HashMap<JobId, JobChange>,
    pub rooms: HashMap<Room, Option<RoomState>>,
    pub keys: HashMap<Vec<u8>, KeyRecord>,
}

/// What is being decided.
#[derive(Debug, Default)]
pub struct Pending {
    pub writes: Writes,
    pub events: Vec<(JobEvent, Positions)>,
    pub changes: Changes,
}

/// What is to be committed.
#[derive(Debug)]
pub struct Decided {
    pub writes: Writes,
    pub events: Vec<(JobEvent, Positions)>,
    pub changes: Arc<Changes>,
    /// A place that no event decided later is at or before.
    pub end: Position,
}

impl Pending {
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    pub fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// Changes what is known of a job.
    pub fn change(&mut self, job: &JobId, before: Option<&JobRecord>, record: Option<JobRecord>) {
        match self.changes.jobs.entry(job.clone()) {
            Entry::Occupied(mut change) => change.get_mut().record = record,
            Entry::Vacant(place) => {
                place.insert(JobChange { before: before.map(|record| record.at), record });
            }
        }
    }

    /// Nothing more is decided. Each job's record is written once, however many events it has got.
    pub fn decided(mut self, end: Position) -> Decided {
        for (job, change) in &self.changes.jobs {
            self.writes.insert(records::job_key(job), change.record.as_ref().map(records::write));
        }
        Decided { writes: self.writes, events: self.events, changes: Arc::new(self.changes), end }
    }
}
