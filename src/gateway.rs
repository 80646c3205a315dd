//! The gateway: publishers on one side, watchers on the other, the store as the only truth between them.

mod answer;
mod catch_up;
mod fill;
mod hub;
mod join;
mod lifetime;
mod live;
mod live_edge;
mod notices;
mod outlet;
mod permits;
mod places;
mod publish_rate;
mod reading;
mod revoking;
mod session;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::value::RawValue;

pub(crate) use self::places::{Place, Places};
pub use self::{
    answer::Answer,
    join::{JobResume, Joined, Latest, Resumed, Subscription},
    outlet::{CloseReason, Delivery, Expiring, Offer, Outlet, Signal},
    reading::Parts,
    session::{Peer, Session},
};
use self::{
    hub::{Hub, PutOut, SessionKey, SessionStats},
    publish_rate::PublishRate,
};
use crate::{
    access::{Identity, OwnerlessJobs, Revocations},
    budget::{Budget, Purpose},
    error::{ApiError, ErrorCode},
    event::{Draft, EventKind, IdempotencyKey, Owner},
    id::{ClientId, JobId, UserId},
    memory_limit,
    notice::{Audience, Notice, NoticeName},
    room::Room,
    store::{
        Accepted, Append, AppendError, ClientRecord, ClientsPage, OpenError, Store, StoreError, StoreOptions,
    },
    tasks::Tasks,
    telemetry::{KindLabel, Metrics, ReasonLabel},
    timestamp::Timestamp,
};

/// Bounds of the gateway itself.
#[derive(Debug, Clone, Copy)]
pub struct GatewayOptions {
    /// In how many rooms one session may be.
    pub rooms_per_client: usize,
    /// How many sessions of this node one user may have, whatever their edges. Identities without a user have no such bound.
    pub connections_per_user: usize,
    /// In how many rooms all sessions of one user on this node may be together.
    pub rooms_per_user: usize,
    /// How many events one API key or one publishing user may publish on this node in a second, and at once. `None` for no
    /// bound. An application's own calls have none.
    pub publishes_per_second: Option<u32>,
    /// For how long a session may stay behind before it is closed.
    pub behind: Duration,
    /// How many bytes may wait in this process, for whatever. The default is a quarter of the memory that it may use.
    pub memory: u64,
    /// Who sees jobs that have no owner.
    pub ownerless_jobs: OwnerlessJobs,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            rooms_per_client: 100,
            connections_per_user: 100,
            rooms_per_user: 1000,
            publishes_per_second: None,
            behind: Duration::from_secs(60),
            memory: memory_limit::available() / 4,
            ownerless_jobs: OwnerlessJobs::Deny,
        }
    }
}

/// A running gateway. Cloning gives another handle on the same one.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use jobcast::{Gateway, GatewayOptions, StoreOptions};
///
/// let gateway = Gateway::open(&StoreOptions::default(), GatewayOptions::default()).await?;
/// gateway.emit_job_progress("import-7", 40.0, Some("reading rows")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    store: Store,
    hub: Mutex<Hub>,
    options: GatewayOptions,
    budget: Budget,
    history_cap: usize,
    node: Arc<str>,
    connections: AtomicU64,
    /// Bounds how many entries catch-ups and fills read at once.
    log_reads: tokio::sync::Semaphore,
    /// Bounds how many sessions join at once: each is through before the store's patience with it ends.
    joins: tokio::sync::Semaphore,
    /// Bounds how many large answers are read at once.
    answers: tokio::sync::Semaphore,
    /// Publishers of notices wait here where sessions that read have many waiting.
    notice_turns: tokio::sync::Semaphore,
    /// The sessions of each user.
    user_sessions: Arc<Places<UserId>>,
    /// The rooms that each user's sessions are in, and those that they are about to join.
    user_rooms: Arc<Places<UserId>>,
    publish_rate: Option<PublishRate>,
    lifetimes: lifetime::Lifetimes,
    revocations: RwLock<Revocations>,
    tasks: Tasks,
    metrics: Metrics,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("node", &self.0.node).finish_non_exhaustive()
    }
}

/// How many sessions join a room at the same time; the others wait for their turn.
const JOINS: usize = 256;

/// How often the bytes of a publish are there while it is under way: its draft, the event, and the store's copy.
const PUBLISH_COPIES: u64 = 3;

/// How long a session that is sent away has to take what it was sent.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The job.
    #[serde(rename = "jobId")]
    pub job: JobId,
    /// Where the event stands.
    pub seq: u64,
    /// Its time.
    pub timestamp: Timestamp,
}

