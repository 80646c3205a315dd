//! Subscriptions to sharded channels: one connection to each server, which brings the channels that are wanted there,
//! and no others.
//!
//! These connections carry nothing but `SSUBSCRIBE`, `SUNSUBSCRIBE` and `PING`. When one is cut, or its server does
//! not hold a channel's slot any more, the listener is told which channels that one brought, everything that is wanted
//! is subscribed anew, and the listener is told of each channel that is brought again.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::Notify,
    time::{Instant, interval_at},
};

use super::{
    client::Client,
    error::Error,
    jittered,
    server::{CONNECT_TIMEOUT, Server},
    slot_map::Slot,
    subscriptions::{ConnectionId, Subscriptions},
};

/// How often a connection is asked whether it lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The first and the longest pause between two attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How soon a channel is tried again that a server did not want to bring.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How many subscriptions are on their way at once.
const BATCH: usize = 256;

/// How many restored channels are told of together.
const TOLD_TOGETHER: usize = 1024;

/// Who is told what channels bring. [`Listener::message`] and [`Listener::restored`] must not wait: where they have no
/// place left and say `false`, the connection is given up, which is the same as a cut.
pub trait Listener: Send + Sync + 'static {
    /// A message of a channel. One connection brings the messages of all of its channels in the server's order.
    fn message(&self, payload: Vec<u8>) -> bool;

    /// From now on nothing of these channels is missing, before the next message.
    fn restored(&self, channels: Vec<String>) -> bool;

    /// From now on messages of these channels may be missing.
    fn interrupted(&self, channels: Vec<String>) -> impl Future<Output = ()> + Send;
}

/// Subscriptions to channels.
#[derive(Debug)]
pub struct Subscriber {
    client: Client,
    subscriptions: Arc<Subscriptions>,
    ids: AtomicU64,
}

impl Subscriber {
    /// Wants no channel yet.
    pub fn new(client: Client) -> Self {
        Self { client, subscriptions: Arc::new(Subscriptions::new()), ids: AtomicU64::new(0) }
    }

    /// Wants a channel once more, and waits until it is brought. Each call counts, and is undone by one
    /// [`Subscriber::unsubscribe`], also when it failed or was cancelled.
    ///
    /// # Errors
    /// [`Error::NotSubscribed`] when that takes too long.
    pub async fn subscribe(&self, channel: &str) -> Result<(), Error> {
        self.subscriptions.want(channel).await
    }

    /// Wants a channel once more, without waiting.
    pub fn want(&self, channel: &str) {
        // Whether it is brought is told by its messages.
        let _ = self.subscriptions.note(channel);
    }

    /// Takes back one [`Subscriber::subscribe`].
    pub fn unsubscribe(&self, channel: &str) {
        self.subscriptions.unwant(channel);
    }

    /// How many channels are wanted, or were a moment ago.
    pub fn channels(&self) -> usize {
        self.subscriptions.count()
    }

    /// Brings what is wanted to a listener, until it is dropped.
    pub async fn run(self: Arc<Self>, listener: impl Listener) {
        let listener = Arc::new(listener);
        let mut slots = self.client.topology().changes();
        let mut running: Vec<Arc<Server>> = Vec::new();
        let mut connections = FuturesUnordered::new();
        loop {
            let servers = slots.borrow_and_update().servers();
            for server in servers {
                if !running.iter().any(|other| Arc::ptr_eq(other, &server)) {
                    running.push(server.clone());
                    connections.push(self.keep(server, listener.clone()));
                }
            }
            tokio::select! {
                // The topology lives as long as this does.
                _ = slots.changed() => {}
                Some(ended) = connections.next() => running.retain(|server| !Arc::ptr_eq(server, &ended)),
                () = tokio::time::sleep(PING_INTERVAL) => {
                    self.subscriptions.forget_idle(None);
                }
            }
        }
    }

    /// Keeps a connection to a server for as long as it holds any slot.
    async fn keep(&self, server: Arc<Server>, listener: Arc<impl Listener>) -> Arc<Server> {
        while let Some(connection) = self.open(&server, &listener).await {
            let reason = self.attend(&connection, &server).await;
            connection.pushes.break_off();
            let id = connection.pushes.connection;
            let channels = self.subscriptions.end(id);
            tracing::warn!(
                reason,
                server = server.address(),
                channels = channels.len(),
                "subscriptions are interrupted"
            );
            // Told before anybody brings them again.
            listener.interrupted(channels).await;
            self.subscriptions.lose(id);
        }
        server
    }

    /// Connects, however long that takes, unless the server holds no slot any more.
    async fn open<L: Listener>(&self, server: &Arc<Server>, listener: &Arc<L>) -> Option<Connection<L>> {
        let mut pause = PAUSES.0;
        while self.client.topology().slots().holds_any(server) {
            let pushes = Arc::new(Pushes {
                connection: self.ids.fetch_add(1, Ordering::Relaxed),
                subscriptions: self.subscriptions.clone(),
                listener: listener.clone(),
                restored: Mutex::default(),
                broken: AtomicBool::new(false),
                breaking: Notify::new(),
            });
            self.subscriptions.begin(pushes.connection);
            let receiving = pushes.clone();
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(PING_INTERVAL))
                .set_push_sender(move |push: PushInfo| {
                    receiving.receive(push);
                    Ok::<(), Error>(())
                });
            match server.client().get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => {
                    let connection = Connection { connection, pushes: pushes.clone() };
                    // A server that is still loading its data confirms channels, and then answers nothing else.
                    match connection.ping().await {
                        Ok(()) => return Some(connection),
                        Err(error) => self.note_unreachable(server, &pushes, &error),
                    }
                }
                Err(error) => self.note_unreachable(server, &pushes, &error),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        None
    }

