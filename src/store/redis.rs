//! The store that gateways share: one Redis server, or a cluster of them.

mod directory;
mod feed;
mod keys;
mod log;
mod message;
mod owners;
mod publish;
mod refusals;
mod revocations;

use std::sync::Arc;

use self::{directory::SharedDirectory, feed::FeedListener, keys::Keys, owners::Owners, refusals::Refusals};
use super::{
    ALL_JOBS_ENTRIES, ClientRecord, ClientsPage, Directory, FeedSender, HistoryOptions, IDEMPOTENCY_LIFETIME,
    MAX_ACTIVE_JOBS, OpenError, StoreError,
};
use crate::{
    id::ClientId,
    notice::{Audience, Notice},
    redis::{Client, Command, Error, RedisOptions, Script, Subscriber, Value},
    room::Room,
    tasks::Tasks,
};

/// What the fuzz targets of this repository use besides.
#[doc(hidden)]
pub mod internals {
    pub use super::{
        directory::record,
        log::{LARGEST, entry, reference},
        message::{arrival, position, read as read_message},
        publish::{Stored, rooms_of},
    };
}

/// How many commands go out together.
const PIPELINE: usize = 256;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        StoreError(error.to_string())
    }
}

/// The Redis store.
#[derive(Debug)]
pub struct Redis {
    client: Client,
    keys: Keys,
    history: HistoryOptions,
    subscriber: Arc<Subscriber>,
    shared: Arc<SharedDirectory>,
    owners: Owners,
    refusals: Refusals,
    publish: Script,
    room_log: Script,
    history_after: Script,
    history_newest: Script,
    revoke: Script,
}

impl Redis {
    /// Connects to the server, and starts the feed.
    pub async fn open(
        options: &RedisOptions,
        history: HistoryOptions,
        node: &str,
        feed: FeedSender,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        let client = Client::open(options).await.map_err(|error| OpenError(error.to_string()))?;
        let keys = Keys::new(&options.key_prefix);
        let subscriber = Arc::new(Subscriber::new(client.clone()));
        subscriber.want(&keys.broadcast_channel());
        let shared = Arc::new(SharedDirectory::new(client.clone(), keys.clone(), node));
        let followed = client.clone();
        tasks.spawn_until_stop("redis-topology", async move { followed.follow().await });
        tasks.spawn_until_stop("feed", subscriber.clone().run(FeedListener::new(keys.clone(), feed)));
        tasks.spawn("directory", follow(shared.clone(), tasks.clone()));
        let (constants, room) = (constants(&history), include_str!("redis/room.lua"));
        let history_lua = include_str!("redis/history.lua");
        Ok(Arc::new(Self {
            client,
            keys,
            history,
            subscriber,
            shared,
            owners: Owners::default(),
            refusals: Refusals::default(),
            publish: Script::new(&[&constants, room, include_str!("redis/publish.lua")]),
            room_log: Script::new(&[&constants, room, include_str!("redis/room_log.lua")]),
            history_after: Script::new(&[history_lua, include_str!("redis/history_after.lua")]),
            history_newest: Script::new(&[history_lua, include_str!("redis/history_newest.lua")]),
            revoke: Script::new(&[include_str!("redis/revoke.lua")]),
        }))
    }

    pub async fn cover(&self, room: &Room) -> Result<(), StoreError> {
        Ok(self.subscriber.subscribe(&self.keys.channel(room)).await?)
    }

    pub fn uncover(&self, room: &Room) {
        self.subscriber.unsubscribe(&self.keys.channel(room));
    }

    pub fn covered_rooms(&self) -> usize {
        // One of the channels is that of broadcasts.
        self.subscriber.channels().saturating_sub(1)
    }

    pub async fn notify(&self, notice: &Notice) -> Result<(), StoreError> {
        let channel = match &notice.audience {
            Audience::Everyone => self.keys.broadcast_channel(),
            Audience::User(user) => self.keys.channel(&Room::User(user.clone())),
        };
        let text = serde_json::to_string(notice).map_err(|error| StoreError(error.to_string()))?;
        let publish = Command::on("SPUBLISH", &channel).arg(text).once();
        Ok(self.client.ask::<Value>(publish).await.map(|_| ())?)
    }

    pub fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    pub async fn publish_directory(&self) -> Result<(), StoreError> {
        self.shared.published().await
    }

    pub async fn clients(&self, after: Option<&ClientId>, limit: usize) -> Result<ClientsPage, StoreError> {
        self.shared.page(after, limit).await
    }

    pub async fn client(&self, id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
        self.shared.client(id).await
    }

    pub async fn sessions_in(&self, room: &Room) -> Result<usize, StoreError> {
        self.shared.sessions_in(room).await
    }

    /// Whether every server answers and takes writes.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.client.ping(&self.keys.probes()).await?;
        self.refusals.check()
    }
}

/// What is the same for all calls of scripts that publish, as they want to be told.
fn constants(history: &HistoryOptions) -> String {
    let HistoryOptions { max_events, retention, room_entries, max_jobs: _ } = history;
    format!(
        "local MAX_EVENTS, RETENTION, KEY_LIFETIME, MAX_JOBS = {max_events}, {}, {}, {MAX_ACTIVE_JOBS}
        local ROOM_ENTRIES, ALL_JOBS_ENTRIES = {room_entries}, {}",
        retention.as_millis(),
        IDEMPOTENCY_LIFETIME.as_millis(),
        room_entries.saturating_mul(ALL_JOBS_ENTRIES),
    )
}

/// Follows the directory until the stop, and then takes it back.
async fn follow(shared: Arc<SharedDirectory>, tasks: Tasks) {
    tasks.token().run_until_cancelled(shared.clone().run()).await;
    if let Err(error) = shared.withdraw().await {
        tracing::warn!(%error, "could not withdraw this node's clients; their lease ends by itself");
    }
}
