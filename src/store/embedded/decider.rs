//! Decides what becomes of drafts.

use std::sync::Arc;

use super::{
    changes::{Changes, Decided, Pending, RoomState},
    kv::{Kv, Order},
    record_cache::RecordCache,
    records::{self, JobRecord, KeyRecord, LogEntry, RoomRecord},
};
use crate::{
    event::{Draft, JobEvent, Owner, Seq, rooms},
    id::JobId,
    position::{Position, Positions},
    room::Room,
    store::{Accepted, Append, AppendError, HistoryOptions, IDEMPOTENCY_LIFETIME, StoreError},
    timestamp::Timestamp,
};

/// What is known of the logs of some rooms.
type Logs = Vec<(Option<RoomState>, Room)>;

/// How many entries of a room's log are trimmed at a time.
const TRIM: u64 = 256;

/// Decides one group of requests after the other, and knows what it has decided before it is committed. The order of
/// its decisions is the order of history, logs and feed.
#[derive(Debug)]
pub struct Decider {
    pub kv: Arc<Kv>,
    pub history: HistoryOptions,
    pub jobs: RecordCache<JobId, JobRecord>,
    pub rooms: RecordCache<Room, RoomState>,
    /// The group that may not be committed yet.
    in_flight: Arc<Changes>,
    /// The time and number of the newest event.
    clock: Timestamp,
    number: u64,
    /// How many jobs there are.
    kept: usize,
    /// Up to where [`Decider::sweep`] has looked.
    pub swept: Option<Vec<u8>>,
}

impl Decider {
    /// There are so many jobs, and no event has a place at `end` or before.
    pub fn new(kv: Arc<Kv>, history: HistoryOptions, kept: usize, end: Position) -> Self {
        Self {
            kv,
            history,
            jobs: RecordCache::default(),
            rooms: RecordCache::default(),
            in_flight: Arc::default(),
            clock: Timestamp::from_millis(end.millis()).unwrap_or_default(),
            number: end.number(),
            kept,
            swept: None,
        }
    }

    /// Forgets what it has decided, for that has not been committed: there are so many jobs. Times and places still go on,
    /// above `end` too.
    pub fn reset(&mut self, kept: usize, end: Position) {
        let end = end.max(Position::of_entry(self.clock.millis(), self.number));
        *self = Self::new(self.kv.clone(), self.history, kept, end);
    }

    /// Ends a group. The one before it has to be committed before the next is begun.
    pub fn finish(&mut self, pending: Pending) -> Decided {
        self.now(Timestamp::now());
        let decided = pending.decided(Position::of_entry(self.clock.millis(), self.number));
        for (job, change) in &decided.changes.jobs {
            self.jobs.note(job.clone(), change.record.clone());
        }
        for (room, state) in &decided.changes.rooms {
            self.rooms.note(room.clone(), state.clone());
        }
        self.in_flight = decided.changes.clone();
        decided
    }

    /// The time, which never runs backwards here, whatever the system's clock does.
    pub fn now(&mut self, system: Timestamp) -> Timestamp {
        if system > self.clock {
            (self.clock, self.number) = (system, 0);
        }
        self.clock
    }

    pub fn accept(&mut self, pending: &mut Pending, append: Append) -> Result<Accepted, AppendError> {
        let Append { draft, key } = append;
        let at = self.now(Timestamp::now());
        let key = key.map(|key| (records::idempotency_key(draft.job(), &key), draft.fingerprint()));
        if let Some((key, fingerprint)) = &key
            && let Some(record) = self.key(pending, key)?.filter(|record| record.expires > at)
        {
            return match record.fingerprint == *fingerprint {
                true => Ok(Accepted { seq: record.seq, timestamp: record.timestamp, repeated: true }),
                false => Err(AppendError::IdempotencyConflict),
            };
        }
        let (event, positions) = self.store(pending, &draft, at)?;
        let accepted = Accepted { seq: event.seq(), timestamp: event.timestamp(), repeated: false };
        if let Some((key, fingerprint)) = key {
            let expires = at.after(IDEMPOTENCY_LIFETIME);
            let record = KeyRecord { fingerprint, seq: accepted.seq, timestamp: accepted.timestamp, expires };
            pending.put(records::expiry_key(expires, &key), Vec::new());
            pending.put(key.clone(), records::write(&record));
            pending.changes.keys.insert(key, record);
        }
        pending.events.push((event, positions));
        Ok(accepted)
    }