/// A draft with the publisher's own name for the call, if it has one.
pub type Publication = (Draft, Option<IdempotencyKey>);

impl Gateway {
    /// Opens the store and starts to follow its feed.
    ///
    /// # Errors
    /// [`OpenError`] says which folder or server could not be opened, and why.
    pub async fn open(store: &StoreOptions, options: GatewayOptions) -> Result<Self, OpenError> {
        let tasks = Tasks::new();
        let node = node_name();
        let budget = Budget::new(options.memory);
        let (opened, feed) = Store::open(store, &node, &tasks).await?;
        let gateway = Self(Arc::new(Inner {
            store: opened,
            hub: Mutex::new(Hub::new(options.ownerless_jobs)),
            options,
            history_cap: store.history.max_events,
            node: node.into(),
            connections: AtomicU64::new(0),
            log_reads: tokio::sync::Semaphore::new(catch_up::ENTRIES_READ_AT_ONCE as usize),
            joins: tokio::sync::Semaphore::new(JOINS),
            answers: tokio::sync::Semaphore::new(answer::ANSWERS_READ_AT_ONCE),
            notice_turns: tokio::sync::Semaphore::new(1),
            user_sessions: Arc::default(),
            user_rooms: Arc::default(),
            publish_rate: options.publishes_per_second.map(PublishRate::new),
            lifetimes: lifetime::Lifetimes::default(),
            revocations: RwLock::default(),
            metrics: Metrics::new(&tasks, &budget),
            budget,
            tasks,
        }));
        let version = gateway.read_revocations().await.map_err(|error| OpenError(error.to_string()))?;
        let tasks = gateway.tasks();
        tasks.spawn_until_stop("live", live::follow(gateway.clone(), feed));
        tasks.spawn_until_stop("lifetimes", lifetime::follow(gateway.clone()));
        if gateway.0.store.is_shared() {
            tasks.spawn_until_stop("revocations", revoking::follow(gateway.clone(), version));
        }
        Ok(gateway)
    }

