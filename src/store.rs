//! The store: the only truth. It accepts events, keeps history, knows which jobs are active and who is
//! connected, and feeds this node with what was accepted for the rooms that it asked for.

mod clients;
mod embedded;
mod feed;
mod redis;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::value::RawValue;

/// What the fuzz targets of this repository use besides.
#[doc(hidden)]
pub mod internals {
    pub use super::{embedded::internals as embedded, redis::internals as redis};
}

use self::feed::FeedSender;
pub use self::{
    clients::{ClientRecord, ClientsPage, Connection, Directory},
    feed::{Arrival, Feed, FeedItem, Rooms},
};
pub use crate::redis::RedisOptions;
use crate::{
    access::Revocation,
    budget::Reservation,
    error::{ApiError, ErrorCode},
    event::{Draft, Gap, IdempotencyKey, JobEvent, Seq},
    id::{ClientId, JobId},
    notice::Notice,
    position::Position,
    room::Room,
    tasks::Tasks,
    timestamp::Timestamp,
};

/// How many of the most recently active jobs a room's index keeps at the most (in Redis; the embedded store
/// keeps all that have history).
pub const MAX_ACTIVE_JOBS: usize = 10_000;

/// For how long an idempotency key is remembered (contract, section 3).
pub const IDEMPOTENCY_LIFETIME: Duration = Duration::from_secs(600);

/// How long a revocation is kept after its time, and how many subjects may have one.
pub const REVOCATION_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
pub const MAX_REVOCATIONS: usize = 100_000;

/// How much of each job is kept.
#[derive(Debug, Clone, Copy)]
pub struct HistoryOptions {
    /// The newest events of a job that are kept; at least 1.
    pub max_events: usize,
    /// How long a job is kept after its last event.
    pub retention: Duration,
    /// About how many entries the log of a user's or a tenant's room keeps; that of all jobs keeps
    /// ten times as many.
    pub room_entries: usize,
    /// How many jobs are kept before the events of others are refused. `None` for no bound. Only for the embedded store.
    pub max_jobs: Option<usize>,
}

/// How many times as many entries as other shared rooms that of all jobs keeps.
pub const ALL_JOBS_ENTRIES: usize = 10;

impl HistoryOptions {
    /// About how many entries the log of a shared room keeps.
    pub fn entries_of(&self, room: &Room) -> usize {
        match room {
            Room::AllJobs => self.room_entries.saturating_mul(ALL_JOBS_ENTRIES),
            _ => self.room_entries,
        }
    }
}

/// Where events are kept.
#[derive(Debug, Clone)]
pub enum Backend {
    /// In this process only, on no disk.
    Memory,
    /// In this process, durable in the given folder.
    Embedded(PathBuf),
    /// In Redis, shared by all gateways that use it.
    Redis(RedisOptions),
}

/// All that opening a store needs.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Where events are kept.
    pub backend: Backend,
    /// How much of each job is kept.
    pub history: HistoryOptions,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            max_events: 100,
            retention: Duration::from_secs(24 * 3600),
            room_entries: 10_000,
            max_jobs: None,
        }
    }
}

impl Default for StoreOptions {
    /// The embedded store in the folder `data`.
    fn default() -> Self {
        Self { backend: Backend::Embedded("data".into()), history: HistoryOptions::default() }
    }
}

/// A draft on its way into the store.
#[derive(Debug, Clone)]
pub struct Append {
    /// The event.
    pub draft: Draft,
    /// The publisher's own name for the call.
    pub key: Option<IdempotencyKey>,
}

/// What became of a draft that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The event's number within the job.
    pub seq: Seq,
    /// The event's time.
    pub timestamp: Timestamp,
    /// Whether this answers a call that was made before under the same idempotency key: nothing was stored.
    pub repeated: bool,
}

