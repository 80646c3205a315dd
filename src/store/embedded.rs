//! The store of a single process: an ordered map on disk or in memory, one order of decisions, group commit.

mod changes;
mod committer;
mod decider;
mod disk;
mod index;
mod journal_check;
mod kv;
mod outage;
mod preflight;
mod reader;
mod record_cache;
#[allow(missing_docs, reason = "it is public for the fuzz targets alone")]
mod records;
mod revoke;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use self::{
    committer::Committer,
    decider::Decider,
    index::Index,
    kv::{Kv, Order},
    outage::RETRY_INTERVAL,
    reader::Reader,
    writer::{Outcomes, Request, Writer},
};
use super::{
    Append, Bounds, ClientRecord, ClientsPage, Directory, Entry, FeedItem, FeedSender, HistoryOptions,
    HistoryPart, LogPage, LogRange, MAX_REVOCATIONS, OpenError, StoreError, Window,
};
use crate::{
    access::Revocation,
    budget::Reservation,
    event::Seq,
    id::{ClientId, JobId},
    notice::Notice,
    position::Position,
    room::Room,
    tasks::Tasks,
    timestamp::Timestamp,
};

/// What the fuzz targets of this repository use besides.
#[doc(hidden)]
pub mod internals {
    pub use super::records::*;
}

/// How long a publisher waits for the disk before the outcome is unknown.
const DEADLINE: Duration = Duration::from_secs(10);

/// How many appends may wait for the writer; a publisher beyond that waits for a place.
const QUEUE: usize = 1024;

/// How many drafts are accepted at once in memory, so that there can be places for all of them on the feed.
const BATCH: usize = 1024;

/// How often what has expired is removed. (It is never served, however.)
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The embedded store.
#[derive(Debug)]
pub struct Embedded {
    kv: Arc<Kv>,
    index: Arc<Mutex<Index>>,
    history: HistoryOptions,
    writing: Writing,
    feed: FeedSender,
    /// What keeps events from being accepted.
    refusing: watch::Receiver<Option<StoreError>>,
    directory: Directory,
    tasks: Tasks,
}

/// How to reach the writer.
#[derive(Debug, Clone)]
enum Writing {
    /// On threads of its own.
    Queued(mpsc::Sender<Request>),
    /// Directly.
    Direct(Arc<Writer>),
}

impl Embedded {
    /// Opens the folder at `path`, or a store that keeps nothing on disk.
    pub fn open(
        path: Option<&Path>,
        history: HistoryOptions,
        feed: FeedSender,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        let kv = Arc::new(match path {
            Some(path) => Kv::on_disk(path)?,
            None => Kv::in_memory(),
        });
        let index = Index::read(&kv, Timestamp::now().before(history.retention));
        let index = index.map_err(|error| OpenError(error.0))?;
        let decider = Mutex::new(Decider::new(kv.clone(), history, index.jobs(), index.end()));
        let index = Arc::new(Mutex::new(index));
        let (refuse, refusing) = watch::channel(None);
        let committer =
            Committer { kv: kv.clone(), index: index.clone(), history, outage: None, refusing: refuse };
        let writer = Arc::new(Writer { decider, committer: Mutex::new(committer), feed: feed.clone() });
        let writing = match path {
            Some(_) => Writing::start(&writer, tasks),
            None => Writing::Direct(writer),
        };
        tasks.spawn("store-sweeper", look_after(writing.clone(), refusing.clone(), tasks.clone()));
        let (directory, tasks) = (Directory::default(), tasks.clone());
        Ok(Arc::new(Self { kv, index, history, writing, feed, refusing, directory, tasks }))
    }

