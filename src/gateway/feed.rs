//! The node's side of the feed: every event through the hub, gaps filled from history, and after an
//! interruption everything that may have been missed.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    CloseReason, Delivery, Gateway,
    catch_up::{self, Pages},
    hub::Receipt,
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

/// How often live edges of idle jobs are looked for. Longer than any margin of [`FeedItem::Restored`].
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Follows the feed until it ends.
pub async fn follow(gateway: Gateway, mut feed: Feed) {
    let mut items = Vec::with_capacity(BATCH);
    while feed.recv_many(&mut items, BATCH).await > 0 {
        let mut bytes = 0;
        for item in items.drain(..) {
            let size = size(&item);
            if bytes > 0 && bytes + size > BATCH_BYTES {
                tokio::task::yield_now().await;
                bytes = 0;
            }
            bytes += size;
            take(&gateway, item);
        }
        tokio::task::yield_now().await;
    }
}

fn size(item: &FeedItem) -> usize {
    match item {
        FeedItem::Event(event) => Delivery::Event(event).size(),
        FeedItem::Notice(notice) => Delivery::Notice(notice).size(),
        FeedItem::Interrupted | FeedItem::Restored { .. } => 0,
    }
}

fn take(gateway: &Gateway, item: FeedItem) {
    match item {
        FeedItem::Event(event) => receive(gateway, &event),
        FeedItem::Notice(notice) => notify(gateway, &notice),
        FeedItem::Interrupted => {
            gateway.0.metrics.feed_interruptions.inc();
            gateway.0.feed_interrupted.store(true, Ordering::Release);
        }
        FeedItem::Restored { since } => {
            gateway.0.tasks.spawn_until_stop("resync", resync(gateway.clone(), since));
        }
    }
}

fn receive(gateway: &Gateway, event: &JobEvent) {
    if let Receipt::Gap { after } = gateway.hub(|hub| hub.receive(event)) {
        tracing::debug!(job = %event.job(), after, got = event.seq(), "filling a gap of the feed from history");
        gateway.0.tasks.spawn_until_stop("fill", fill(gateway.clone(), event.job().clone(), after));
    }
}

/// Fetches what the feed left out of a job, until its live edge meets what the feed brought.
async fn fill(gateway: Gateway, job: JobId, mut after: Seq) {
    let mut pages = Pages::default();
    loop {
        let page = pages.read(&gateway, &job, after).await;
        match gateway.hub(|hub| hub.fill(&job, &page)) {
            Receipt::Gap { after: next } => after = next,
            Receipt::Done => return,
        }
    }
}

fn notify(gateway: &Gateway, notice: &Notice) {
    for key in gateway.hub(|hub| hub.notify(notice)) {
        gateway.close(key, CloseReason::TooManyNotices);
    }
}

/// Brings every joined room up to date after an interruption of the feed. Only then is the node ready again.
async fn resync(gateway: Gateway, since: Timestamp) {
    let interruptions = gateway.0.metrics.feed_interruptions.get();
    let seen = gateway.hub(|hub| hub.live_edges());
    gateway.retry(|| gateway.0.store.raise(&seen)).await;
    for room in gateway.hub(|hub| hub.rooms()) {
        gateway.retry(|| resync_room(&gateway, &room, since)).await;
    }
    // Unless it was interrupted again: then there will be another resync.
    if gateway.0.metrics.feed_interruptions.get() == interruptions {
        gateway.0.feed_interrupted.store(false, Ordering::Release);
    }
}

async fn resync_room(gateway: &Gateway, room: &Room, since: Timestamp) -> Result<(), StoreError> {
    for job in gateway.0.store.active(room, since, MAX_ACTIVE_JOBS).await? {
        if gateway.hub(|hub| hub.live_edge(&job)).is_none() {
            adopt(gateway, &job, since).await?;
        }
        let newest = gateway.0.store.latest(std::slice::from_ref(&job)).await?;
        for event in newest.into_iter().filter_map(Entry::event) {
            receive(gateway, &event);
        }
    }
    Ok(())
}

/// Begins the live edge of a job that had none before the interruption, just before its first event since.
async fn adopt(gateway: &Gateway, job: &JobId, since: Timestamp) -> Result<(), StoreError> {
    let events = catch_up::read(gateway, job, Window::Newest(gateway.0.history_cap)).await?;
    let first = events.into_iter().find(|event| event.timestamp() >= since);
    if let Some(first) = first {
        gateway.hub(|hub| hub.adopt(&first, first.seq() - 1));
    }
    Ok(())
}

/// Keeps the hub from remembering idle jobs for ever.
pub async fn sweep(gateway: Gateway) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        gateway.hub(|hub| hub.sweep());
    }
}
