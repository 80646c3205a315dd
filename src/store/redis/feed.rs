//! The feed: one connection to each server that subscribes to the channels of the rooms this node asked for, and to
//! no others.
//!
//! These connections carry nothing but `SSUBSCRIBE`, `SUNSUBSCRIBE` and `PING`. When one is cut, or its server does
//! not hold a channel's slot any more, the feed says so, subscribes anew to everything that is wanted, and says when
//! that is done: what came between is the gateway's to fetch.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError,
    aio::MultiplexedConnection,
};
use tokio::sync::Notify;

use super::{
    interest::{Interest, LineId},
    link::{Link, jittered},
    node::{CONNECT_TIMEOUT, Node},
    slots::Slot,
};
use crate::{
    event::JobEvent,
    position::Positions,
    store::{Arrival, FeedItem, FeedSender, Rooms, StoreError},
    timestamp::Timestamp,
};

/// How often a connection is asked whether it lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The first and the longest pause between two attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How soon a channel is tried again that a server did not want to bring.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How many subscriptions are on their way at once.
const BATCH: usize = 256;

/// How far the clocks of gateways may be apart: events carry their times.
const CLOCKS_APART: Duration = Duration::from_secs(15);

/// Runs the feed until it is dropped.
pub async fn run(link: Link, interest: Arc<Interest>, feed: FeedSender) {
    let feed = Arc::new(Lines { link, interest, feed, outage: Mutex::new(None), ids: AtomicU64::new(0) });
    let mut slots = feed.link.servers().changes();
    let mut running: Vec<Arc<Node>> = Vec::new();
    let mut lines = FuturesUnordered::new();
    loop {
        let nodes = slots.borrow_and_update().nodes();
        for node in nodes {
            if !running.iter().any(|other| Arc::ptr_eq(other, &node)) {
                running.push(node.clone());
                lines.push(feed.clone().keep(node));
            }
        }
        tokio::select! {
            // The link lives as long as this does.
            _ = slots.changed() => {}
            Some(ended) = lines.next() => running.retain(|node| !Arc::ptr_eq(node, &ended)),
            () = tokio::time::sleep(PING_INTERVAL) => {
                feed.interest.forget_idle(None);
            }
        }
    }
}

/// What all connections of the feed share.
struct Lines {
    link: Link,
    interest: Arc<Interest>,
    feed: FeedSender,
    /// Since when something may be missing.
    outage: Mutex<Option<Timestamp>>,
    ids: AtomicU64,
}

impl Lines {
    /// Keeps a connection to a server for as long as it holds any slot.
    async fn keep(self: Arc<Self>, node: Arc<Node>) -> Arc<Node> {
        while let Some(mut line) = self.open(&node).await {
            let reason = self.attend(&mut line, &node).await;
            self.interest.lose(line.id);
            // Also where it brought nothing: what watchers have seen of its jobs came through others, and has to be
            // told to whatever takes its place.
            self.interrupt(line.good, &reason).await;
        }
        node
    }

    fn holds(&self, node: &Arc<Node>) -> bool {
        self.link.servers().slots().nodes().iter().any(|other| Arc::ptr_eq(other, node))
    }

    /// Connects, however long that takes, unless the server holds no slot any more.
    async fn open(&self, node: &Arc<Node>) -> Option<Line> {
        let mut pause = PAUSES.0;
        while self.holds(node) {
            let good = Timestamp::now();
            let id = self.ids.fetch_add(1, Ordering::Relaxed);
            let state = Arc::new(LineState::default());
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(PING_INTERVAL))
                .set_push_sender(receiver(id, self.feed.clone(), state.clone(), self.interest.clone()));
            match node.client().get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => return Some(Line { id, connection, state, good }),
                Err(error) => {
                    tracing::debug!(%error, server = node.address(), "the feed cannot connect");
                    self.link.servers().doubt();
                }
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        None
    }

