use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    index::{ActiveJobs, Change, Standing},
    known::Known,
    kv::{Fault, Kv, Order, Writes},
    outage::Outage,
    records::{self, JobRecord, KeyRecord},
};
use crate::{
    event::{Draft, JobEvent, Seq},
    id::JobId,
    position::Positions,
    store::{
        Accepted, Append, AppendError, Arrival, FeedItem, FeedSender, HistoryOptions, IDEMPOTENCY_LIFETIME,
        Rooms, StoreError,
    },
    timestamp::Timestamp,
};

/// What the writer is asked to do.
pub enum Request {
    /// Accept drafts.
    Append { appends: Vec<Append>, answer: oneshot::Sender<Vec<Result<Accepted, AppendError>>> },
    /// Remove what has expired.
    Sweep,
    /// Try whether the disk takes writes again.
    Recover,
    /// Take no more requests, finish those that wait, and end.
    Stop,
}

/// How many requests share one commit. Publishers wait together for the disk, so that the more of them there
/// are, the less each of them costs.
const GROUP: usize = 256;

/// How many jobs and keys one sweep looks at, so that it never holds publishers up for long.
const SWEEP: usize = 2000;

/// The only one that writes. Being alone, it reads and decides without locks, and the order of its commits is
/// the order of history and feed.
pub struct Writer {
    pub kv: Arc<Kv>,
    pub active: Arc<Mutex<ActiveJobs>>,
    pub known: Known,
    pub history: HistoryOptions,
    pub feed: FeedSender,
    /// Up to where the last sweep looked.
    pub swept: Option<JobId>,
    /// The time of the newest event.
    pub clock: Timestamp,
    /// Where the disk takes no writes.
    pub outage: Option<Outage>,
    /// What keeps events from being accepted, for those who ask.
    pub refusing: watch::Sender<Option<StoreError>>,
}

/// Writes that are not committed yet, over what is.
struct Pending<'a> {
    kv: &'a Kv,
    writes: Writes,
    events: Vec<JobEvent>,
    jobs: HashMap<JobId, Touched>,
}

/// A job that changes.
struct Touched {
    /// Where it stood before.
    before: Option<Standing>,
    /// What is known of it from now on.
    record: Option<JobRecord>,
}

impl Pending<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.kv.get(key),
        }
    }

    /// Changes what is known of a job.
    fn touch(&mut self, job: &JobId, before: Option<&JobRecord>, record: Option<JobRecord>) {
        match self.jobs.entry(job.clone()) {
            Entry::Occupied(mut touched) => touched.get_mut().record = record,
            Entry::Vacant(place) => {
                place.insert(Touched { before: before.map(JobRecord::standing), record });
            }
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }
}

