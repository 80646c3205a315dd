//! The node's side of the feed: every event through the hub, gaps filled from history, and after an
//! interruption everything that may have been missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    CloseReason, Gateway, Outlet,
    catch_up::{self, Pages},
    hub::{Hub, Receipt, Resync},
};
use crate::{
    event::{JobEvent, Seq},
    id::JobId,
    notice::Notice,
    room::Room,
    store::{Entry, Feed, FeedItem, MAX_ACTIVE_JOBS, StoreError, Window},
    timestamp::Timestamp,
};

/// How many items are delivered before other tasks get their turn. Together they reach a connection in one
/// write; but the writers must run before an outbox of a healthy client is full.
const BATCH: usize = 64;

/// How many bytes of events at the most, if they are more than one: each session in their rooms gets its own copy.
const BATCH_BYTES: usize = 256 * 1024;

/// How many sessions are sent what was offered before other tasks get their turn.
const FLUSHES: usize = 64;

/// How many there are for each worker of the runtime at least that takes part.
const SHARE: usize = 256;

/// How many jobs of a room are brought up to date by one question to the store.
const RESYNC_CHUNK: usize = 100;

/// How often live edges of idle jobs are looked for. Longer than any margin of [`FeedItem::Restored`].
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Follows the feed until it ends.
pub async fn follow(gateway: Gateway, mut feed: Feed) {
    let (mut items, mut events) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    while feed.recv_many(&mut items, BATCH).await > 0 {
        let mut bytes = 0;
        for item in items.drain(..) {
            let size = item.size();
            if bytes > 0 && bytes + size > BATCH_BYTES {
                receive(&gateway, &mut events);
                flush(&gateway).await;
                bytes = 0;
            }
            bytes += size;
            if !matches!(item, FeedItem::Event(_)) {
                receive(&gateway, &mut events);
            }
            take(&gateway, &mut events, item);
        }
        receive(&gateway, &mut events);
        flush(&gateway).await;
    }
}

/// Takes events through the hub, those that can be delivered together in one step.
fn receive(gateway: &Gateway, events: &mut Vec<JobEvent>) {
    let mut rest = events.as_slice();
    while !rest.is_empty() {
        let (count, receipt) = gateway.hub(|hub| hub.receive(rest));
        let (taken, others) = rest.split_at(count);
        if let Some(last) = taken.last() {
            follow_up(gateway, last, receipt);
        }
        rest = others;
    }
    events.clear();
}

/// Sends what has been offered, and lets other tasks have their turn: only then what comes next is offered, so that
/// what waits for a client that reads is never more than a batch.
async fn flush(gateway: &Gateway) {
    let outlets = gateway.hub(Hub::take_unflushed);
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let helpers = (outlets.len() / SHARE).min(workers).saturating_sub(1);
    let flushing = Arc::new(Flushing { outlets, ..Flushing::default() });
    for _ in 0..helpers {
        gateway.0.tasks.spawn_until_stop("flush", flushing.clone().help());
    }
    flushing.clone().help().await;
    flushing.finish().await;
}

/// Sending, shared by those who do it: whoever comes takes what nobody has taken yet.
#[derive(Default)]
struct Flushing {
    outlets: Vec<Arc<dyn Outlet>>,
    taken: AtomicUsize,
    done: AtomicUsize,
    all_done: Notify,
}