/// Why the store did not accept a draft. Nothing of it was stored, except where the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The job is finished, and only an update reopens it.
    #[error("the job is finished; only a job:update reopens it")]
    JobFinished,
    /// The draft names another owner than the job's.
    #[error("the job belongs to another userId or tenantId")]
    OwnerMismatch,
    /// The idempotency key was used for the job with another body.
    #[error("this idempotency key was used for the job with another body")]
    IdempotencyConflict,
    /// It is the first event of a job, and so many jobs are kept as may be.
    #[error(
        "{0} jobs are kept, which is as many as may be (limits.jobs); events of these are still accepted, and a new job is \
         when one of them has expired (history.retention)"
    )]
    TooManyJobs(usize),
    /// The store did not answer: the outcome is unknown.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// The store failed or did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store is unavailable: {0}")]
pub struct StoreError(pub String);

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        ApiError::new(ErrorCode::Unavailable, error.to_string())
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let code = match &error {
            AppendError::JobFinished => ErrorCode::JobFinished,
            AppendError::OwnerMismatch => ErrorCode::OwnerMismatch,
            AppendError::IdempotencyConflict => ErrorCode::IdempotencyConflict,
            AppendError::TooManyJobs(_) => ErrorCode::LimitReached,
            AppendError::Unavailable(_) => ErrorCode::Unavailable,
        };
        ApiError::new(code, error.to_string())
    }
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// One element of a history.
#[derive(Debug, Clone)]
pub enum Entry {
    /// An event that a gateway accepted.
    Event(JobEvent),
    /// JSON that another program wrote into the list, served as it is.
    Foreign(Box<RawValue>),
}

impl Entry {
    /// Reads what a history holds; `None` for what is not JSON.
    fn parse(json: String) -> Option<Self> {
        match JobEvent::parse(json.clone()) {
            Ok(event) => Some(Entry::Event(event)),
            Err(_) => RawValue::from_string(json).ok().map(Entry::Foreign),
        }
    }

    /// Its JSON.
    pub fn json(&self) -> &str {
        match self {
            Entry::Event(event) => event.json().get(),
            Entry::Foreign(json) => json.get(),
        }
    }

    /// The bytes of its JSON.
    pub fn size(&self) -> usize {
        self.json().len()
    }

    /// The event's number, unless foreign.
    pub fn seq(&self) -> Option<Seq> {
        match self {
            Entry::Event(event) => Some(event.seq()),
            Entry::Foreign(_) => None,
        }
    }

    /// The event, unless foreign.
    pub fn event(self) -> Option<JobEvent> {
        match self {
            Entry::Event(event) => Some(event),
            Entry::Foreign(_) => None,
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Entry::Event(event) => event.serialize(serializer),
            Entry::Foreign(json) => json.serialize(serializer),
        }
    }
}

/// A part of a job's history. Every part is answered oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The newest so many.
    Newest(usize),
    /// Of those with a larger number, the oldest `limit`.
    After {
        /// The last number that is known.
        seq: Seq,
        /// How many at the most.
        limit: usize,
    },
}

/// A part of what a window shows.
#[derive(Debug, Clone, Default)]
pub struct HistoryPart {
    /// The oldest of it.
    pub entries: Vec<Entry>,
    /// What comes after these, if there was more when they were read.
    pub rest: Option<Window>,
}

/// What a job's history reaches from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first number that the job ever had, as far as the store remembers the job.
    pub first: Seq,
    /// The oldest number that is retained.
    pub oldest: Seq,
    /// The newest number.
    pub newest: Seq,
    /// How many retained events have a larger number than the one that a resume asks for.
    pub newer: usize,
    /// Whether nothing is missing after the number that a resume asks for: history holds it, or begins right after it.
    pub holds: bool,
}

/// A place in a room's log, and what is there.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The place. For several lost events in a job's room: that of the last of them.
    pub position: Position,
    /// What is there.
    pub content: Content,
}

/// What a place in a room's log holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// An event.
    Event(JobEvent),
    /// Events that history has rotated past.
    Lost(Gap),
}

/// A part of a room's log, in its order.
#[derive(Debug, Clone)]
pub struct LogPage {
    /// What follows on the place that was asked for.
    pub entries: Vec<LogEntry>,
    /// Whether the log had nothing more after these when it was read.
    pub is_last: bool,
    /// The end of the log when it was read. It is before the place that was asked for where the log has lost its tail
    /// or began anew; then there are no entries.
    pub end: Position,
}