impl Writer {
    /// Works until it is told to stop, or nobody is left who could ask for anything.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            if group.iter().any(|request| matches!(request, Request::Stop)) {
                queue.close();
            }
            // First, for what turns up by it counts for all that is accepted in this group.
            if group.iter().any(|request| matches!(request, Request::Recover)) {
                self.recover();
            }
            self.serve(group.drain(..));
        }
    }

    fn serve(&mut self, group: impl ExactSizeIterator<Item = Request>) {
        let (kv, count) = (self.kv.clone(), group.len());
        let (writes, events, jobs) =
            (Writes::new(), Vec::with_capacity(count), HashMap::with_capacity(count));
        let mut pending = Pending { kv: &kv, writes, events, jobs };
        let mut answers = Vec::with_capacity(count);
        for request in group {
            match request {
                Request::Append { appends, answer } => {
                    let accept = |append| self.accept(&mut pending, append);
                    answers.push((answer, appends.into_iter().map(accept).collect::<Vec<_>>()));
                }
                Request::Recover | Request::Stop => {}
                Request::Sweep => {
                    if let Err(error) = self.sweep(&mut pending, Timestamp::now()) {
                        tracing::warn!(%error, "could not remove what has expired");
                    }
                }
            }
        }
        let committed = self.commit(pending);
        for (answer, outcome) in answers {
            let outcome = match &committed {
                Ok(()) => outcome,
                Err(error) => outcome.into_iter().map(|_| Err(error.clone().into())).collect(),
            };
            // The publisher may have gone; what is committed stays.
            let _ = answer.send(outcome);
        }
    }

    /// Writes what is pending, and sends its events on their way: before the answers, so that a publisher that was
    /// answered finds its event there.
    fn commit(&mut self, pending: Pending<'_>) -> Result<(), StoreError> {
        let Pending { mut writes, events, jobs, kv } = pending;
        // Once for each job, however many events it has got.
        for (job, touched) in &jobs {
            writes.insert(records::job_key(job), touched.record.as_ref().map(JobRecord::write));
        }
        if writes.is_empty() {
            return Ok(());
        }
        if let Some(outage) = &self.outage {
            return Err(outage.error().clone());
        }
        if let Err(fault) = kv.commit(writes) {
            return Err(self.fail(fault, &events));
        }
        self.note(jobs);
        for event in events {
            self.tell(FeedItem::Event(Arrival { event, positions: Positions::JOB }));
        }
        Ok(())
    }

    /// Follows what has been committed.
    fn note(&mut self, jobs: HashMap<JobId, Touched>) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, Touched { before, record }) in jobs {
            let after = record.as_ref().map(JobRecord::standing);
            active.apply(&Change { job: job.clone(), before, after });
            self.known.note(job, record);
        }
    }

    /// Sends something on the feed. A closed one means that the gateway is gone: events are in history all the same.
    fn tell(&self, item: FeedItem) {
        let _there = self.feed.blocking_send(item);
    }

    fn fail(&mut self, fault: Fault, events: &[JobEvent]) -> StoreError {
        let error = fault.error.clone();
        let since = events.iter().map(JobEvent::timestamp).min().unwrap_or_else(Timestamp::now);
        self.outage = Some(Outage::begin(fault, since, &self.refusing));
        error
    }

    /// Ends an outage, if it can be ended by now.
    fn recover(&mut self) {
        let Some(mut outage) = self.outage.take() else { return };
        let Some(room) = outage.reopen_with() else {
            self.outage = Some(outage);
            return;
        };
        let expired = Timestamp::now().before(self.history.retention);
        self.known = Known::default();
        let active = self.kv.reopen(room).and_then(|()| ActiveJobs::read(&self.kv, expired));
        match active {
            Ok(active) => *self.active.lock().unwrap_or_else(PoisonError::into_inner) = active,
            Err(error) => {
                outage.goes_on(error, &self.refusing);
                self.outage = Some(outage);
                return;
            }
        }
        // The commit that failed may be there now. Its events were never sent: watchers get them as after any
        // other interruption.
        self.tell(FeedItem::Interrupted(Rooms::All));
        self.tell(FeedItem::Restored(Rooms::All));
        outage.end(&self.refusing);
    }

    fn accept(&mut self, pending: &mut Pending<'_>, append: Append) -> Result<Accepted, AppendError> {
        let Append { draft, key } = append;
        let at = self.tick();
        let key = key.map(|key| (records::idempotency_key(draft.job(), &key), draft.fingerprint()));
        if let Some((key, fingerprint)) = &key
            && let Some(position) = repeated(pending, key, fingerprint, at)?
        {
            return Ok(position);
        }
        let event = self.store(pending, &draft, at)?;
        let position = Accepted { seq: event.seq(), timestamp: event.timestamp(), repeated: false };
        if let Some((key, fingerprint)) = key {
            remember(pending, key, fingerprint, &position, at);
        }
        pending.events.push(event);
        Ok(position)
    }

    /// The time, which never runs backwards here, whatever the system's clock does.
    fn tick(&mut self) -> Timestamp {
        self.clock = self.clock.max(Timestamp::now());
        self.clock
    }

    fn store(
        &self,
        pending: &mut Pending<'_>,
        draft: &Draft,
        at: Timestamp,
    ) -> Result<JobEvent, AppendError> {
        let job = draft.job();
        let known = match self.record(pending, job)? {
            Some(record) if record.at <= at.before(self.history.retention) => {
                self.forget(pending, job, &record)?;
                None
            }
            other => other,
        };
        let owner = known.as_ref().map(JobRecord::owner).unwrap_or_default();
        if known.as_ref().is_some_and(|record| record.finished) && draft.kind().needs_open_job() {
            return Err(AppendError::JobFinished);
        }
        let owner = owner.joined(draft.owner()).ok_or(AppendError::OwnerMismatch)?;
        let seq = known.as_ref().map_or(at.millis(), |record| record.seq + 1);
        let at = known.as_ref().map_or(at, |record| record.at.max(at));
        let event = draft.accept(&owner, at, seq);
        let oldest = self.trim(pending, job, known.as_ref().map_or(seq, |record| record.oldest), seq);
        let first = known.as_ref().map_or(seq, |record| record.first);
        let record = JobRecord::new(first, oldest, seq, at, draft.kind().is_terminal(), &owner);
        pending.put(records::event_key(job, seq), event.json().get().as_bytes().to_vec());
        pending.touch(job, known.as_ref(), Some(record));
        Ok(event)
    }

    /// What is known of a job, as of the end of what is pending.
    fn record(&self, pending: &Pending<'_>, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
        if let Some(touched) = pending.jobs.get(job) {
            return Ok(touched.record.clone());
        }
        if let Some(record) = self.known.get(job) {
            return Ok(Some(record.clone()));
        }
        pending.kv.get(&records::job_key(job))?.map(|bytes| JobRecord::read(&bytes)).transpose()
    }

    /// Removes what the cap leaves no place for, and says which number is the oldest then.
    fn trim(&self, pending: &mut Pending<'_>, job: &JobId, oldest: Seq, newest: Seq) -> Seq {
        let cap = Seq::try_from(self.history.max_events).unwrap_or(Seq::MAX);
        let keep_from = (newest + 1).saturating_sub(cap).max(oldest);
        for seq in oldest..keep_from {
            pending.remove(records::event_key(job, seq));
        }
        keep_from
    }

    fn forget(&self, pending: &mut Pending<'_>, job: &JobId, record: &JobRecord) -> Result<(), StoreError> {
        for seq in record.oldest..=record.seq {
            pending.remove(records::event_key(job, seq));
        }
        pending.touch(job, Some(record), None);
        Ok(())
    }

    fn sweep(&mut self, pending: &mut Pending<'_>, now: Timestamp) -> Result<(), StoreError> {
        let expired = now.before(self.history.retention);
        let found = self.kv.scan(records::jobs_after(self.swept.as_ref()), Order::Ascending, SWEEP)?;
        // From the beginning again, once the end is reached.
        self.swept = found.get(SWEEP - 1).and_then(|(key, _)| records::job_of_key(key));
        for (key, _) in found {
            let Some(job) = records::job_of_key(&key) else { continue };
            if let Some(record) = self.record(pending, &job)?.filter(|record| record.at <= expired) {
                self.forget(pending, &job, &record)?;
            }
        }
        for (expiry, _) in self.kv.scan(records::expired_keys(now), Order::Ascending, SWEEP)? {
            pending.remove(records::key_of_expiry(&expiry));
            pending.remove(expiry);
        }
        Ok(())
    }
}

/// The first answer under this key, if the key still counts.
fn repeated(
    pending: &Pending<'_>,
    key: &[u8],
    fingerprint: &str,
    now: Timestamp,
) -> Result<Option<Accepted>, AppendError> {
    let Some(bytes) = pending.get(key)? else { return Ok(None) };
    let record = KeyRecord::read(&bytes)?;
    if record.expires <= now {
        return Ok(None);
    }
    if record.fingerprint != fingerprint {
        return Err(AppendError::IdempotencyConflict);
    }
    Ok(Some(Accepted { seq: record.seq, timestamp: record.timestamp, repeated: true }))
}

fn remember(
    pending: &mut Pending<'_>,
    key: Vec<u8>,
    fingerprint: String,
    position: &Accepted,
    now: Timestamp,
) {
    let lifetime = IDEMPOTENCY_LIFETIME.as_millis() as u64;
    let expires = Timestamp::from_millis(now.millis() + lifetime).unwrap_or(now);
    let record = KeyRecord { fingerprint, seq: position.seq, timestamp: position.timestamp, expires };
    pending.put(records::expiry_key(expires, &key), Vec::new());
    pending.put(key, record.write());
}
