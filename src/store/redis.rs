//! The store that gateways share: one Redis server.

mod clients;
mod feed;
mod keys;
mod link;

use std::sync::Arc;

use redis::{
    AsyncCommands, ErrorKind, RedisError, RedisResult, Script, ScriptInvocation, ServerErrorKind,
    aio::ConnectionManager,
};
use tokio::sync::mpsc;

pub use self::link::RedisOptions;
use self::{clients::SharedDirectory, feed::Interest, keys::Keys, link::Link};
use super::{
    Append, AppendError, Bounds, ClientRecord, ClientsPage, Directory, Entry, FeedItem, HistoryOptions,
    IDEMPOTENCY_LIFETIME, MAX_ACTIVE_JOBS, OpenError, Position, StoreError, Window,
};
use crate::{
    event::{JobEvent, Seq},
    id::{ClientId, JobId},
    notice::{Audience, Notice},
    room::Room,
    tasks::Tasks,
    timestamp::Timestamp,
};

/// How many drafts go into one pipeline.
const PIPELINE: usize = 128;

/// The Redis store.
#[derive(Debug)]
pub struct Redis {
    link: Link,
    keys: Keys,
    history: HistoryOptions,
    interest: Arc<Interest>,
    shared: Arc<SharedDirectory>,
    publish: Script,
    raise: Script,
    after: Script,
}

impl Redis {
    /// Connects to the server, and starts the feed.
    pub async fn open(
        options: &RedisOptions,
        history: HistoryOptions,
        node: &str,
        feed: mpsc::Sender<FeedItem>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        let link = Link::open(options).await?;
        let keys = Keys::new(&options.key_prefix);
        let interest = Arc::new(Interest::new(keys.clone()));
        let shared = Arc::new(SharedDirectory::new(link.clone(), keys.clone(), node));
        tasks.spawn_until_stop("feed", feed::run(link.client().clone(), interest.clone(), feed));
        tasks.spawn("directory", follow(shared.clone(), tasks.clone()));
        let publish = Script::new(include_str!("redis/publish.lua"));
        let raise = Script::new(include_str!("redis/raise.lua"));
        let after = Script::new(include_str!("redis/after.lua"));
        Ok(Arc::new(Self { link, keys, history, interest, shared, publish, raise, after }))
    }

    pub async fn append(&self, appends: Vec<Append>) -> Vec<Result<Position, AppendError>> {
        let mut outcomes = Vec::with_capacity(appends.len());
        for chunk in appends.chunks(PIPELINE) {
            match self.append_chunk(chunk).await {
                Ok(answers) => outcomes.extend(answers),
                Err(error) => outcomes.extend(chunk.iter().map(|_| Err(error.clone().into()))),
            }
        }
        outcomes
    }

    /// Drafts in one pipeline, which Redis serves in order: so those of one job keep theirs.
    async fn append_chunk(&self, chunk: &[Append]) -> Result<Vec<Result<Position, AppendError>>, StoreError> {
        let mut answers = self.call(&chunk.iter().collect::<Vec<_>>()).await?;
        let unknown = |answer: &RedisResult<Vec<String>>| answer.as_ref().is_err_and(is_unknown_script);
        let places: Vec<usize> = (0..chunk.len()).filter(|place| unknown(&answers[*place])).collect();
        if !places.is_empty() {
            // A server that has just started knows no scripts. Nothing came of these calls: repeat them, in order.
            let mut load = redis::pipe();
            load.load_script(&self.publish).ignore();
            self.ask::<()>(&load).await?;
            let drafts: Vec<&Append> = places.iter().map(|place| &chunk[*place]).collect();
            for (place, answer) in places.into_iter().zip(self.call(&drafts).await?) {
                answers[place] = answer;
            }
        }
        let outcome = |answer: RedisResult<Vec<String>>| position(&answer.map_err(StoreError::from)?);
        Ok(answers.into_iter().map(outcome).collect())
    }

