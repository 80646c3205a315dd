//! The node's side of the feed: every event through the hub, batch by batch, and what the hub says is due after it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::{CloseReason, Gateway, Outlet, fill, hub::Hub, notices::HeldNotice};
use crate::{
    notice::Notice,
    store::{Arrival, Feed, FeedItem},
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

/// Follows the feed until it ends.
pub async fn follow(gateway: Gateway, mut feed: Feed) {
    let (mut items, mut arrivals) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    loop {
        let count = feed.recv_many(&mut items, BATCH).await;
        if count == 0 {
            return;
        }
        let mut bytes = 0;
        for item in items.drain(..) {
            let size = item.size();
            if bytes > 0 && bytes + size > BATCH_BYTES {
                receive(&gateway, &mut arrivals);
                flush(&gateway).await;
                bytes = 0;
            }
            bytes += size;
            if !matches!(item, FeedItem::Event(_)) {
                receive(&gateway, &mut arrivals);
            }
            take(&gateway, &mut arrivals, item);
        }
        receive(&gateway, &mut arrivals);
        flush(&gateway).await;
        if count == BATCH {
            // More is waiting. (A yield wakes an idle worker, so it is not for nothing.)
            tokio::task::yield_now().await;
        }
    }
}

/// Takes arrivals through the hub, those that can be delivered together in one step.
fn receive(gateway: &Gateway, arrivals: &mut Vec<Arrival>) {
    let mut rest = arrivals.as_slice();
    while !rest.is_empty() {
        let count = gateway.hub(|hub| hub.receive(rest));
        rest = &rest[count..];
    }
    arrivals.clear();
}

/// Takes one item, an event to those that are received together.
fn take(gateway: &Gateway, arrivals: &mut Vec<Arrival>, item: FeedItem) {
    match item {
        FeedItem::Event(arrival) => arrivals.push(arrival),
        FeedItem::Notice(notice) => notify(gateway, *notice),
        FeedItem::Interrupted(rooms) => {
            gateway.0.metrics.feed_interruptions.inc();
            gateway.hub(|hub| hub.interrupt(&rooms));
        }
        FeedItem::Restored(rooms) => {
            gateway.hub(|hub| hub.restore(&rooms));
            fill::start(gateway);
        }
    }
}

fn notify(gateway: &Gateway, notice: Notice) {
    let notice = Arc::new(HeldNotice::new(gateway, notice));
    for key in gateway.hub(|hub| hub.notify(&notice)) {
        gateway.close(key, CloseReason::TooManyNotices);
    }
}

/// Sends what has been offered, and lets other tasks have their turn: only then what comes next is offered, so that
/// what waits for a client that reads is never more than a batch.
pub async fn flush(gateway: &Gateway) {
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
            if some.len() == rest.len() {
                return;
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