    fn note_unreachable<L: Listener>(&self, server: &Server, pushes: &Pushes<L>, error: &RedisError) {
        self.subscriptions.end(pushes.connection);
        tracing::debug!(%error, server = server.address(), "cannot connect for subscriptions");
        self.client.topology().doubt();
    }

    /// Follows what is wanted until the connection breaks or has lost a slot, and says why it ended.
    async fn attend<L: Listener>(&self, connection: &Connection<L>, server: &Arc<Server>) -> String {
        tokio::select! {
            () = connection.pushes.broken() => "it was cut or overrun".to_owned(),
            reason = self.follow(connection, server) => reason,
        }
    }

    async fn follow<L: Listener>(&self, connection: &Connection<L>, server: &Arc<Server>) -> String {
        let (mut changes, mut slots) = (self.subscriptions.changes(), self.client.topology().changes());
        let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        loop {
            changes.mark_unchanged();
            let here = slots.borrow_and_update().clone();
            let is_here = |slot: Slot| here.holds(server, slot);
            let id = connection.pushes.connection;
            if !here.holds_any(server) || self.subscriptions.is_misplaced(id, is_here) {
                return "slots have moved to another server".to_owned();
            }
            let refused = match connection.subscribe(self.subscriptions.missing(is_here)).await {
                Ok(refused) => refused,
                Err(error) => return error.to_string(),
            };
            connection.pushes.tell_restored();
            if refused {
                self.client.topology().doubt();
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = slots.changed() => {}
                () = tokio::time::sleep(REFUSED_PAUSE), if refused => {}
                _ = ping.tick() => {
                    if let Err(error) = connection.check().await {
                        return error.to_string();
                    }
                }
            }
        }
    }
}

/// One connection, for as long as it lasts.
struct Connection<L> {
    connection: MultiplexedConnection,
    pushes: Arc<Pushes<L>>,
}

impl<L: Listener> Connection<L> {
    /// Subscribes to channels. Says whether the server did not want to bring one of them.
    async fn subscribe(&self, channels: Vec<String>) -> Result<bool, RedisError> {
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
    async fn check(&self) -> Result<(), RedisError> {
        for channel in self.pushes.subscriptions.forget_idle(Some(self.pushes.connection)) {
            self.command("SUNSUBSCRIBE", &channel).await?;
        }
        self.ping().await
    }

    async fn ping(&self) -> Result<(), RedisError> {
        redis::cmd("PING").query_async::<()>(&mut self.connection.clone()).await
    }

    async fn command(&self, name: &str, channel: &str) -> Result<(), RedisError> {
        redis::cmd(name).arg(channel).query_async::<()>(&mut self.connection.clone()).await
    }
}

/// Takes what the server pushes, on the connection's own task.
struct Pushes<L> {
    connection: ConnectionId,
    subscriptions: Arc<Subscriptions>,
    listener: Arc<L>,
    /// Channels that are brought again, of which the listener has not been told.
    restored: Mutex<Vec<String>>,
    broken: AtomicBool,
    breaking: Notify,
}

impl<L: Listener> Pushes<L> {
    fn receive(&self, push: PushInfo) {
        match push.kind {
            // After a loss nothing more may come before the listener knows of it.
            PushKind::SMessage if !self.broken.load(Ordering::Acquire) => {
                self.tell_restored();
                if let Some(Value::BulkString(payload)) = push.data.into_iter().nth(1)
                    && !self.listener.message(payload)
                {
                    self.break_off();
                }
            }
            PushKind::SSubscribe => {
                if let Some(channel) = first_text(push) {
                    self.confirm(channel);
                }
            }
            // Not asked for: the slot has moved, and who has it does not know of us. One such push also shifts the
            // library's pairing of answers by one, so nothing more is asked on this connection.
            PushKind::SUnsubscribe => {
                let mut channel = first_text(push).into_iter();
                if channel.any(|channel| self.subscriptions.is_brought_by(self.connection, &channel)) {
                    self.break_off();
                }
            }
            PushKind::Disconnection => self.break_off(),
            _ => {}
        }
    }

    fn confirm(&self, channel: String) {
        if self.subscriptions.confirm(self.connection, &channel) {
            let mut restored = self.restored();
            restored.push(channel);
            if restored.len() >= TOLD_TOGETHER {
                drop(restored);
                self.tell_restored();
            }
        }
    }

    fn restored(&self) -> MutexGuard<'_, Vec<String>> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the listener of the channels that are brought again.
    fn tell_restored(&self) {
        // Held meanwhile, so that no message overtakes.
        let mut restored = self.restored();
        if !restored.is_empty() && !self.listener.restored(std::mem::take(&mut restored)) {
            self.break_off();
        }
    }

    fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
        self.breaking.notify_waiters();
    }

    async fn broken(&self) {
        let mut breaking = pin!(self.breaking.notified());
        breaking.as_mut().enable();
        if !self.broken.load(Ordering::Acquire) {
            breaking.await;
        }
    }
}

fn first_text(push: PushInfo) -> Option<String> {
    String::from_redis_value(push.data.into_iter().next()?).ok()
}
