//! The feed: one connection that subscribes to the channels of the rooms this node asked for, and to no others.
//!
//! It carries nothing but `SSUBSCRIBE`, `SUNSUBSCRIBE` and `PING`. When it is cut, the feed says so, subscribes
//! anew to everything that is wanted, and says when that is done: what came between is the gateway's to fetch.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use redis::{AsyncConnectionConfig, Client, FromRedisValue, PushInfo, PushKind, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use super::keys::Keys;
use crate::{
    event::JobEvent,
    room::Room,
    store::{FeedItem, StoreError},
    timestamp::Timestamp,
};

/// How long a caller waits for a channel to be confirmed.
const COVER_DEADLINE: Duration = Duration::from_secs(5);

/// How long a channel that nobody needs stays subscribed, so that coming and going costs little.
const LINGER: Duration = Duration::from_secs(5);

/// How often the connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How many subscriptions are on their way at once.
const BATCH: usize = 256;

/// How much earlier than noticed an interruption may have begun: a dead connection shows at the next ping.
const NOTICE_MARGIN: Duration = Duration::from_secs(15);

/// The rooms that this node wants covered, and which of them are.
#[derive(Debug)]
pub struct Interest {
    keys: Keys,
    rooms: Mutex<HashMap<Room, Cover>>,
    changed: Notify,
}

#[derive(Debug)]
struct Cover {
    wanted: usize,
    /// Since when nobody has wanted it.
    idle_since: Instant,
    confirmed: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Interest {
    pub fn new(keys: Keys) -> Self {
        Self { keys, rooms: Mutex::default(), changed: Notify::new() }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<Room, Cover>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a room once more, and waits until it is covered.
    pub async fn cover(&self, room: &Room) -> Result<(), StoreError> {
        let confirmation = {
            let mut rooms = self.rooms();
            let fresh =
                || Cover { wanted: 0, idle_since: Instant::now(), confirmed: false, waiting: Vec::new() };
            let cover = rooms.entry(room.clone()).or_insert_with(fresh);
            cover.wanted += 1;
            if cover.confirmed {
                return Ok(());
            }
            let (confirm, confirmation) = oneshot::channel();
            cover.waiting.retain(|waiting| !waiting.is_closed());
            cover.waiting.push(confirm);
            confirmation
        };
        self.changed.notify_one();
        match tokio::time::timeout(COVER_DEADLINE, confirmation).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError("redis: the room's channel could not be subscribed in time".to_owned())),
        }
    }

    /// Wants a room once less.
    pub fn uncover(&self, room: &Room) {
        if let Some(cover) = self.rooms().get_mut(room) {
            cover.wanted = cover.wanted.saturating_sub(1);
            cover.idle_since = Instant::now();
        }
    }

    pub fn covered(&self) -> usize {
        self.rooms().len()
    }

    fn confirm(&self, room: &Room) {
        if let Some(cover) = self.rooms().get_mut(room) {
            cover.confirmed = true;
            for waiting in cover.waiting.drain(..) {
                // Who no longer waits has uncovered, or will.
                let _ = waiting.send(());
            }
        }
    }

    fn unconfirm_all(&self) {
        for cover in self.rooms().values_mut() {
            cover.confirmed = false;
        }
    }

    fn unconfirmed(&self) -> Vec<Room> {
        let rooms = self.rooms();
        rooms.iter().filter(|(_, cover)| !cover.confirmed).map(|(room, _)| room.clone()).collect()
    }

    /// Forgets the rooms that nobody has wanted for a while.
    fn take_idle(&self) -> Vec<Room> {
        let mut rooms = self.rooms();
        let idle = rooms.extract_if(|_, cover| cover.wanted == 0 && cover.idle_since.elapsed() >= LINGER);
        idle.map(|(room, _)| room).collect()
    }
}

/// Runs the feed until it is dropped.
pub async fn run(client: Client, interest: Arc<Interest>, feed: mpsc::Sender<FeedItem>) {
    let mut interrupted: Option<Timestamp> = None;
    loop {
        let mut line = Line::open(&client, &feed).await;
        let covered = line.cover_all(&interest).await;
        if covered.is_ok()
            && let Some(since) = interrupted.take()
        {
            tracing::info!(rooms = interest.covered(), "the feed is back");
            if feed.send(FeedItem::Restored { since }).await.is_err() {
                return;
            }
        }
        let reason = match covered {
            Ok(()) => line.attend(&interest).await,
            Err(error) => error,
        };
        interest.unconfirm_all();
        if interrupted.is_none() {
            tracing::warn!(%reason, "the feed is interrupted");
            interrupted = Some(Timestamp::now().before(NOTICE_MARGIN));
            if feed.send(FeedItem::Interrupted).await.is_err() {
                return;
            }
        }
    }
}