    /// Follows the interest until the connection breaks or has lost a slot, and says why it ended.
    async fn attend(&self, line: &mut Line, node: &Arc<Node>) -> StoreError {
        let (mut changes, mut slots) = (self.interest.changes(), self.link.servers().changes());
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let state = line.state.clone();
        let work = async {
            loop {
                changes.mark_unchanged();
                let here = slots.borrow_and_update().clone();
                let is_here = |slot: Slot| here.node_of(slot).is_some_and(|holder| Arc::ptr_eq(holder, node));
                if !self.holds(node) || self.interest.is_misplaced(line.id, is_here) {
                    return StoreError("redis: slots have moved to another server".to_owned());
                }
                let refused = match line.cover(self.interest.missing(is_here)).await {
                    Ok(refused) => refused,
                    Err(error) => return error.into(),
                };
                self.restore_if_whole().await;
                if refused {
                    self.link.servers().doubt();
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = slots.changed() => {}
                    () = tokio::time::sleep(REFUSED_PAUSE), if refused => {}
                    _ = ping.tick() => {
                        if let Err(error) = line.check(&self.interest).await {
                            return error.into();
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = state.broken() => StoreError("redis: the feed's connection was cut or overrun".to_owned()),
            reason = work => reason,
        }
    }

    /// Says once that items may be missing, from a time on at which all was well.
    async fn interrupt(&self, good: Timestamp, reason: &StoreError) {
        let since = good.before(CLOCKS_APART);
        let first = {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            let first = outage.is_none();
            *outage = Some(outage.map_or(since, |earlier| earlier.min(since)));
            first
        };
        if first {
            tracing::warn!(%reason, "the feed is interrupted");
            // Nobody follows a feed that is closed.
            let _there = self.feed.send(FeedItem::Interrupted(Rooms::All)).await;
        }
    }

    /// Says that everything is covered again, if it was not.
    async fn restore_if_whole(&self) {
        if !self.interest.is_whole() {
            return;
        }
        let since = self.outage.lock().unwrap_or_else(PoisonError::into_inner).take();
        if since.is_some() {
            tracing::info!(rooms = self.interest.rooms(), "the feed is back");
            let _there = self.feed.send(FeedItem::Restored(Rooms::All)).await;
        }
    }
}

/// One connection of the feed, for as long as it lasts.
struct Line {
    id: LineId,
    connection: MultiplexedConnection,
    state: Arc<LineState>,
    /// Up to when it has certainly brought everything.
    good: Timestamp,
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
        self.changed.notify_waiters();
    }

    async fn broken(&self) {
        let mut changed = pin!(self.changed.notified());
        changed.as_mut().enable();
        if !self.broken.load(Ordering::Acquire) {
            changed.await;
        }
    }
}

impl Line {
    /// Subscribes to channels. Says whether the server did not want to bring one of them.
    async fn cover(&self, channels: Vec<String>) -> Result<bool, RedisError> {
        let mut subscribing = stream::iter(channels)
            .map(|channel| async move { self.command("SSUBSCRIBE", &channel).await })
            .buffer_unordered(BATCH);
        let mut refused = false;
        while let Some(answer) = subscribing.next().await {
            match answer {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => {
                    tracing::debug!(%error, "a channel was not subscribed");
                    refused = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    /// Lets go of what nobody needs, and asks whether the connection lives.
    async fn check(&mut self, interest: &Interest) -> Result<(), RedisError> {
        for channel in interest.forget_idle(Some(self.id)) {
            self.command("SUNSUBSCRIBE", &channel).await?;
        }
        let asked = Timestamp::now();
        redis::cmd("PING").query_async::<()>(&mut self.connection).await?;
        // All that was pushed before the answer has been received.
        self.good = asked;
        Ok(())
    }

    async fn command(&self, name: &str, channel: &str) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        redis::cmd(name).arg(channel).query_async::<()>(&mut connection).await
    }
}

/// Takes what the server pushes. It runs on the connection's own task and must not wait: where the feed has no
/// place left, the connection is given up, which is the same gap as a cut.
fn receiver(
    line: LineId,
    feed: FeedSender,
    state: Arc<LineState>,
    interest: Arc<Interest>,
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
            PushKind::SSubscribe => {
                if let Some(channel) = first_text(push) {
                    interest.confirm(line, &channel);
                }
            }
            // Not asked for: the slot has moved, and who has it does not know of us. One such push also shifts the
            // library's pairing of answers by one, so nothing more is asked on this connection.
            PushKind::SUnsubscribe
                if first_text(push).is_some_and(|channel| interest.is_brought_by(line, &channel)) =>
            {
                state.break_off();
            }
            PushKind::Disconnection => state.break_off(),
            _ => {}
        }
        Ok(())
    }
}

fn first_text(push: PushInfo) -> Option<String> {
    String::from_redis_value(push.data.into_iter().next()?).ok()
}

fn read(push: PushInfo) -> Option<FeedItem> {
    let payload = push.data.into_iter().nth(1)?;
    let text = String::from_redis_value(payload).ok()?;
    let item = match text.starts_with(r#"{"event":"#) {
        true => {
            JobEvent::parse(text).map(|event| FeedItem::Event(Arrival { event, positions: Positions::JOB }))
        }
        false => serde_json::from_str(&text).map(|notice| FeedItem::Notice(Box::new(notice))),
    };
    item.inspect_err(|error| tracing::warn!(%error, "something that nobody here wrote came over the feed"))
        .ok()
}