    /// Stops everything that the gateway runs, after what is accepted is stored; at most `patience`. Says
    /// whether all of it ended in time.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.0.tasks.stop(patience).await
    }

    /// The bytes that wait in this process.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Accepts one event.
    ///
    /// # Errors
    /// A [`ApiError`]; with [`ErrorCode::Unavailable`] the outcome is unknown, and the call may be repeated under the
    /// same key. With [`ErrorCode::LimitReached`] too much waits for the store already (`limits.memory`).
    pub async fn publish(&self, draft: Draft, key: Option<IdempotencyKey>) -> Result<Published, ApiError> {
        self.publish_as(&Identity::Everybody, draft, key).await
    }

    /// Accepts events, each on its own, those of one job in the order given. The answers are in order.
    pub async fn publish_all(&self, publications: Vec<Publication>) -> Vec<Result<Published, ApiError>> {
        let begun = Instant::now();
        let facts: Vec<_> =
            publications.iter().map(|(draft, _)| (draft.job().clone(), draft.kind())).collect();
        let bytes: usize = publications.iter().map(|(draft, _)| draft.head().len()).sum();
        let held = match self.0.budget.reserve(Purpose::Publish, PUBLISH_COPIES * bytes as u64) {
            Ok(held) => held,
            Err(error) => return facts.iter().map(|_| Err(error.into())).collect(),
        };
        let appends = publications.into_iter().map(|(draft, key)| Append { draft, key }).collect();
        let outcomes = self.0.store.append(appends, Some(held)).await;
        self.0.metrics.publish_seconds.observe(begun.elapsed().as_secs_f64());
        let published = |((job, kind), outcome): ((JobId, EventKind), Result<Accepted, _>)| {
            let position = outcome.map_err(|error| self.not_accepted(error))?;
            if !position.repeated {
                self.0.metrics.accepted.get_or_create(&KindLabel { kind: kind.name() }).inc();
            }
            Ok(Published { job, seq: position.seq, timestamp: position.timestamp })
        };
        facts.into_iter().zip(outcomes).map(published).collect()
    }

    fn not_accepted(&self, error: AppendError) -> ApiError {
        if matches!(error, AppendError::TooManyJobs(_)) {
            self.0.metrics.count_limited("jobs");
        }
        self.refused(error)
    }

    /// Counts what the store could not do, on the way to whoever asked.
    fn refused(&self, error: impl Into<ApiError>) -> ApiError {
        let refusal = error.into();
        if refusal.code == ErrorCode::Unavailable {
            self.0.metrics.store_errors.inc();
        }
        refusal
    }

    fn asked<T>(&self, answer: Result<T, StoreError>) -> Result<T, ApiError> {
        answer.map_err(|error| self.refused(error))
    }

    /// Publishes a `job:update` with a status of the publisher's own (1 to 64 characters) and any data.
    ///
    /// # Errors
    /// As [`Gateway::publish`]; also for an invalid job id, status or data.
    pub async fn emit_job_update(
        &self,
        job: &str,
        status: &str,
        data: &impl Serialize,
    ) -> Result<Published, ApiError> {
        let data = raw("data", data)?;
        self.publish(Draft::update(job_id(job)?, status, Some(&data), Owner::default())?, None).await
    }

    /// Publishes a `job:progress` from 0 to 100.
    ///
    /// # Errors
    /// As [`Gateway::publish`]; also for an invalid job id or number.
    pub async fn emit_job_progress(
        &self,
        job: &str,
        progress: f64,
        message: Option<&str>,
    ) -> Result<Published, ApiError> {
        self.publish(Draft::progress(job_id(job)?, progress, message, Owner::default())?, None).await
    }

    /// Publishes a `job:completed` with any result.
    ///
    /// # Errors
    /// As [`Gateway::publish`]; also for an invalid job id or result.
    pub async fn emit_job_completed(
        &self,
        job: &str,
        result: &impl Serialize,
    ) -> Result<Published, ApiError> {
        let result = raw("result", result)?;
        self.publish(Draft::completed(job_id(job)?, Some(&result), Owner::default())?, None).await
    }

    /// Publishes a `job:error`.
    ///
    /// # Errors
    /// As [`Gateway::publish`]; also for an invalid job id.
    pub async fn emit_job_error(&self, job: &str, error: &str) -> Result<Published, ApiError> {
        self.publish(Draft::error(job_id(job)?, error, Owner::default()), None).await
    }

    /// Sends an event of one's own to every connected client, now. Answers its time. Waits up to a second for clients of
    /// this node that read more slowly than notices come.
    ///
    /// # Errors
    /// [`ErrorCode::LimitReached`] when the node holds too much; a [`ApiError`] when the store does not answer.
    pub async fn broadcast_to_all(
        &self,
        name: NoticeName,
        data: &impl Serialize,
    ) -> Result<Timestamp, ApiError> {
        self.notify(Audience::Everyone, name, data).await
    }

    /// Sends an event of one's own to every client in the user's room, now. Answers its time. Waits as
    /// [`Gateway::broadcast_to_all`].
    ///
    /// # Errors
    /// As [`Gateway::broadcast_to_all`].
    pub async fn emit_to_user(
        &self,
        user: UserId,
        name: NoticeName,
        data: &impl Serialize,
    ) -> Result<Timestamp, ApiError> {
        self.notify(Audience::User(user), name, data).await
    }

    async fn notify(
        &self,
        audience: Audience,
        name: NoticeName,
        data: &impl Serialize,
    ) -> Result<Timestamp, ApiError> {
        let data = raw("data", data)?.into();
        self.send_notice(Notice { audience, name, data, timestamp: Timestamp::now() }).await
    }

    /// The connected clients of all nodes, by id, after the one named. For administrators alone.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for others; a [`ApiError`] when the store does not answer.
    pub async fn clients(
        &self,
        by: &Identity,
        after: Option<&ClientId>,
        limit: usize,
    ) -> Result<ClientsPage, ApiError> {
        by.check_admin()?;
        self.asked(self.0.store.clients(after, limit).await)
    }

    /// One connected client of whatever node. For administrators alone.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for others; a [`ApiError`] when the store does not answer.
    pub async fn client(&self, by: &Identity, id: &ClientId) -> Result<Option<ClientRecord>, ApiError> {
        by.check_admin()?;
        self.asked(self.0.store.client(id).await)
    }

    /// How many sessions of all nodes are in a room, for those who may be there themselves.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for others; a [`ApiError`] when the store does not answer.
    pub async fn sessions_in(&self, by: &Identity, room: &Room) -> Result<usize, ApiError> {
        self.check_room(by, room).await?;
        self.asked(self.0.store.sessions_in(room).await)
    }

    /// Whether the store answers and the feed is whole.
    ///
    /// # Errors
    /// A [`ApiError`] says what is missing.
    pub async fn ready(&self) -> Result<(), ApiError> {
        self.asked(self.0.store.ping().await)?;
        match self.hub(|hub| hub.is_whole()) {
            true => Ok(()),
            false => Err(ApiError::new(ErrorCode::Unavailable, "the store's feed is interrupted")),
        }
    }

    /// How many sessions this node has, of whatever edge.
    pub fn sessions(&self) -> usize {
        self.hub(|hub| hub.stats()).sessions
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// The gateway's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The gateway's metrics in the text format of Prometheus, as of now.
    pub fn metrics_text(&self) -> String {
        let stats = self.hub(|hub| hub.stats());
        let metrics = &self.0.metrics;
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.sessions.set(gauge(stats.sessions));
        metrics.rooms.set(gauge(stats.rooms));
        metrics.sessions_behind.set(gauge(stats.behind));
        metrics.behind_longest.set(stats.behind_since.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        metrics.outbox.set(stats.waiting.try_into().unwrap_or(i64::MAX));
        metrics.outbox_largest.set(stats.most_waiting.try_into().unwrap_or(i64::MAX));
        metrics.feed_rooms.set(gauge(self.0.store.covered_rooms().unwrap_or(stats.rooms)));
        metrics.text()
    }

    /// The tasks that the gateway owns; edges add theirs.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Ends a session, says who and why in the log, and counts it; once.
    fn close(&self, key: SessionKey, reason: CloseReason) {
        let Some(outlet) = self.hub(|hub| hub.begin_close(key)) else { return };
        let who = self.who(key);
        match reason.is_orderly() {
            true => tracing::debug!(reason = reason.as_str(), %who, "closing a session"),
            false => {
                tracing::warn!(reason = reason.as_str(), %who, "closing a session that cannot be caught up")
            }
        }
        self.0.metrics.closed.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
        outlet.close(reason);
        if reason.is_orderly() {
            self.0.tasks.spawn_until_stop("session-end", async move {
                tokio::time::sleep(END_PATIENCE).await;
                outlet.close(CloseReason::Unreachable);
            });
        }
    }

    /// A session as an operator wants to know it.
    fn who(&self, key: SessionKey) -> Who<'_> {
        Who { key, node: self.node(), stats: self.hub(|hub| hub.session_stats(key)) }
    }

    /// One step of the hub, under its lock. Whoever fell behind by it is looked after from here on; what it has offered
    /// is sent by whoever brought it ([`live`]).
    fn hub<T>(&self, step: impl FnOnce(&mut Hub) -> T) -> T {
        let (result, due, put_out) = {
            let mut hub = self.0.hub.lock().unwrap_or_else(PoisonError::into_inner);
            let result = step(&mut hub);
            let due =
                if hub.has_catch_ups_due() { hub.take_catch_ups_due(Instant::now()) } else { Vec::new() };
            (result, due, hub.take_put_out())
        };
        for PutOut { connection, client, user, room } in put_out {
            if let Some(user) = user {
                self.0.user_rooms.give_back(&user);
            }
            self.forget(connection, client.as_ref(), &room);
        }
        for (key, reason) in due {
            catch_up::start(self, key, reason);
        }
        result
    }
}