impl Flushing {
    async fn help(self: Arc<Self>) {
        loop {
            let first = self.taken.fetch_add(FLUSHES, Ordering::Relaxed);
            let Some(rest) = self.outlets.get(first..).filter(|rest| !rest.is_empty()) else { return };
            let some = &rest[..rest.len().min(FLUSHES)];
            some.iter().for_each(|outlet| outlet.flush());
            if self.done.fetch_add(some.len(), Ordering::AcqRel) + some.len() == self.outlets.len() {
                self.all_done.notify_one();
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits for whoever is not done yet with what they took.
    async fn finish(&self) {
        while self.done.load(Ordering::Acquire) < self.outlets.len() {
            self.all_done.notified().await;
        }
    }
}

/// Takes one item, an event to those that are received together.
fn take(gateway: &Gateway, events: &mut Vec<JobEvent>, item: FeedItem) {
    match item {
        FeedItem::Event(arrival) => events.push(arrival.event),
        FeedItem::Notice(notice) => notify(gateway, &notice),
        FeedItem::Interrupted(_) => {
            gateway.0.metrics.feed_interruptions.inc();
            gateway.hub(Hub::interrupt);
        }
        FeedItem::Restored(_) => {
            let since = Timestamp::now().before(Duration::from_secs(60));
            let needed = gateway.hub(|hub| hub.restore(since));
            gateway.0.tasks.spawn_until_stop("resync", resync(gateway.clone(), needed));
        }
    }
}

async fn recover(gateway: &Gateway, event: &JobEvent, resync: Resync) {
    let receipt = gateway.hub(|hub| hub.recover(event, resync));
    follow_up(gateway, event, receipt);
    flush(gateway).await;
}

/// Does what is left to do after an event was received.
fn follow_up(gateway: &Gateway, event: &JobEvent, receipt: Receipt) {
    match receipt {
        Receipt::Done => {}
        Receipt::Gap { after } => {
            tracing::debug!(job = %event.job(), after, got = event.seq(), "filling a gap of the feed from history");
            gateway.0.tasks.spawn_until_stop("fill", fill(gateway.clone(), event.job().clone(), after));
        }
        Receipt::Reused => {
            gateway.0.metrics.numbers_reused.inc();
            tracing::warn!(
                job = %event.job(),
                seq = event.seq(),
                "a number was given twice: the store has lost an event that watchers have seen"
            );
        }
        Receipt::Unplaced { since } => {
            gateway.0.tasks.spawn_until_stop("fill", place(gateway.clone(), event.clone(), since));
        }
    }
}

/// Delivers an event of a job that is new to this node while the feed is not whole, after what came before it.
async fn place(gateway: Gateway, event: JobEvent, since: Timestamp) {
    gateway.retry(|| adopt(&gateway, event.job(), since)).await;
    // Unless its room was left meanwhile, or history has lost even this one.
    gateway.hub(|hub| hub.adopt(&event, event.seq() - 1));
    let receipt = gateway.hub(|hub| hub.place(&event));
    follow_up(&gateway, &event, receipt);
    flush(&gateway).await;
}

/// Fetches what the feed left out of a job, until its live edge meets what the feed brought.
async fn fill(gateway: Gateway, job: JobId, mut after: Seq) {
    let mut pages = Pages::default();
    loop {
        let page = pages.read(&gateway, &job, after).await;
        let receipt = gateway.hub(|hub| hub.fill(&job, &page));
        flush(&gateway).await;
        match receipt {
            Receipt::Gap { after: next } => after = next,
            _ => return,
        }
    }
}

fn notify(gateway: &Gateway, notice: &Notice) {
    for key in gateway.hub(|hub| hub.notify(notice)) {
        gateway.close(key, CloseReason::TooManyNotices);
    }
}

/// Brings every joined room up to date after an interruption of the feed, unless it is interrupted again: then there
/// will be another resync, for all of it. Only then is the node ready again.
async fn resync(gateway: Gateway, mut resync: Resync) {
    resync.newest = gateway.retry(|| newest(&gateway)).await;
    for room in gateway.hub(|hub| hub.rooms()) {
        if !gateway.hub(|hub| hub.needs(resync)) {
            return;
        }
        gateway.retry(|| resync_room(&gateway, &room, resync)).await;
    }
    gateway.hub(|hub| hub.complete(resync));
}

/// When the newest event of all was accepted.
async fn newest(gateway: &Gateway) -> Result<Timestamp, StoreError> {
    let store = &gateway.0.store;
    let jobs = store.active(&Room::AllJobs, Timestamp::default(), 1).await?;
    let newest = store.latest(&jobs).await?.into_iter().find_map(Entry::event);
    Ok(newest.map_or_else(Timestamp::default, |event| event.timestamp()))
}

async fn resync_room(gateway: &Gateway, room: &Room, resync: Resync) -> Result<(), StoreError> {
    let since = resync.since;
    let jobs = gateway.0.store.active(room, since, MAX_ACTIVE_JOBS).await?;
    if jobs.len() >= MAX_ACTIVE_JOBS {
        tracing::warn!(%room, "more jobs were active in a room during the interruption than its index can tell");
    }
    for jobs in jobs.chunks(RESYNC_CHUNK) {
        for job in jobs {
            if !gateway.hub(|hub| hub.has_edge(job)) {
                adopt(gateway, job, since).await?;
            }
        }
        let latest = gateway.0.store.latest(jobs).await?;
        for event in latest.into_iter().filter_map(Entry::event) {
            if gateway.hub(|hub| hub.is_reused(&event)) {
                // Others before it may be other events than those that watchers have seen, too.
                let all = Window::Newest(gateway.0.history_cap);
                for event in catch_up::read(gateway, event.job(), all).await? {
                    recover(gateway, &event, resync).await;
                }
            } else if gateway.hub(|hub| hub.has_edge(event.job())) {
                // What has no live edge by now had no event since then.
                recover(gateway, &event, resync).await;
            }
        }
    }
    Ok(())
}

/// Begins the live edge of a job that has none just before its first event since the interruption.
async fn adopt(gateway: &Gateway, job: &JobId, since: Timestamp) -> Result<(), StoreError> {
    let events = catch_up::read(gateway, job, Window::Newest(gateway.0.history_cap)).await?;
    let Some(place) = events.iter().position(|event| event.timestamp() >= since) else { return Ok(()) };
    let first = &events[place];
    let mut after = first.seq() - 1;
    if place == 0 {
        // History may have rotated past others of that time: from the job's very first they are told as missing.
        let bounds = gateway.0.store.head(job, None).await?.1;
        after = bounds.map_or(after, |bounds| after.min(bounds.first - 1));
    }
    gateway.hub(|hub| hub.adopt(first, after));
    Ok(())
}

/// Keeps the hub from remembering idle jobs for ever.
pub async fn sweep(gateway: Gateway) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        gateway.hub(|hub| hub.sweep());
    }
}
