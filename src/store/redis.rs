//! The store that gateways share: one Redis server, or a cluster of them.

mod call;
mod clients;
mod feed;
mod fence;
mod interest;
mod keys;
mod link;
mod node;
mod publish;
mod servers;
mod slots;

use std::sync::Arc;

use redis::Value;

pub use self::servers::RedisOptions;
use self::{
    call::{Call, Script},
    clients::SharedDirectory,
    interest::Interest,
    keys::Keys,
    link::Link,
};
use super::{
    Bounds, ClientRecord, ClientsPage, Directory, Entry, FeedSender, HistoryOptions, IDEMPOTENCY_LIFETIME,
    LogPage, LogRange, MAX_ACTIVE_JOBS, OpenError, StoreError, Window,
};
use crate::{
    event::{JobEvent, Seq},
    id::{ClientId, JobId},
    notice::{Audience, Notice},
    position::Position,
    room::Room,
    tasks::Tasks,
    timestamp::Timestamp,
};

/// How many calls go out together.
const PIPELINE: usize = 256;

/// The Redis store.
#[derive(Debug)]
pub struct Redis {
    link: Link,
    keys: Keys,
    history: HistoryOptions,
    interest: Arc<Interest>,
    shared: Arc<SharedDirectory>,
    publish: Script,
    reach: Script,
    after: Script,
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
        let link = Link::open(options).await?;
        let keys = Keys::new(&options.key_prefix);
        let interest = Arc::new(Interest::new(keys.clone()));
        let shared = Arc::new(SharedDirectory::new(link.clone(), keys.clone(), node));
        let followed = link.clone();
        tasks.spawn_until_stop("redis-slots", async move { followed.servers().follow().await });
        tasks.spawn_until_stop("feed", feed::run(link.clone(), interest.clone(), feed));
        tasks.spawn("directory", follow(shared.clone(), tasks.clone()));
        let reach = include_str!("redis/reach.lua");
        Ok(Arc::new(Self {
            link,
            keys,
            history,
            interest,
            shared,
            publish: Script::new(&[&constants(&history), reach, include_str!("redis/publish.lua")]),
            reach: Script::new(&[reach, include_str!("redis/reach_one.lua")]),
            after: Script::new(&[include_str!("redis/after.lua")]),
        }))
    }

    fn retention(&self) -> String {
        self.history.retention.as_millis().to_string()
    }

    pub async fn history(&self, job: &JobId, window: Window) -> Result<Vec<Entry>, StoreError> {
        let key = self.keys.history(job);
        let call = match window {
            Window::Newest(0) => return Ok(Vec::new()),
            Window::Newest(limit) => Call::on("LRANGE", &key).arg(0).arg(limit.cast_signed() - 1),
            Window::After { seq, limit } => self.after.call(&[&key]).arg(seq).arg(limit),
        };
        let newest_first: Vec<Vec<u8>> = self.link.ask(call).await?;
        let entries = newest_first.into_iter().rev().filter_map(entry);
        Ok(match window {
            Window::Newest(_) => entries.collect(),
            Window::After { seq, limit } => {
                let newer = |entry: &Entry| matches!(entry, Entry::Event(event) if event.seq() > seq);
                entries.filter(newer).take(limit).collect()
            }
        })
    }

    pub async fn latest(&self, jobs: &[JobId]) -> Result<Vec<Entry>, StoreError> {
        let newest = |job: &JobId| Call::on("LINDEX", &self.keys.history(job)).arg(0);
        let newest: Vec<Option<Vec<u8>>> = self.link.ask_all(jobs.iter().map(newest).collect()).await?;
        Ok(newest.into_iter().flatten().filter_map(entry).collect())
    }

    pub async fn head(
        &self,
        job: &JobId,
        since: Option<Seq>,
    ) -> Result<(Option<Entry>, Option<Bounds>), StoreError> {
        let key = self.keys.history(job);
        let calls = vec![
            Call::on("LINDEX", &key).arg(0),
            Call::on("LINDEX", &key).arg(-1),
            Call::on("HGET", &self.keys.state(job)).arg("first"),
        ];
        let mut found =
            self.link.ask_all::<Option<Vec<u8>>>(calls).await?.into_iter().map(Option::unwrap_or_default);
        let mut next = || found.next().unwrap_or_default();
        let (newest, oldest, first) = (next(), next(), number(&next()));
        let seq = |entry: Option<Entry>| entry.and_then(Entry::event).map(|event| event.seq());
        let latest = entry(newest);
        let Some(newest) = seq(latest.clone()) else { return Ok((latest, None)) };
        let oldest = match seq(entry(oldest)) {
            Some(oldest) => oldest,
            None => self.oldest_event(job).await?.unwrap_or(newest),
        };
        let first = first.unwrap_or(oldest).min(oldest);
        let holds = since.is_some_and(|since| (oldest.saturating_sub(1)..=newest).contains(&since));
        Ok((latest, Some(Bounds { first, oldest, newest, holds })))
    }

    /// The oldest event of a list that another program began.
    async fn oldest_event(&self, job: &JobId) -> Result<Option<Seq>, StoreError> {
        let entries = self.history(job, Window::Newest(self.history.max_events)).await?;
        Ok(entries.into_iter().find_map(Entry::event).map(|event: JobEvent| event.seq()))
    }

    pub async fn log(&self, _: &Room, _: Position, _: usize) -> Result<LogPage, StoreError> {
        Err(StoreError("not there yet".to_owned()))
    }

    pub async fn log_range(&self, _: &Room) -> Result<LogRange, StoreError> {
        Err(StoreError("not there yet".to_owned()))
    }

    pub async fn count(&self, _: &Room, _: Position, _: Position) -> Result<usize, StoreError> {
        Err(StoreError("not there yet".to_owned()))
    }

    pub async fn active(
        &self,
        room: &Room,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<JobId>, StoreError> {
        if let Room::Job(job) = room {
            let known: bool = self.link.ask(Call::on("EXISTS", &self.keys.history(job))).await?;
            return Ok(known.then(|| job.clone()).into_iter().collect());
        }
        let since = since.max(Timestamp::now().before(self.history.retention)).millis();
        let call = Call::on("ZREVRANGEBYSCORE", &self.keys.active(room)).arg("+inf").arg(since);
        let jobs: Vec<String> = self.link.ask(call.arg("LIMIT").arg(0).arg(limit)).await?;
        Ok(jobs.iter().filter_map(|job| job.parse().ok()).collect())
    }

    pub async fn cover(&self, room: &Room) -> Result<(), StoreError> {
        self.interest.cover(room).await
    }

    pub fn uncover(&self, room: &Room) {
        self.interest.uncover(room);
    }

    pub fn covered_rooms(&self) -> usize {
        self.interest.rooms()
    }

    pub async fn notify(&self, notice: &Notice) -> Result<(), StoreError> {
        let channel = match &notice.audience {
            Audience::Everyone => self.keys.broadcast_channel(),
            Audience::User(user) => self.keys.channel(&Room::User(user.clone())),
        };
        let text = serde_json::to_string(notice).map_err(|error| StoreError(error.to_string()))?;
        self.link.ask::<Value>(Call::on("SPUBLISH", &channel).arg(text).once()).await.map(|_| ())
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

    /// Whether every server answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.link.ping().await
    }
}

/// What is the same for all calls of `publish.lua`, as it wants to be told.
fn constants(history: &HistoryOptions) -> String {
    format!(
        "local MAX_EVENTS, RETENTION, KEY_LIFETIME, MAX_JOBS = {}, {}, {}, {MAX_ACTIVE_JOBS}",
        history.max_events,
        history.retention.as_millis(),
        IDEMPOTENCY_LIFETIME.as_millis(),
    )
}

/// Follows the directory until the stop, and then takes it back.
async fn follow(shared: Arc<SharedDirectory>, tasks: Tasks) {
    tasks.token().run_until_cancelled(shared.clone().run()).await;
    if let Err(error) = shared.withdraw().await {
        tracing::warn!(%error, "could not withdraw this node's clients; their lease ends by itself");
    }
}

fn entry(bytes: Vec<u8>) -> Option<Entry> {
    Entry::parse(String::from_utf8(bytes).ok()?)
}

fn number(bytes: &[u8]) -> Option<Seq> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
