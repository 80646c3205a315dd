//! The store of a single process: an ordered map on disk, one writer, group commit.

mod disk;
mod folder;
mod index;
mod journal;
mod known;
mod kv;
mod outage;
mod records;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    index::ActiveJobs,
    known::Known,
    kv::{Kv, Order},
    outage::RETRY_INTERVAL,
    records::JobRecord,
    writer::{Request, Writer},
};
use super::{
    Accepted, Append, AppendError, Bounds, ClientRecord, ClientsPage, Directory, Entry, FeedItem, FeedSender,
    HistoryOptions, LogPage, LogRange, OpenError, StoreError, Window,
};
use crate::{
    event::Seq,
    id::{ClientId, JobId},
    notice::Notice,
    position::Position,
    room::Room,
    tasks::Tasks,
    timestamp::Timestamp,
};

/// How long a publisher waits for the disk before the outcome is unknown.
const DEADLINE: Duration = Duration::from_secs(10);

/// How many appends may wait for the writer; a publisher beyond that waits for a place.
const QUEUE: usize = 1024;

/// How often jobs and keys whose time is over are removed from disk. (They are never served, however.)
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The embedded store.
#[derive(Debug)]
pub struct Embedded {
    kv: Arc<Kv>,
    active: Arc<Mutex<ActiveJobs>>,
    history: HistoryOptions,
    requests: mpsc::Sender<Request>,
    feed: FeedSender,
    /// What keeps events from being accepted.
    refusing: watch::Receiver<Option<StoreError>>,
    directory: Directory,
    tasks: Tasks,
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
        let active = ActiveJobs::read(&kv, Timestamp::now().before(history.retention));
        let active = Arc::new(Mutex::new(active.map_err(|error| OpenError(error.0))?));
        let (requests, queue) = mpsc::channel(QUEUE);
        let (refuse, refusing) = watch::channel(None);
        let writer = Writer {
            kv: kv.clone(),
            active: active.clone(),
            known: Known::default(),
            history,
            feed: feed.clone(),
            swept: None,
            clock: Timestamp::default(),
            outage: None,
            refusing: refuse,
        };
        tasks.spawn_blocking("store-writer", move || writer.run(queue));
        tasks.spawn("store-sweeper", sweep(requests.clone(), refusing.clone(), tasks.token().clone()));
        Ok(Arc::new(Self {
            kv,
            active,
            history,
            requests,
            feed,
            refusing,
            directory: Directory::default(),
            tasks: tasks.clone(),
        }))
    }

    pub async fn append(&self, appends: Vec<Append>) -> Vec<Result<Accepted, AppendError>> {
        let count = appends.len();
        let outcome = self.write(appends).await;
        outcome.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone().into())).collect())
    }

    /// Hands the writer something to do, and waits until it is done, but not for ever: a disk may hang.
    async fn write(&self, appends: Vec<Append>) -> Result<Vec<Result<Accepted, AppendError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let done = async {
            self.requests.send(Request::Append { appends, answer }).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(DEADLINE, done).await {
            Ok(outcome) => outcome.ok_or_else(|| StoreError("it is closed".to_owned())),
            Err(_) => Err(StoreError("the disk does not take what is written in time".to_owned())),
        }
    }

    /// Runs a read on a thread where it may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let expired = Timestamp::now().before(self.history.retention);
        let reader = Reader { kv: self.kv.clone(), expired };
        let lost = || Err(StoreError("a read was interrupted".to_owned()));
        self.tasks.block(move || read(&reader)).await.unwrap_or_else(lost)
    }

    pub async fn history(&self, job: &JobId, window: Window) -> Result<Vec<Entry>, StoreError> {
        let job = job.clone();
        self.read(move |reader| reader.history(&job, window)).await
    }

    pub async fn latest(&self, jobs: &[JobId]) -> Result<Vec<Entry>, StoreError> {
        let jobs = jobs.to_vec();
        let read = move |reader: &Reader| {
            let newest = |job| match reader.record(job)? {
                Some(record) => reader.newest(job, &record),
                None => Ok(None),
            };
            jobs.iter().filter_map(|job| newest(job).transpose()).collect()
        };
        self.read(read).await
    }

    pub async fn head(
        &self,
        job: &JobId,
        since: Option<Seq>,
    ) -> Result<(Option<Entry>, Option<Bounds>), StoreError> {
        let job = job.clone();
        let read = move |reader: &Reader| {
            let Some(r) = reader.record(&job)? else { return Ok((None, None)) };
            let holds = since.is_some_and(|since| (r.oldest.saturating_sub(1)..=r.seq).contains(&since));
            let bounds = Bounds { first: r.first, oldest: r.oldest, newest: r.seq, holds };
            Ok((reader.newest(&job, &r)?, Some(bounds)))
        };
        self.read(read).await
    }

    pub async fn log(&self, _: &Room, _: Position, _: usize) -> Result<LogPage, StoreError> {
        Err(StoreError("not there yet".to_owned()))
    }

    pub async fn log_range(&self, _: &Room) -> Result<LogRange, StoreError> {
        Err(StoreError("not there yet".to_owned()))
    }

    pub async fn count(&self, _: &Room, _: Position, _: Position) -> Result<usize, StoreError> {
        Err(StoreError("not there yet".to_owned()))
    }

    pub async fn active(
        &self,
        room: &Room,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<JobId>, StoreError> {
        let expired = Timestamp::now().before(self.history.retention);
        if let Room::Job(job) = room {
            let job = job.clone();
            let record = self.read(move |reader| {
                Ok(reader.record(&job)?.filter(|record| record.at >= since).map(|_| job))
            });
            return Ok(record.await?.into_iter().collect());
        }
        let since = since.max(Timestamp::from_millis(expired.millis() + 1).unwrap_or(since));
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(active.since(room, since, limit))
    }

    pub async fn notify(&self, notice: &Notice) -> Result<(), StoreError> {
        match self.feed.send(FeedItem::Notice(Box::new(notice.clone()))).await {
            true => Ok(()),
            false => Err(StoreError("it is closed".to_owned())),
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
        if self.requests.is_closed() {
            return Err(StoreError("it is closed".to_owned()));
        }
        let refusing = self.refusing.borrow().clone();
        match refusing {
            Some(error) => Err(error),
            None => {
                self.write(Vec::new()).await?;
                self.read(|reader| reader.kv.get(b"ping").map(|_| ())).await
            }
        }
    }
}

/// Asks for a sweep now and then, for an end of an outage more often, and at the stop for the writer's end.
async fn sweep(
    requests: mpsc::Sender<Request>,
    mut refusing: watch::Receiver<Option<StoreError>>,
    stopping: CancellationToken,
) {
    let mut due = async || {
        let refused = refusing.borrow_and_update().is_some();
        let (pause, request) =
            if refused { (RETRY_INTERVAL, Request::Recover) } else { (SWEEP_INTERVAL, Request::Sweep) };
        match tokio::time::timeout(pause, refusing.changed()).await {
            Ok(Ok(())) => None,
            // The writer has ended, or nothing has changed in that time.
            Ok(Err(_)) | Err(_) => Some(request),
        }
    };
    while let Some(due) = stopping.run_until_cancelled(due()).await {
        if let Some(request) = due
            && requests.send(request).await.is_err()
        {
            return;
        }
    }
    // Fails only where the writer has ended already.
    let _ = requests.send(Request::Stop).await;
}

/// Reads of one moment: what had its last event at `expired` or before is not there any more.
struct Reader {
    kv: Arc<Kv>,
    expired: Timestamp,
}

impl Reader {
    fn record(&self, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
        let bytes = self.kv.get(&records::job_key(job))?;
        let record = bytes.map(|bytes| JobRecord::read(&bytes)).transpose()?;
        Ok(record.filter(|record| record.at > self.expired))
    }

    /// The newest event of a job.
    fn newest(&self, job: &JobId, record: &JobRecord) -> Result<Option<Entry>, StoreError> {
        match self.kv.get(&records::event_key(job, record.seq))? {
            Some(json) => Ok(String::from_utf8(json).ok().and_then(Entry::parse)),
            // A newer one has taken its place since the record was read.
            None => Ok(self.history(job, Window::Newest(1))?.pop()),
        }
    }

    fn history(&self, job: &JobId, window: Window) -> Result<Vec<Entry>, StoreError> {
        let Some(record) = self.record(job)? else { return Ok(Vec::new()) };
        let (from, order, limit) = match window {
            Window::Newest(limit) => (record.oldest, Order::Descending, limit),
            Window::After { seq, limit } => {
                (record.oldest.max(seq.saturating_add(1)), Order::Ascending, limit)
            }
        };
        let range = records::event_key(job, from)..records::event_key(job, Seq::MAX);
        let found = self.kv.scan(range, order, limit)?;
        let mut entries: Vec<_> =
            found.into_iter().filter_map(|(_, json)| Entry::parse(String::from_utf8(json).ok()?)).collect();
        if order == Order::Descending {
            entries.reverse();
        }
        Ok(entries)
    }
}
