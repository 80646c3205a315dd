//! Follows rooms of a store as a gateway does: what the feed brings, and after an interruption what the log has.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use jobcast::{
    Position, Room, Seq,
    internals::{Content, Feed, FeedItem, Rooms, Store},
};

/// What a follower got of a room: the events in their order.
pub type Got = Vec<(String, Seq)>;

/// Follows rooms.
pub struct Follower {
    store: Store,
    feed: Feed,
    rooms: HashMap<Room, (Position, Got)>,
    interrupted: HashSet<Room>,
    /// The rooms that were interrupted and restored.
    pub restored: BTreeSet<Room>,
}

impl Follower {
    pub async fn new(store: Store, feed: Feed, rooms: &[Room]) -> Self {
        let mut followed = HashMap::new();
        for room in rooms {
            store.cover(room).await.unwrap();
            let edge = match room {
                Room::Job(_) => Position::START,
                shared => store.log_range(shared).await.unwrap().end,
            };
            followed.insert(room.clone(), (edge, Vec::new()));
        }
        Self { store, feed, rooms: followed, interrupted: HashSet::new(), restored: BTreeSet::new() }
    }

    pub fn got(&self, room: &Room) -> &Got {
        &self.rooms[room].1
    }

    /// Follows until all rooms together have got so much, and are not interrupted.
    pub async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !self.interrupted.is_empty() || !enough(self) {
            let item = tokio::time::timeout(Duration::from_secs(60), self.feed.recv()).await;
            let got: Vec<_> = self.rooms.values().map(|(_, got)| got.len()).collect();
            match item.unwrap_or_else(|_| panic!("the feed brings nothing; got {got:?}")).unwrap() {
                FeedItem::Event(arrival) => {
                    for (room, position) in arrival.positions.rooms(&arrival.event) {
                        let event = (arrival.event.job().to_string(), arrival.event.seq());
                        if let Some((edge, got)) = self.rooms.get_mut(&room)
                            && !self.interrupted.contains(&room)
                            && position > *edge
                        {
                            *edge = position;
                            got.push(event);
                        }
                    }
                }
                FeedItem::Interrupted(rooms) => self.interrupted.extend(named(rooms)),
                FeedItem::Restored(rooms) => {
                    for room in named(rooms) {
                        self.catch_up(&room).await;
                        self.interrupted.remove(&room);
                        self.restored.insert(room);
                    }
                }
                FeedItem::Notice(_) => {}
            }
        }
    }

    async fn catch_up(&mut self, room: &Room) {
        let Some((edge, got)) = self.rooms.get_mut(room) else { return };
        let mut failures = 0;
        loop {
            let page = match self.store.log(room, *edge, 50).await {
                Ok(page) => page,
                Err(error) => {
                    failures += 1;
                    assert!(failures < 20, "{room}: {error}");
                    continue;
                }
            };
            for entry in page.entries {
                *edge = entry.position;
                match entry.content {
                    Content::Event(event) => got.push((event.job().to_string(), event.seq())),
                    Content::Lost(gap) => panic!("{gap:?} in {room}"),
                }
            }
            if page.is_last {
                return;
            }
        }
    }
}

fn named(rooms: Rooms) -> Vec<Room> {
    match rooms {
        Rooms::Some(rooms) => rooms,
        Rooms::All => panic!("Redis names the rooms"),
    }
}