/// Names a session and how it stands, in one line of the log.
struct Who<'a> {
    key: SessionKey,
    node: &'a str,
    stats: Option<SessionStats>,
}

impl Who<'_> {
    fn has_been_behind_for(&self, span: Duration) -> bool {
        let since = self.stats.as_ref().and_then(|stats| stats.behind_since);
        since.is_some_and(|since| since.elapsed() >= span)
    }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, node, stats } = self;
        write!(f, "session {key:?} on {node}")?;
        let Some(stats) = stats else { return f.write_str(", gone") };
        if let Some(client) = &stats.client {
            write!(f, ", client {client}")?;
        }
        for room in &stats.rooms {
            write!(f, ", in {room}")?;
        }
        if let Some(since) = stats.behind_since {
            write!(f, ", behind for {:.1?} in {} rooms", since.elapsed(), stats.rooms_behind)?;
        }
        write!(f, ", {} bytes and {} notices waiting", stats.waiting, stats.notices)
    }
}

fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(format!("jobId: {error}")))
}

fn raw(field: &str, value: &impl Serialize) -> Result<Box<RawValue>, ApiError> {
    serde_json::value::to_raw_value(value).map_err(|error| ApiError::invalid(format!("{field}: {error}")))
}

/// A name that no other node has: the host's, and something that tells its processes apart.
fn node_name() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("node").to_owned();
    format!("{host}-{}-{:x}", std::process::id(), Timestamp::now().millis())
}