    async fn call(&self, appends: &[&Append]) -> Result<Vec<RedisResult<Vec<String>>>, StoreError> {
        let mut pipe = redis::pipe();
        for append in appends {
            pipe.invoke_script(&self.publish_call(append));
        }
        self.ask(pipe.ignore_errors()).await
    }

    /// Sees to it that no number up to the given one is given to another event of each of these jobs.
    pub async fn raise(&self, seen: &[(JobId, Seq)]) -> Result<(), StoreError> {
        let retention = self.history.retention.as_millis().to_string();
        for chunk in seen.chunks(PIPELINE) {
            let mut pipe = redis::pipe();
            pipe.load_script(&self.raise).ignore();
            for (job, seq) in chunk {
                let mut call = self.raise.key(self.keys.state(job));
                pipe.invoke_script(call.arg(seq).arg(&retention)).ignore();
            }
            self.ask::<()>(&pipe).await?;
        }
        Ok(())
    }

    fn publish_call(&self, append: &Append) -> ScriptInvocation<'_> {
        let Append { draft, at, key, above } = append;
        let (job, owner, kind) = (draft.job(), draft.owner(), draft.kind());
        let mut call = self.publish.prepare_invoke();
        call.key(self.keys.history(job)).key(self.keys.state(job));
        if let Some(key) = key {
            call.key(self.keys.idempotency(job, key));
        }
        call.arg(draft.head())
            .arg(owner.user.as_ref().map_or("", |id| id.as_str()))
            .arg(owner.tenant.as_ref().map_or("", |id| id.as_str()))
            .arg(at.to_string())
            .arg(at.millis())
            .arg(self.history.max_events)
            .arg(self.history.retention.as_millis().to_string())
            .arg(if kind.needs_open_job() { "needs_open" } else { "" })
            .arg(u8::from(kind.is_terminal()))
            .arg(self.keys.channel(&Room::Job(job.clone())))
            .arg(self.keys.prefix())
            .arg(job.as_str())
            .arg(MAX_ACTIVE_JOBS)
            .arg(above.unwrap_or(0));
        if key.is_some() {
            call.arg(draft.fingerprint()).arg(IDEMPOTENCY_LIFETIME.as_millis().to_string());
        }
        call
    }

    pub async fn history(&self, job: &JobId, window: Window) -> Result<Vec<Entry>, StoreError> {
        let (key, mut connection) = (self.keys.history(job), self.link.commands());
        let newest_first: Vec<Vec<u8>> = match window {
            Window::Newest(0) => Vec::new(),
            Window::Newest(limit) => {
                self.link.within_deadline(connection.lrange(&key, 0, limit.cast_signed() - 1)).await?
            }
            Window::After { seq, limit } => {
                let mut call = self.after.key(&key);
                call.arg(seq).arg(limit);
                self.link.within_deadline(call.invoke_async(&mut connection)).await?
            }
        };
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
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for job in jobs {
            pipe.lindex(self.keys.history(job), 0);
        }
        let newest: Vec<Option<Vec<u8>>> = self.ask(&pipe).await?;
        Ok(newest.into_iter().flatten().filter_map(entry).collect())
    }

    pub async fn bounds(&self, job: &JobId) -> Result<Option<Bounds>, StoreError> {
        let key = self.keys.history(job);
        let mut pipe = redis::pipe();
        pipe.lindex(&key, 0).lindex(&key, -1).hmget(self.keys.state(job), &["first", "broken"]);
        type Found = (Option<Vec<u8>>, Option<Vec<u8>>, (Option<Seq>, Option<Seq>));
        let (newest, oldest, (first, broken)): Found = self.ask(&pipe).await?;
        let seq =
            |bytes: Option<Vec<u8>>| bytes.and_then(entry).and_then(Entry::event).map(|event| event.seq());
        let Some(newest) = seq(newest) else { return Ok(None) };
        let oldest = match seq(oldest) {
            Some(oldest) => oldest,
            None => self.oldest_event(job).await?.unwrap_or(newest),
        };
        Ok(Some(Bounds { first: first.unwrap_or(oldest).min(oldest), oldest, newest, broken }))
    }

    /// The oldest event of a list that another program began.
    async fn oldest_event(&self, job: &JobId) -> Result<Option<Seq>, StoreError> {
        let entries = self.history(job, Window::Newest(self.history.max_events)).await?;
        Ok(entries.into_iter().find_map(Entry::event).map(|event: JobEvent| event.seq()))
    }

    pub async fn active(
        &self,
        room: &Room,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<JobId>, StoreError> {
        let mut connection = self.link.commands();
        if let Room::Job(job) = room {
            let known: bool = self.link.within_deadline(connection.exists(self.keys.history(job))).await?;
            return Ok(known.then(|| job.clone()).into_iter().collect());
        }
        let since = since.max(Timestamp::now().before(self.history.retention)).millis();
        let range =
            connection.zrevrangebyscore_limit(self.keys.active(room), "+inf", since, 0, limit.cast_signed());
        let jobs: Vec<String> = self.link.within_deadline(range).await?;
        Ok(jobs.iter().filter_map(|job| job.parse().ok()).collect())
    }

    pub async fn cover(&self, room: &Room) -> Result<(), StoreError> {
        self.interest.cover(room).await
    }

    pub fn uncover(&self, room: &Room) {
        self.interest.uncover(room);
    }

    pub fn covered_rooms(&self) -> usize {
        self.interest.covered()
    }

    pub async fn notify(&self, notice: &Notice) -> Result<(), StoreError> {
        let channel = match &notice.audience {
            Audience::Everyone => self.keys.broadcast_channel(),
            Audience::User(user) => self.keys.channel(&Room::User(user.clone())),
        };
        let text = serde_json::to_string(notice).map_err(|error| StoreError(error.to_string()))?;
        let mut connection = self.link.commands();
        let mut call = redis::cmd("SPUBLISH");
        call.arg(channel).arg(text);
        self.link.within_deadline(call.query_async::<()>(&mut connection)).await
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

    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut connection: ConnectionManager = self.link.commands();
        self.link.within_deadline(redis::cmd("PING").query_async::<()>(&mut connection)).await
    }

    async fn ask<T: redis::FromRedisValue>(&self, pipe: &redis::Pipeline) -> Result<T, StoreError> {
        let mut connection = self.link.commands();
        self.link.within_deadline(pipe.query_async(&mut connection)).await
    }
}

