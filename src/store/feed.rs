//! The queue between a store and this node's fan-out.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{event::JobEvent, notice::Notice, position::Positions, room::Room};

/// How many items wait where the store waits for place: then so do publishers.
const PATIENT: usize = 4096;

/// How many items, and how many bytes of them, wait where the store cannot wait, so that a burst is no interruption.
const IMPATIENT: usize = 65_536;
const IMPATIENT_BYTES: usize = 64 << 20;

/// What the feed brings. Of each covered room it brings every event once at least, in the order of the room's log, but
/// for what is lost between an interruption of the room and its restoration.
#[derive(Debug)]
pub enum FeedItem {
    /// An event for covered rooms.
    Event(Arrival),
    /// A notice for a covered room, or for everyone.
    Notice(Box<Notice>),
    /// From now on events of these rooms may be missing.
    Interrupted(Rooms),
    /// From now on nothing of these rooms is missing: what was accepted since the interruption has to be fetched.
    Restored(Rooms),
}

/// An event, and where it stands in the logs of the rooms that it is brought for.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event.
    pub event: JobEvent,
    /// Where it stands.
    pub positions: Positions,
}

/// Covered rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rooms {
    /// All of them.
    All,
    /// Some of them.
    Some(Vec<Room>),
}

impl FeedItem {
    /// The bytes of its JSON.
    pub fn size(&self) -> usize {
        match self {
            FeedItem::Event(arrival) => arrival.event.json().get().len(),
            FeedItem::Notice(notice) => notice.data.get().len(),
            FeedItem::Interrupted(_) | FeedItem::Restored(_) => 0,
        }
    }
}

/// The receiving end of a store's feed.
#[derive(Debug)]
pub struct Feed {
    items: mpsc::Receiver<FeedItem>,
    waiting: Arc<AtomicUsize>,
}

/// The sending end. Cloning gives another handle on the same one.
#[derive(Debug, Clone)]
pub struct FeedSender {
    items: mpsc::Sender<FeedItem>,
    /// How many bytes wait.
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// Places that are kept for items.
#[derive(Debug)]
pub struct Places<'a> {
    places: mpsc::PermitIterator<'a, FeedItem>,
    waiting: &'a AtomicUsize,
}

impl Places<'_> {
    /// Sends at once. There has to be a place.
    pub fn send(&mut self, item: FeedItem) {
        if let Some(place) = self.places.next() {
            self.waiting.fetch_add(item.size(), Ordering::Relaxed);
            place.send(item);
        }
    }
}

/// A feed for a store that can wait for place.
pub fn waiting() -> (FeedSender, Feed) {
    feed(PATIENT, usize::MAX)
}

/// A feed for a store that cannot.
pub fn refusing() -> (FeedSender, Feed) {
    feed(IMPATIENT, IMPATIENT_BYTES)
}

fn feed(items: usize, most: usize) -> (FeedSender, Feed) {
    let (sender, receiver) = mpsc::channel(items);
    let waiting = Arc::new(AtomicUsize::new(0));
    (FeedSender { items: sender, waiting: waiting.clone(), most }, Feed { items: receiver, waiting })
}

impl Feed {
    /// The next item; `None` once the store is gone.
    pub async fn recv(&mut self) -> Option<FeedItem> {
        let item = self.items.recv().await;
        self.taken(item.as_slice());
        item
    }

    /// Waits for items and appends up to `limit` of them; 0 once the store is gone.
    pub async fn recv_many(&mut self, items: &mut Vec<FeedItem>, limit: usize) -> usize {
        let count = self.items.recv_many(items, limit).await;
        self.taken(&items[items.len() - count..]);
        count
    }

    fn taken(&self, items: &[FeedItem]) {
        self.waiting.fetch_sub(items.iter().map(FeedItem::size).sum(), Ordering::Relaxed);
    }
}

/// The item was not sent.
#[derive(Debug)]
pub enum Unsent {
    /// There is no place for it.
    Full(FeedItem),
    /// The gateway is gone.
    Closed,
}

impl FeedSender {
    /// Sends at once, if there is place.
    pub fn try_send(&self, item: FeedItem) -> Result<(), Unsent> {
        let size = item.size();
        let before = self.waiting.fetch_add(size, Ordering::Relaxed);
        let sent = match before.saturating_add(size) > self.most && before > 0 {
            true => Err(Unsent::Full(item)),
            false => self.items.try_send(item).map_err(|error| match error {
                TrySendError::Full(item) => Unsent::Full(item),
                TrySendError::Closed(_) => Unsent::Closed,
            }),
        };
        if sent.is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
        }
        sent
    }

    /// Sends, and waits for place. Says whether the gateway is there to take it.
    pub async fn send(&self, item: FeedItem) -> bool {
        let Ok(place) = self.items.reserve().await else { return false };
        // Only what is sent counts, also where whoever waits for place gives up.
        self.waiting.fetch_add(item.size(), Ordering::Relaxed);
        place.send(item);
        true
    }

    /// Waits for place for so many items; `None` where the gateway is gone.
    pub async fn reserve(&self, count: usize) -> Option<Places<'_>> {
        let places = self.items.reserve_many(count).await.ok()?;
        Some(Places { places, waiting: &self.waiting })
    }

    /// Sends, and waits for place on a thread that may block.
    pub fn blocking_send(&self, item: FeedItem) -> bool {
        match self.try_send(item) {
            Ok(()) => true,
            Err(Unsent::Closed) => false,
            Err(Unsent::Full(item)) => {
                self.waiting.fetch_add(item.size(), Ordering::Relaxed);
                self.items.blocking_send(item).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Draft, Owner},
        timestamp::Timestamp,
    };

    fn event() -> FeedItem {
        let draft = Draft::update("j".parse().unwrap(), "s", None, Owner::default()).unwrap();
        let event = draft.accept(&Owner::default(), Timestamp::default(), 1);
        FeedItem::Event(Arrival { event, positions: Positions::JOB })
    }

    #[tokio::test]
    async fn bytes_are_bounded_too_and_one_large_item_passes() {
        let (sender, mut feed) = feed(10, 1);
        sender.try_send(event()).expect("nothing waits");
        assert!(matches!(sender.try_send(event()), Err(Unsent::Full(_))));
        assert!(feed.recv().await.is_some());
        sender.try_send(event()).expect("nothing waits any more");
        let mut items = Vec::new();
        assert_eq!(feed.recv_many(&mut items, 5).await, 1);
        assert_eq!(sender.waiting.load(Ordering::Relaxed), 0);
        drop(feed);
        assert!(matches!(sender.try_send(event()), Err(Unsent::Closed)));
    }
}