    fn store(
        &mut self,
        pending: &mut Pending,
        draft: &Draft,
        at: Timestamp,
    ) -> Result<(JobEvent, Positions), AppendError> {
        let job = draft.job();
        let known = match self.job(pending, job)? {
            Some(record) if record.at <= at.before(self.history.retention) => {
                self.forget(pending, job, &record);
                None
            }
            other => other,
        };
        let before = known.as_ref().map(JobRecord::owner).unwrap_or_default();
        if known.as_ref().is_some_and(|record| record.finished) && draft.kind().needs_open_job() {
            return Err(AppendError::JobFinished);
        }
        let owner = before.merged(draft.owner()).ok_or(AppendError::OwnerMismatch)?;
        if let (None, Some(limit)) = (&known, self.history.max_jobs)
            && self.kept >= limit
        {
            return Err(AppendError::TooManyJobs(limit));
        }
        // All that may fail comes before the first write.
        let logs = self.logs(pending, job, &owner)?;
        self.kept += usize::from(known.is_none());
        let at = known.as_ref().map_or(at, |record| self.now(record.at));
        let seq = known.as_ref().map_or(at.millis(), |record| record.seq + 1);
        let first = known.as_ref().map_or(seq, |record| record.first);
        let due = match &known {
            Some(record) => record.due,
            None => self.expect(pending, at, &records::job_key(job)),
        };
        for room in records::owner_rooms(job, &owner) {
            if known.is_none() || !records::owner_rooms(job, &before).any(|known| known == room) {
                pending.put(records::member_key(&room, first, job), Vec::new());
            }
        }
        let event = draft.accept(&owner, at, seq);
        let oldest = self.rotate(pending, job, known.as_ref().map_or(seq, |record| record.oldest), seq);
        let finished = draft.kind().is_terminal();
        let record =
            JobRecord { seq, first, oldest, at, due, finished, user: owner.user, tenant: owner.tenant };
        pending.put(records::event_key(job, seq), event.json().get().as_bytes().to_vec());
        pending.change(job, known.as_ref(), Some(record));
        let positions = self.log(pending, &event, logs);
        Ok((event, positions))
    }

    /// Has somebody look, once the retention is over, whether what stands under a key has expired.
    pub fn expect(&self, pending: &mut Pending, at: Timestamp, target: &[u8]) -> Timestamp {
        let due = at.after(self.history.retention);
        pending.put(records::expiry_key(due, target), Vec::new());
        due
    }

    /// Removes what the cap leaves no place for, and says which number is the oldest then.
    fn rotate(&self, pending: &mut Pending, job: &JobId, oldest: Seq, newest: Seq) -> Seq {
        let cap = Seq::try_from(self.history.max_events).unwrap_or(Seq::MAX);
        let keep_from = (newest + 1).saturating_sub(cap).max(oldest);
        for seq in oldest..keep_from {
            pending.remove(records::event_key(job, seq));
        }
        keep_from
    }

    /// Removes a job.
    pub fn forget(&mut self, pending: &mut Pending, job: &JobId, record: &JobRecord) {
        self.kept = self.kept.saturating_sub(1);
        for seq in record.oldest..=record.seq {
            pending.remove(records::event_key(job, seq));
        }
        for room in records::owner_rooms(job, &record.owner()) {
            pending.remove(records::member_key(&room, record.first, job));
        }
        pending.remove(records::expiry_key(record.due, &records::job_key(job)));
        pending.change(job, Some(record), None);
    }

    /// The shared rooms of a job, and what is known of their logs.
    fn logs(&self, pending: &Pending, job: &JobId, owner: &Owner) -> Result<Logs, StoreError> {
        let shared = rooms(job, owner).filter(|room| !matches!(room, Room::Job(_)));
        shared.map(|room| Ok((self.room(pending, &room)?, room))).collect()
    }