/// What the log of a shared room reaches from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The first place after which nothing is missing.
    pub start: Position,
    /// The place of its newest entry; the present, where it has none.
    pub end: Position,
}

/// A store that is open. Cloning gives another handle.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process.
    Embedded(Arc<embedded::Embedded>),
    /// In Redis.
    Redis(Arc<redis::Redis>),
}

macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Store::Embedded($store) => $call,
            Store::Redis($store) => $call,
        }
    };
}

impl Store {
    /// Opens the store; `node` names this process among the others. Its tasks run in `tasks`.
    ///
    /// # Errors
    /// [`OpenError`] says which folder or server could not be opened, and why.
    pub async fn open(options: &StoreOptions, node: &str, tasks: &Tasks) -> Result<(Self, Feed), OpenError> {
        let (sender, feed) = match &options.backend {
            Backend::Memory | Backend::Embedded(_) => feed::waiting(),
            Backend::Redis(_) => feed::refusing(),
        };
        let store = match &options.backend {
            Backend::Memory => {
                Store::Embedded(embedded::Embedded::open(None, options.history, sender, tasks)?)
            }
            Backend::Embedded(path) => {
                Store::Embedded(embedded::Embedded::open(Some(path), options.history, sender, tasks)?)
            }
            Backend::Redis(redis) => {
                Store::Redis(redis::Redis::open(redis, options.history, node, sender, tasks).await?)
            }
        };
        Ok((store, feed))
    }

    /// Accepts drafts, each on its own, those of one job in the order given. The answers are in order. An accepted
    /// event carries the time of its acceptance by the store's own clock, so that of two events, of whatever jobs, the
    /// one accepted later has no earlier time (in a cluster: as far as its servers' clocks agree). It is in history before it is answered, and reaches the feed of every node that covers one of
    /// its rooms. Dropping the future leaves the outcome unknown. `held` counts the drafts' bytes, and is given back when
    /// the store holds them no longer, also where nobody waits for the answer any more.
    pub async fn append(
        &self,
        appends: Vec<Append>,
        held: Option<Reservation>,
    ) -> Vec<Result<Accepted, AppendError>> {
        match self {
            Store::Embedded(store) => store.append(appends, held).await,
            Store::Redis(store) => {
                let _held = held;
                store.append(appends).await
            }
        }
    }