/// Follows the directory until the stop, and then takes it back.
async fn follow(shared: Arc<SharedDirectory>, tasks: Tasks) {
    tasks.token().run_until_cancelled(shared.clone().run()).await;
    if let Err(error) = shared.withdraw().await {
        tracing::warn!(%error, "could not withdraw this node's clients; their lease ends by itself");
    }
}

/// Whether a call failed because the server does not know the script.
fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn entry(bytes: Vec<u8>) -> Option<Entry> {
    Entry::parse(String::from_utf8(bytes).ok()?)
}

/// Reads the answer of `publish.lua`.
fn position(answer: &[String]) -> Result<Position, AppendError> {
    let unreadable = || AppendError::Unavailable(StoreError(format!("redis: unexpected answer {answer:?}")));
    match answer {
        [word, seq, timestamp] if word == "ok" || word == "repeated" => Ok(Position {
            seq: seq.parse().map_err(|_| unreadable())?,
            timestamp: timestamp.parse().map_err(|_| unreadable())?,
            repeated: word == "repeated",
        }),
        [word] if word == "finished" => Err(AppendError::JobFinished),
        [word] if word == "owner" => Err(AppendError::OwnerMismatch),
        [word] if word == "conflict" => Err(AppendError::IdempotencyConflict),
        _ => Err(unreadable()),
    }
}