    /// Writes an event into the logs of its rooms, at the same place in each.
    fn log(&mut self, pending: &mut Pending, event: &JobEvent, logs: Logs) -> Positions {
        self.number += 1;
        let position = Position::of_entry(self.clock.millis(), self.number);
        for (state, room) in logs {
            let mut state = state.unwrap_or_else(|| self.begin(pending, &room));
            state.last += 1;
            let entry = LogEntry { index: state.last, seq: event.seq(), job: event.job().clone() };
            pending.put(records::log_key(&room, position), entry.write());
            if let Err(error) = self.trim(pending, &room, &mut state) {
                tracing::warn!(%error, %room, "could not trim the log");
            }
            pending.changes.rooms.insert(room, Some(state));
        }
        let owner = event.owner();
        Positions {
            job: true,
            user: owner.user.as_ref().map(|_| position),
            tenant: owner.tenant.as_ref().map(|_| position),
            all_jobs: Some(position),
        }
    }

    fn begin(&self, pending: &mut Pending, room: &Room) -> RoomState {
        let key = records::room_key(room);
        let record = RoomRecord::new(self.expect(pending, self.clock, &key));
        pending.put(key, records::write(&record));
        RoomState { last: record.first - 1, record }
    }

    /// Removes the oldest entries of a log where there are too many by a good number. Nothing ever reads over the
    /// tombstones, for all reads begin after what was trimmed.
    fn trim(&self, pending: &mut Pending, room: &Room, state: &mut RoomState) -> Result<(), StoreError> {
        let cap = u64::try_from(self.history.entries_of(room)).unwrap_or(u64::MAX);
        let block = (cap / 8).clamp(1, TRIM);
        let kept = state.last + 1 - state.record.first;
        if kept < cap.saturating_add(block) || !state.last.is_multiple_of(block) {
            return Ok(());
        }
        let oldest = records::log_after(room, state.record.start());
        // What is not committed yet is not found: it is trimmed next time.
        self.drop_entries(pending, room, state, oldest, (kept - cap) as usize).map(|_| ())
    }

    /// Removes the first entries of a range that begins with the oldest, and says how many.
    pub fn drop_entries(
        &self,
        pending: &mut Pending,
        room: &Room,
        state: &mut RoomState,
        range: std::ops::Range<Vec<u8>>,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let found = self.kv.scan(range, Order::Ascending, limit)?;
        if let Some((last, _)) = found.last() {
            state.record.trim(records::position_of_key(last), found.len() as u64);
            pending.put(records::room_key(room), records::write(&state.record));
        }
        let count = found.len();
        for (key, _) in found {
            pending.remove(key);
        }
        Ok(count)
    }

    /// What is known of a job, as of the end of what is pending.
    pub fn job(&self, pending: &Pending, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
        if let Some(change) = pending.changes.jobs.get(job) {
            return Ok(change.record.clone());
        }
        if let Some(record) = self.jobs.get(job) {
            return Ok(Some(record.clone()));
        }
        if let Some(change) = self.in_flight.jobs.get(job) {
            return Ok(change.record.clone());
        }
        self.kv.get(&records::job_key(job))?.map(|bytes| records::read(&bytes)).transpose()
    }

    /// The same of a room.
    pub fn room(&self, pending: &Pending, room: &Room) -> Result<Option<RoomState>, StoreError> {
        if let Some(state) = pending.changes.rooms.get(room) {
            return Ok(state.clone());
        }
        if let Some(state) = self.rooms.get(room) {
            return Ok(Some(state.clone()));
        }
        if let Some(state) = self.in_flight.rooms.get(room) {
            return Ok(state.clone());
        }
        let Some(bytes) = self.kv.get(&records::room_key(room))? else { return Ok(None) };
        let record: RoomRecord = records::read(&bytes)?;
        let newest = self.kv.scan(records::log_after(room, record.start()), Order::Descending, 1)?;
        let last = match newest.first() {
            Some((_, value)) => LogEntry::read(value)?.index,
            None => record.first - 1,
        };
        Ok(Some(RoomState { record, last }))
    }

    /// The same of an idempotency key.
    pub fn key(&self, pending: &Pending, key: &[u8]) -> Result<Option<KeyRecord>, StoreError> {
        if let Some(record) = pending.changes.keys.get(key).or_else(|| self.in_flight.keys.get(key)) {
            return Ok(Some(record.clone()));
        }
        self.kv.get(key)?.map(|bytes| records::read(&bytes)).transpose()
    }
}