    /// A part of a job's history, oldest first; empty for a job that is not known.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn history(&self, job: &JobId, window: Window) -> Result<Vec<Entry>, StoreError> {
        each!(self, store => store.history(job, window).await)
    }

    /// As [`Store::history`], but the oldest entries that have no more than so many bytes together, one at least. Reading
    /// the rest repeats nothing and keeps the order, whatever is appended meanwhile; what history has rotated past by
    /// then is left out. What other programs wrote is not parted.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn history_part(
        &self,
        job: &JobId,
        window: Window,
        bytes: usize,
    ) -> Result<HistoryPart, StoreError> {
        each!(self, store => store.history_part(job, window, bytes).await)
    }

    /// The newest entry of each job that has one, in the order asked for.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn latest(&self, jobs: &[JobId]) -> Result<Vec<Entry>, StoreError> {
        each!(self, store => store.latest(jobs).await)
    }

    /// As [`Store::latest`], but of the first jobs whose entries have no more than so many bytes together, one at least;
    /// and how many jobs these are.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn latest_part(&self, jobs: &[JobId], bytes: usize) -> Result<(Vec<Entry>, usize), StoreError> {
        each!(self, store => store.latest_part(jobs, bytes).await)
    }

    /// The newest entry of a job, and how far its history reaches, by one question. `since` is the number that a
    /// resume asks for, 0 where there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn head(&self, job: &JobId, since: Seq) -> Result<(Option<Entry>, Option<Bounds>), StoreError> {
        each!(self, store => store.head(job, since).await)
    }

    /// What a room's log holds after a place, in its order, `limit` entries at the most. In a job's room that is the
    /// job's history: what follows on a number there follows it, however far it jumps; where history has rotated past
    /// the place, one [`Content::Lost`] comes first. In a shared room an entry whose event is no longer in its job's
    /// history is [`Content::Lost`] in its place.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn log(&self, room: &Room, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        each!(self, store => store.log(room, after, limit).await)
    }

    /// How far the log of a shared room reaches.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn log_range(&self, room: &Room) -> Result<LogRange, StoreError> {
        each!(self, store => store.log_range(room).await)
    }

    /// How many events [`Store::log`] has of a shared room after a place and up to another one.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn count(&self, room: &Room, after: Position, until: Position) -> Result<usize, StoreError> {
        each!(self, store => store.count(room, after, until).await)
    }

    /// The jobs of a room that had an event at `since` or later, most recent first. For a job's own room: the
    /// job itself, if it has history.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn active(
        &self,
        room: &Room,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<JobId>, StoreError> {
        each!(self, store => store.active(room, since, limit).await)
    }

    /// Makes the feed cover a room, and returns once it does for certain. Each call counts, and is undone by
    /// one [`Store::uncover`], also when it failed or was cancelled.
    ///
    /// # Errors
    /// [`StoreError`] when the cover is not confirmed in time.
    pub async fn cover(&self, room: &Room) -> Result<(), StoreError> {
        match self {
            Store::Embedded(_) => Ok(()),
            Store::Redis(store) => store.cover(room).await,
        }
    }

    /// Takes back one [`Store::cover`].
    pub fn uncover(&self, room: &Room) {
        match self {
            Store::Embedded(_) => {}
            Store::Redis(store) => store.uncover(room),
        }
    }

    /// How many rooms the feed covers now.
    pub fn covered_rooms(&self) -> Option<usize> {
        match self {
            Store::Embedded(_) => None,
            Store::Redis(store) => Some(store.covered_rooms()),
        }
    }

    /// Sends a notice to the feeds of all nodes.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn notify(&self, notice: &Notice) -> Result<(), StoreError> {
        each!(self, store => store.notify(notice).await)
    }

    /// Whether other nodes use it as well.
    pub fn is_shared(&self) -> bool {
        matches!(self, Store::Redis(_))
    }

    /// Keeps a revocation for a year after its time. Of two for a subject the later one counts. Says whether it is kept:
    /// there may be [`MAX_REVOCATIONS`].
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn revoke(&self, revocation: &Revocation) -> Result<bool, StoreError> {
        each!(self, store => store.revoke(revocation).await)
    }

    /// All revocations that are kept, and their version; `None` while that is the one that is known already.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn revocations(
        &self,
        known: Option<u64>,
    ) -> Result<Option<(u64, Vec<Revocation>)>, StoreError> {
        each!(self, store => store.revocations(known).await)
    }

    /// What this node knows of its own clients and rooms. Changes there reach the store by themselves.
    pub fn directory(&self) -> &Directory {
        each!(self, store => store.directory())
    }

    /// Waits until all changes made to the directory so far are visible to all nodes.
    ///
    /// # Errors
    /// [`StoreError`] when that takes too long.
    pub async fn publish_directory(&self) -> Result<(), StoreError> {
        match self {
            Store::Embedded(_) => Ok(()),
            Store::Redis(store) => store.publish_directory().await,
        }
    }

    /// The connected clients of all nodes, by id, after the one named.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn clients(&self, after: Option<&ClientId>, limit: usize) -> Result<ClientsPage, StoreError> {
        each!(self, store => store.clients(after, limit).await)
    }

    /// One connected client of whatever node.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn client(&self, id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
        each!(self, store => store.client(id).await)
    }

    /// How many sessions of all nodes are in a room.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn sessions_in(&self, room: &Room) -> Result<usize, StoreError> {
        each!(self, store => store.sessions_in(room).await)
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        each!(self, store => store.ping().await)
    }
}
