//! The store that gateways share: one Redis server, or a cluster of them.

mod call;
mod clients;
mod feed;
mod fence;
mod given;
mod interest;
mod keys;
mod link;
mod node;
mod slots;

use std::{collections::VecDeque, sync::Arc};

use indexmap::IndexMap;
use redis::Value;
use tokio::sync::mpsc;

pub use self::link::RedisOptions;
use self::{
    call::{Call, Script},
    clients::SharedDirectory,
    fence::Guard,
    given::Given,
    interest::Interest,
    keys::Keys,
    link::{Link, Reply},
};
use super::{
    Append, AppendError, Bounds, ClientRecord, ClientsPage, Directory, Entry, FeedItem, HistoryOptions,
    IDEMPOTENCY_LIFETIME, MAX_ACTIVE_JOBS, OpenError, Position, StoreError, Window,
};
use crate::{
    event::{JobEvent, Owner, Seq, rooms},
    id::{ClientId, JobId},
    notice::{Audience, Notice},
    room::Room,
    tasks::Tasks,
    timestamp::Timestamp,
};

/// How many events of one job the server accepts in one step, in which it serves nobody else.
const STEP: usize = 64;

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
    guard: Arc<Guard>,
    given: Given,
    publish: Script,
    reach: Script,
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
        let guard = Arc::new(Guard::new(link.clone(), keys.clone(), node));
        tasks.spawn("fence", keep(guard.clone(), tasks.clone()));
        tasks.spawn_until_stop("redis-slots", link.clone().follow());
        tasks.spawn_until_stop("feed", feed::run(link.clone(), interest.clone(), feed));
        tasks.spawn("directory", follow(shared.clone(), tasks.clone()));
        let reach = include_str!("redis/reach.lua");
        Ok(Arc::new(Self {
            link,
            keys,
            history,
            interest,
            shared,
            guard,
            given: Given::default(),
            publish: Script::new(&[reach, include_str!("redis/publish.lua")]),
            reach: Script::new(&[reach, include_str!("redis/reach_one.lua")]),
            raise: Script::new(&[include_str!("redis/raise.lua")]),
            after: Script::new(&[include_str!("redis/after.lua")]),
        }))
    }

    /// Accepts events: those of one job step by step in their order, those of different jobs side by side.
    pub async fn append(&self, appends: Vec<Append>) -> Vec<Result<Position, AppendError>> {
        let mut jobs: IndexMap<&JobId, VecDeque<usize>> = IndexMap::new();
        for (place, append) in appends.iter().enumerate() {
            jobs.entry(append.draft.job()).or_default().push_back(place);
        }
        let mut waiting: Vec<VecDeque<usize>> = jobs.into_values().collect();
        let mut outcomes: Vec<Option<Result<Position, AppendError>>> = appends.iter().map(|_| None).collect();
        while !waiting.is_empty() {
            let next = |places: &mut VecDeque<usize>| places.drain(..places.len().min(STEP)).collect();
            let steps: Vec<Vec<usize>> = waiting.iter_mut().map(next).collect();
            let answers = self.accept(&appends, &steps).await;
            for ((places, rest), answer) in steps.iter().zip(&mut waiting).zip(answers) {
                match answer {
                    Ok(answers) => {
                        places
                            .iter()
                            .zip(answers)
                            .for_each(|(place, answer)| outcomes[*place] = Some(answer));
                    }
                    // What comes after must not overtake it.
                    Err(error) => places.iter().copied().chain(rest.drain(..)).for_each(|place| {
                        outcomes[place] = Some(Err(error.clone().into()));
                    }),
                }
            }
            waiting.retain(|places| !places.is_empty());
        }
        let unanswered = || Err(StoreError("redis: unexpected answer".to_owned()).into());
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
    }

    /// Accepts one step of each of several jobs.
    async fn accept(
        &self,
        appends: &[Append],
        steps: &[Vec<usize>],
    ) -> Vec<Result<Vec<Result<Position, AppendError>>, StoreError>> {
        let drafts = |places: &Vec<usize>| places.iter().map(|place| &appends[*place]).collect::<Vec<_>>();
        let steps: Vec<Vec<&Append>> = steps.iter().map(drafts).collect();
        let mut answers = Vec::with_capacity(steps.len());
        for steps in steps.chunks(PIPELINE) {
            let calls = steps.iter().map(|step| self.publish_call(step)).collect();
            for (step, reply) in steps.iter().zip(self.link.send(calls).await) {
                answers.push(reply.and_then(|reply| self.answers(step, reply)));
            }
        }
        if self.link.is_cluster() {
            let stored = steps.iter().zip(&answers);
            let stored: Vec<_> =
                stored.filter_map(|(step, answers)| Some((step, answers.as_ref().ok()?))).collect();
            if let Err(error) = self.reach_rooms(&stored).await {
                // They are in history, but not everybody has been told: only a repetition makes that good.
                answers
                    .iter_mut()
                    .filter(|answers| answers.is_ok())
                    .for_each(|answers| *answers = Err(error.clone()));
            }
        }
        let outcomes = |answers: Vec<Answer>| answers.into_iter().map(Answer::outcome).collect();
        answers.into_iter().map(|answers| answers.map(outcomes)).collect()
    }

    /// The answers to one step, unless too few replicas have them yet.
    fn answers(&self, step: &[&Append], reply: Reply) -> Result<Vec<Answer>, StoreError> {
        let answers = Answer::read_all(reply.value, step.len())?;
        for (append, answer) in step.iter().zip(&answers) {
            if let Answer::Accepted(position, _) = answer {
                // Also where it does not count: watchers may have seen it.
                self.given.note(append.draft.job(), position.seq);
            }
        }
        if reply.replicated { Ok(answers) } else { Err(link::not_replicated()) }
    }

    /// Tells the rooms other than the jobs' own, whose indexes and channels are in other slots of a cluster.
    async fn reach_rooms(&self, stored: &[(&Vec<&Append>, &Vec<Answer>)]) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        for (step, answers) in stored {
            let mut events: Vec<JobEvent> = Vec::with_capacity(step.len());
            for (append, answer) in step.iter().zip(*answers) {
                match answer {
                    Answer::Accepted(position, owner) if !position.repeated => {
                        events.push(append.draft.accept(owner, position.timestamp, position.seq));
                    }
                    // The first call may have ended before it got here.
                    Answer::Accepted(position, _) => {
                        let window = Window::After { seq: position.seq - 1, limit: 1 };
                        let found = self.history(append.draft.job(), window).await?.into_iter();
                        events.extend(
                            found.filter_map(Entry::event).filter(|event| event.seq() == position.seq),
                        );
                    }
                    Answer::Refused(_) => {}
                }
            }
            calls.extend(self.reach_calls(&events));
        }
        self.link.ask_all::<Value>(calls).await.map(|_| ())
    }

    /// Calls that tell the rooms of one job's events.
    fn reach_calls(&self, events: &[JobEvent]) -> Vec<Call> {
        let Some(newest) = events.last() else { return Vec::new() };
        let others = rooms(newest.job(), newest.owner()).filter(|room| !matches!(room, Room::Job(_)));
        let call = |room: Room| {
            let call = self.reach.call(&[&self.keys.active(&room)]);
            let call = call.arg(self.keys.channel(&room)).arg(newest.job().as_str());
            let call = call.arg(newest.timestamp().millis()).arg(self.retention()).arg(MAX_ACTIVE_JOBS);
            events.iter().fold(call, |call, event| call.arg(event.json().get())).durable()
        };
        others.map(call).collect()
    }

    fn publish_call(&self, step: &[&Append]) -> Call {
        let job = step[0].draft.job();
        let (history, state) = (self.keys.history(job), self.keys.state(job));
        // In a cluster the rooms have slots of their own.
        let (indexes, channels) = match self.link.is_cluster() {
            true => (String::new(), String::new()),
            false => (self.keys.indexes(), self.keys.channels()),
        };
        let above =
            step.iter().filter_map(|append| append.above).max().max(self.given.newest(job)).unwrap_or(0);
        let call = self.publish.call(&[&history, &state]).arg(&state);
        let call = call.arg(self.keys.channel(&Room::Job(job.clone()))).arg(indexes).arg(channels);
        let call = call.arg(job.as_str()).arg(MAX_ACTIVE_JOBS).arg(self.history.max_events);
        let call = call.arg(self.retention()).arg(IDEMPOTENCY_LIFETIME.as_millis().to_string()).arg(above);
        let call = step.iter().fold(call, |call, append| with_draft(call, append)).fenced().durable();
        match step.iter().all(|append| append.key.is_some()) {
            true => call,
            false => call.once(),
        }
    }

    fn retention(&self) -> String {
        self.history.retention.as_millis().to_string()
    }

    /// Sees to it that no number up to the given one is given to another event of each of these jobs, and none that
    /// publishers here were given of late.
    pub async fn raise(&self, seen: &[(JobId, Seq)]) -> Result<(), StoreError> {
        let given = self.given.all();
        for seen in [seen, &given] {
            for chunk in seen.chunks(PIPELINE) {
                let call = |(job, seq): &(JobId, Seq)| {
                    self.raise.call(&[&self.keys.state(job)]).arg(seq).arg(self.retention())
                };
                self.link.ask_all::<Value>(chunk.iter().map(call).collect()).await?;
            }
        }
        self.guard.tell().await
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

    pub async fn bounds(&self, job: &JobId) -> Result<Option<Bounds>, StoreError> {
        let key = self.keys.history(job);
        let calls = vec![
            Call::on("LINDEX", &key).arg(0),
            Call::on("LINDEX", &key).arg(-1),
            Call::on("HGET", &self.keys.state(job)).arg("first"),
            Call::on("HGET", &self.keys.state(job)).arg("broken"),
        ];
        let mut found =
            self.link.ask_all::<Option<Vec<u8>>>(calls).await?.into_iter().map(Option::unwrap_or_default);
        let mut next = || found.next().unwrap_or_default();
        let (newest, oldest, first, broken) = (next(), next(), number(&next()), number(&next()));
        let seq = |bytes: Vec<u8>| entry(bytes).and_then(Entry::event).map(|event| event.seq());
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

/// Follows the directory until the stop, and then takes it back.
async fn follow(shared: Arc<SharedDirectory>, tasks: Tasks) {
    tasks.token().run_until_cancelled(shared.clone().run()).await;
    if let Err(error) = shared.withdraw().await {
        tracing::warn!(%error, "could not withdraw this node's clients; their lease ends by itself");
    }
}

/// Keeps the fence until the stop, and then takes this gateway out.
async fn keep(guard: Arc<Guard>, tasks: Tasks) {
    tasks.token().run_until_cancelled(guard.keep()).await;
    if let Err(error) = guard.withdraw().await {
        tracing::debug!(%error, "could not withdraw this node; its lease ends by itself");
    }
}

fn entry(bytes: Vec<u8>) -> Option<Entry> {
    Entry::parse(String::from_utf8(bytes).ok()?)
}

fn number(bytes: &[u8]) -> Option<Seq> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Adds what `publish.lua` wants to know of an event.
fn with_draft(call: Call, append: &Append) -> Call {
    let Append { draft, key, .. } = append;
    let (owner, kind) = (draft.owner(), draft.kind());
    let call = call
        .arg(draft.head())
        .arg(owner.user.as_ref().map_or("", |id| id.as_str()))
        .arg(owner.tenant.as_ref().map_or("", |id| id.as_str()))
        .arg(if kind.needs_open_job() { "needs_open" } else { "" })
        .arg(u8::from(kind.is_terminal()));
    match key {
        Some(key) => call.arg(key.as_str()).arg(draft.fingerprint()),
        None => call.arg("").arg(""),
    }
}

/// What `publish.lua` answers for one event.
enum Answer {
    /// Where it stands, and whose it is.
    Accepted(Position, Owner),
    Refused(AppendError),
}

impl Answer {
    fn read_all(answer: Value, count: usize) -> Result<Vec<Self>, StoreError> {
        let answers: Vec<Vec<String>> = redis::from_redis_value(answer)?;
        let read: Option<Vec<Self>> = answers.iter().map(|answer| Self::read(answer)).collect();
        let unexpected = || StoreError(format!("redis: unexpected answer {answers:?}"));
        read.filter(|read| read.len() == count).ok_or_else(unexpected)
    }

    fn read(answer: &[String]) -> Option<Self> {
        let words: Vec<&str> = answer.iter().map(String::as_str).collect();
        Some(match words.as_slice() {
            [word @ ("ok" | "repeated"), seq, timestamp, user, tenant] => {
                let (seq, timestamp) = (seq.parse().ok()?, timestamp.parse().ok()?);
                let owner = Owner { user: user.parse().ok(), tenant: tenant.parse().ok() };
                Self::Accepted(Position { seq, timestamp, repeated: *word == "repeated" }, owner)
            }
            ["finished"] => Self::Refused(AppendError::JobFinished),
            ["owner"] => Self::Refused(AppendError::OwnerMismatch),
            ["conflict"] => Self::Refused(AppendError::IdempotencyConflict),
            _ => return None,
        })
    }

    fn outcome(self) -> Result<Position, AppendError> {
        match self {
            Self::Accepted(position, _) => Ok(position),
            Self::Refused(error) => Err(error),
        }
    }
}