    pub async fn append(&self, appends: Vec<Append>, held: Option<Reservation>) -> Outcomes {
        let count = appends.len();
        let outcomes = match &self.writing {
            Writing::Queued(queue) => {
                ask(
                    queue,
                    |answer| Request::Append { appends, held, answer },
                    "the disk does not take what is written",
                )
                .await
            }
            Writing::Direct(writer) => {
                let _held = held;
                self.append_directly(writer, appends).await
            }
        };
        outcomes.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone().into())).collect())
    }

    async fn append_directly(
        &self,
        writer: &Writer,
        mut appends: Vec<Append>,
    ) -> Result<Outcomes, StoreError> {
        let mut outcomes = Outcomes::new();
        while !appends.is_empty() {
            let rest = appends.split_off(appends.len().min(BATCH));
            let bytes = appends.iter().map(|append| append.draft.head().len()).sum();
            let places = tokio::time::timeout(DEADLINE, self.feed.reserve(appends.len(), bytes)).await;
            let Ok(places) = places else {
                return Err(StoreError("watchers do not take what is accepted in time".to_owned()));
            };
            outcomes.extend(writer.append(std::mem::replace(&mut appends, rest), places));
        }
        Ok(outcomes)
    }

    /// Runs a read of one moment, on a thread where it may wait for the disk, where there is one.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let expired = Timestamp::now().before(self.history.retention);
        let (kv, index) = (self.kv.clone(), self.index.clone());
        let read = move || {
            let present = index.lock().unwrap_or_else(PoisonError::into_inner).end();
            kv.view(|view| read(&Reader { view, expired, present }))
        };
        match *self.kv {
            Kv::Memory(_) => read(),
            Kv::Disk(_) => {
                let lost = || Err(StoreError("a read was interrupted".to_owned()));
                self.tasks.block(read).await.unwrap_or_else(lost)
            }
        }
    }

    pub async fn history(&self, job: &JobId, window: Window) -> Result<Vec<Entry>, StoreError> {
        Ok(self.history_part(job, window, usize::MAX).await?.entries)
    }

    pub async fn history_part(
        &self,
        job: &JobId,
        window: Window,
        bytes: usize,
    ) -> Result<HistoryPart, StoreError> {
        let job = job.clone();
        self.read(move |reader| reader.history(&job, window, bytes)).await
    }

    pub async fn latest(&self, jobs: &[JobId]) -> Result<Vec<Entry>, StoreError> {
        Ok(self.latest_part(jobs, usize::MAX).await?.0)
    }

    pub async fn latest_part(&self, jobs: &[JobId], bytes: usize) -> Result<(Vec<Entry>, usize), StoreError> {
        let jobs = jobs.to_vec();
        self.read(move |reader| reader.latest(&jobs, bytes)).await
    }

    pub async fn head(&self, job: &JobId, since: Seq) -> Result<(Option<Entry>, Option<Bounds>), StoreError> {
        let job = job.clone();
        self.read(move |reader| Ok((reader.newest(&job)?, reader.head(&job, since)?))).await
    }

    pub async fn log(&self, room: &Room, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        let room = room.clone();
        self.read(move |reader| reader.log(&room, after, limit)).await
    }

    pub async fn log_range(&self, room: &Room) -> Result<LogRange, StoreError> {
        let room = room.clone();
        self.read(move |reader| reader.range(&room)).await
    }

    pub async fn count(&self, room: &Room, after: Position, until: Position) -> Result<usize, StoreError> {
        let room = room.clone();
        self.read(move |reader| reader.count(&room, after, until)).await
    }

    pub async fn active(
        &self,
        room: &Room,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<JobId>, StoreError> {
        if let Room::AllJobs = room {
            let oldest = Timestamp::now().before(self.history.retention).after(Duration::from_millis(1));
            let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(index.since(since.max(oldest), limit));
        }
        let room = room.clone();
        self.read(move |reader| reader.active(&room, since, limit)).await
    }

    pub async fn revoke(&self, revocation: &Revocation) -> Result<bool, StoreError> {
        match &self.writing {
            Writing::Direct(writer) => writer.revoke(revocation),
            Writing::Queued(queue) => {
                let revocation = revocation.clone();
                let request = |answer| Request::Revoke { revocation, answer };
                ask(queue, request, "the disk does not take what is written").await?
            }
        }
    }

    /// Nobody else writes here, so that there is nothing new after the first time.
    pub async fn revocations(
        &self,
        known: Option<u64>,
    ) -> Result<Option<(u64, Vec<Revocation>)>, StoreError> {
        if known.is_some() {
            return Ok(None);
        }
        let found = self.kv.scan(records::revocations(), Order::Ascending, MAX_REVOCATIONS)?;
        let kept = found.iter().map(|(_, value)| records::read(value)).collect::<Result<_, _>>()?;
        Ok(Some((0, kept)))
    }

    pub async fn notify(&self, notice: &Notice) -> Result<(), StoreError> {
        match self.feed.send(FeedItem::Notice(Box::new(notice.clone()))).await {
            true => Ok(()),
            false => Err(closed()),
        }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub async fn clients(&self, after: Option<&ClientId>, limit: usize) -> Result<ClientsPage, StoreError> {
        Ok(self.directory.clients(after, limit))
    }

    pub async fn client(&self, id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
        Ok(self.directory.client(id))
    }

    pub async fn sessions_in(&self, room: &Room) -> Result<usize, StoreError> {
        Ok(self.directory.sessions_in(room))
    }

    pub async fn ping(&self) -> Result<(), StoreError> {
        let Writing::Queued(queue) = &self.writing else { return Ok(()) };
        let refusing = self.refusing.borrow().clone();
        match refusing {
            _ if queue.is_closed() => Err(closed()),
            Some(error) => Err(error),
            None => {
                let nothing = |answer| Request::Append { appends: Vec::new(), held: None, answer };
                ask(queue, nothing, "the disk does not take what is written").await?;
                self.read(|reader| reader.view.get(b"ping").map(|_| ())).await
            }
        }
    }
}

impl Writing {
    /// Starts the writer's threads.
    fn start(writer: &Arc<Writer>, tasks: &Tasks) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..2 {
            let (writer, queue) = (writer.clone(), queue.clone());
            tasks.spawn_blocking("store-writer", move || writer.run(&queue));
        }
        Writing::Queued(requests)
    }

    /// Removes all that has expired by `now`, slice by slice.
    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        let slice = async || match self {
            Writing::Direct(writer) => Ok(writer.sweep(now)),
            Writing::Queued(queue) => {
                ask(queue, |answer| Request::Sweep { now, answer }, "the disk is busy").await
            }
        };
        while slice().await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Asks the writer's threads for something, and waits until it is done, but not for ever: a disk may hang.
async fn ask<T>(
    queue: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
    late: &str,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    let done = async {
        queue.send(request(answer)).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(DEADLINE, done).await {
        Ok(outcome) => outcome.ok_or_else(closed),
        Err(_) => Err(StoreError(format!("{late} in time"))),
    }
}

fn closed() -> StoreError {
    StoreError("it is closed".to_owned())
}

/// Removes what has expired now and then, asks for an end of an outage more often, and at the stop for the writer's end.
async fn look_after(writing: Writing, mut refusing: watch::Receiver<Option<StoreError>>, tasks: Tasks) {
    let mut round = async || {
        let refused = refusing.borrow_and_update().is_some();
        let pause = if refused { RETRY_INTERVAL } else { SWEEP_INTERVAL };
        if let Ok(Ok(())) = tokio::time::timeout(pause, refusing.changed()).await {
            return;
        }
        match &writing {
            Writing::Queued(queue) if refused => {
                let _ = queue.send(Request::Recover).await;
            }
            writing => {
                if let Err(error) = writing.sweep(Timestamp::now()).await {
                    tracing::warn!(%error, "could not remove what has expired");
                }
            }
        }
    };
    while tasks.token().run_until_cancelled(round()).await.is_some() {}
    if let Writing::Queued(queue) = writing {
        // Fails only where the writer has ended already.
        let _ = queue.send(Request::Stop).await;
    }
}