/// One connection of the feed, for as long as it lasts.
struct Line {
    connection: MultiplexedConnection,
    state: Arc<LineState>,
}

/// What the connection's own task tells.
#[derive(Default)]
struct LineState {
    broken: AtomicBool,
    changed: Notify,
}

impl LineState {
    fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

impl Line {
    /// Connects, however long that takes.
    async fn open(client: &Client, feed: &mpsc::Sender<FeedItem>) -> Self {
        let mut pause = Duration::from_millis(50);
        loop {
            let state = Arc::new(LineState::default());
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(Duration::from_secs(2)))
                .set_response_timeout(Some(Duration::from_secs(5)))
                .set_push_sender(receiver(feed.clone(), state.clone()));
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => return Self { connection, state },
                Err(error) => tracing::debug!(%error, "the feed cannot connect"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Subscribes to all that is wanted and not yet confirmed.
    async fn cover_all(&mut self, interest: &Interest) -> Result<(), StoreError> {
        self.command("SSUBSCRIBE", interest.keys.broadcast_channel()).await?;
        self.cover_new(interest).await
    }

    async fn cover_new(&self, interest: &Interest) -> Result<(), StoreError> {
        let mut subscribing = stream::iter(interest.unconfirmed())
            .map(|room| async move {
                self.command("SSUBSCRIBE", interest.keys.channel(&room))
                    .await
                    .map(|()| interest.confirm(&room))
            })
            .buffer_unordered(BATCH);
        while let Some(confirmed) = subscribing.next().await {
            confirmed?;
        }
        Ok(())
    }

    async fn uncover_idle(&self, interest: &Interest) -> Result<(), StoreError> {
        for room in interest.take_idle() {
            self.command("SUNSUBSCRIBE", interest.keys.channel(&room)).await?;
        }
        Ok(())
    }

    async fn command(&self, name: &str, channel: String) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        Ok(redis::cmd(name).arg(channel).query_async::<()>(&mut connection).await?)
    }

    /// Follows the interest until the connection breaks, and says why it did.
    async fn attend(&mut self, interest: &Interest) -> StoreError {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        loop {
            let work = async {
                tokio::select! {
                    () = interest.changed.notified() => self.cover_new(interest).await,
                    _ = ping.tick() => {
                        self.uncover_idle(interest).await?;
                        let mut connection = self.connection.clone();
                        Ok(redis::cmd("PING").query_async::<()>(&mut connection).await?)
                    }
                }
            };
            let outcome = tokio::select! {
                () = self.state.changed.notified() => Ok(()),
                outcome = work => outcome,
            };
            if let Err(error) = outcome {
                return error;
            }
            if self.state.broken.load(Ordering::Acquire) {
                return StoreError("redis: the feed's connection was cut or overrun".to_owned());
            }
        }
    }
}

/// Takes what the server pushes. It runs on the connection's own task and must not wait: where the feed has no
/// place left, the connection is given up, which is the same gap as a cut.
fn receiver(
    feed: mpsc::Sender<FeedItem>,
    state: Arc<LineState>,
) -> impl Fn(PushInfo) -> Result<(), StoreError> + Send + Sync + 'static {
    move |push| {
        match push.kind {
            PushKind::SMessage => {
                // After a loss nothing more may come before the gateway knows of it.
                if !state.broken.load(Ordering::Acquire)
                    && let Some(item) = read(push)
                    && feed.try_send(item).is_err()
                {
                    state.break_off();
                }
            }
            PushKind::Disconnection => state.break_off(),
            _ => {}
        }
        Ok(())
    }
}

fn read(push: PushInfo) -> Option<FeedItem> {
    let payload = push.data.into_iter().nth(1)?;
    let text = String::from_redis_value(payload).ok()?;
    let item = match text.starts_with(r#"{"event":"#) {
        true => JobEvent::parse(text).map(FeedItem::Event),
        false => serde_json::from_str(&text).map(FeedItem::Notice),
    };
    item.inspect_err(|error| tracing::warn!(%error, "something that nobody here wrote came over the feed"))
        .ok()
}
