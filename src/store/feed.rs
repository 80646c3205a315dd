//! The queue between a store and this node's fan-out.

use std::sync::Arc;

use tokio::sync::{
    Semaphore, SemaphorePermit, TryAcquireError,
    mpsc::{self, error::TrySendError},
};

use crate::{event::JobEvent, notice::Notice, position::Positions, room::Room};

/// How many items, and how many bytes of them, wait where the store waits for place: then so do publishers.
const PATIENT: (usize, u32) = (4096, 16 << 20);

/// How many wait where the store cannot wait, so that a burst is no interruption.
const IMPATIENT: (usize, u32) = (65_536, 64 << 20);

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

/// An item that waits, and how many of the feed's bytes it takes.
type Waiting = (FeedItem, u32);

/// The receiving end of a store's feed.
#[derive(Debug)]
pub struct Feed {
    items: mpsc::Receiver<Waiting>,
    /// What was received together, and not taken yet.
    received: Vec<Waiting>,
    bytes: Arc<Semaphore>,
}

/// The sending end. Cloning gives another handle on the same one.
#[derive(Debug, Clone)]
pub struct FeedSender {
    items: mpsc::Sender<Waiting>,
    /// The bytes for which there is place.
    bytes: Arc<Semaphore>,
    most: u32,
}

/// Places that are kept for items.
#[derive(Debug)]
pub struct Places<'a> {
    places: mpsc::PermitIterator<'a, Waiting>,
    bytes: SemaphorePermit<'a>,
}

impl Places<'_> {
    /// Sends at once. There has to be a place.
    pub fn send(&mut self, item: FeedItem) {
        if let Some(place) = self.places.next() {
            let size = permits(item.size()).min(permits(self.bytes.num_permits()));
            if let Some(part) = self.bytes.split(size as usize) {
                part.forget();
            }
            place.send((item, size));
        }
    }
}

/// A feed for a store that can wait for place.
pub fn waiting() -> (FeedSender, Feed) {
    feed(PATIENT)
}

/// A feed for a store that cannot.
pub fn refusing() -> (FeedSender, Feed) {
    feed(IMPATIENT)
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn feed((items, most): (usize, u32)) -> (FeedSender, Feed) {
    let (sender, receiver) = mpsc::channel(items);
    let bytes = Arc::new(Semaphore::new(most as usize));
    let feed = Feed { items: receiver, received: Vec::new(), bytes: bytes.clone() };
    (FeedSender { items: sender, bytes, most }, feed)
}

impl Feed {
    /// The next item; `None` once the store is gone.
    pub async fn recv(&mut self) -> Option<FeedItem> {
        let (item, size) = self.items.recv().await?;
        self.bytes.add_permits(size as usize);
        Some(item)
    }

    /// Waits for items and appends up to `limit` of them; 0 once the store is gone.
    pub async fn recv_many(&mut self, items: &mut Vec<FeedItem>, limit: usize) -> usize {
        let count = self.items.recv_many(&mut self.received, limit).await;
        self.bytes.add_permits(self.received.iter().map(|(_, size)| *size as usize).sum());
        items.extend(self.received.drain(..).map(|(item, _)| item));
        count
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The bytes of what still waits never come back.
        self.bytes.close();
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
    /// How many of the feed's bytes so many take. What is larger than the feed has it to itself.
    fn share(&self, bytes: usize) -> u32 {
        permits(bytes).min(self.most)
    }

    /// Sends at once, if there is place.
    pub fn try_send(&self, item: FeedItem) -> Result<(), Unsent> {
        let size = self.share(item.size());
        let place = match self.bytes.try_acquire_many(size) {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits) => return Err(Unsent::Full(item)),
            Err(TryAcquireError::Closed) => return Err(Unsent::Closed),
        };
        self.items.try_send((item, size)).map_err(|error| match error {
            TrySendError::Full((item, _)) => Unsent::Full(item),
            TrySendError::Closed(_) => Unsent::Closed,
        })?;
        place.forget();
        Ok(())
    }

    /// Sends, and waits for place. Says whether the gateway is there to take it.
    pub async fn send(&self, item: FeedItem) -> bool {
        let Some(mut places) = self.reserve(1, item.size()).await else { return false };
        places.send(item);
        true
    }

    /// Waits for place for so many items of so many bytes together; `None` where the gateway is gone.
    pub async fn reserve(&self, count: usize, bytes: usize) -> Option<Places<'_>> {
        let bytes = self.bytes.acquire_many(self.share(bytes)).await.ok()?;
        let places = self.items.reserve_many(count).await.ok()?;
        Some(Places { places, bytes })
    }

    /// Sends, and waits for place on a thread that may block. Says whether the gateway is there to take it.
    pub fn blocking_send(&self, item: FeedItem) -> bool {
        match self.try_send(item) {
            Ok(()) => true,
            Err(Unsent::Closed) => false,
            Err(Unsent::Full(item)) => tokio::runtime::Handle::current().block_on(self.send(item)),
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
        let (sender, mut feed) = feed((10, 1));
        let mut items = Vec::new();
        for _ in 0..2 {
            sender.try_send(event()).expect("nothing waits");
            assert!(matches!(sender.try_send(event()), Err(Unsent::Full(_))));
            assert_eq!(feed.recv_many(&mut items, 5).await, 1);
        }
        // What is kept for events that are not accepted is there again.
        drop(sender.reserve(3, 1000).await.expect("nothing waits"));
        let mut places = sender.reserve(2, 1000).await.expect("nothing is kept any more");
        places.send(event());
        places.send(event());
        drop(places);
        assert_eq!(feed.recv_many(&mut items, 5).await, 2);
        assert_eq!(sender.bytes.available_permits(), 1);
        drop(feed);
        assert!(matches!(sender.try_send(event()), Err(Unsent::Closed)));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_gateway_that_has_gone() {
        let (sender, feed) = feed((10, 1));
        sender.try_send(event()).expect("nothing waits");
        let waiting = sender.clone();
        let waiting = tokio::spawn(async move { waiting.send(event()).await });
        tokio::task::yield_now().await;
        drop(feed);
        let sent = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
        assert!(!sent.expect("it is told").unwrap(), "there is nobody to take it");
        assert!(matches!(sender.try_send(event()), Err(Unsent::Closed)));
        assert!(sender.reserve(1, 1).await.is_none());
    }
}
