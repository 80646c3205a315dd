//! How this node speaks to Redis: every call goes to the server that holds its slot, and again where nothing can
//! have come of it, until it is answered or its time is up.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisError, RedisResult, ServerErrorKind, TlsCertificates, Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    call::Call,
    fence::{Fence, Run},
    node::{Borrowed, Node},
    slots::{self, Shard, Slots},
};
use crate::store::{OpenError, StoreError};

/// How long a call may take, all attempts included, before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// How long a publish waits for replicas.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a server may take to say how it sees its cluster.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a cluster is asked who holds what, also when nothing seems to have changed.
const REFRESH: Duration = Duration::from_secs(10);

/// Where the Redis servers are, and how to speak to them.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://` or, with TLS, `rediss://`; may name an ACL user and a password. One server, or some of those of
    /// one cluster.
    pub urls: Vec<String>,
    /// A file with the certificates of the authorities to trust, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// What comes before every key and channel.
    pub key_prefix: String,
    /// How many replicas must have an event before it is answered; 0 for none.
    pub wait_replicas: u32,
}

impl RedisOptions {
    /// One server, with no prefix.
    pub fn new(url: &str) -> Self {
        Self { urls: vec![url.to_owned()], ca_file: None, key_prefix: String::new(), wait_replicas: 0 }
    }
}

/// Connections to the servers. Cloning gives another handle on the same ones.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How every server is spoken to.
    info: ConnectionInfo,
    authorities: Option<Vec<u8>>,
    wait_replicas: u32,
    is_cluster: bool,
    /// All servers that calls may be sent to: first those that were configured, then others that hold slots.
    nodes: Mutex<Vec<Arc<Node>>>,
    configured: usize,
    slots: watch::Sender<Arc<Slots>>,
    doubted: Notify,
    fence: Fence,
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        StoreError(format!("redis: {error}"))
    }
}

impl From<redis::ParsingError> for StoreError {
    fn from(error: redis::ParsingError) -> Self {
        StoreError(format!("redis: unexpected answer: {error}"))
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    pub value: Value,
    /// Whether as many replicas have it as `redis.wait_replicas` asks for, where the call has to wait for them.
    pub replicated: bool,
}

impl Reply {
    /// The value, if it counts.
    fn counted(self) -> Result<Value, StoreError> {
        match self.replicated {
            true => Ok(self.value),
            false => Err(not_replicated()),
        }
    }
}

/// Why a call that was executed does not count.
pub fn not_replicated() -> StoreError {
    StoreError("redis: not yet on as many replicas as redis.wait_replicas asks for".to_owned())
}

/// What is to become of a call.
enum Verdict {
    Done(Result<Reply, StoreError>),
    /// Nothing came of it, or it may be repeated.
    Again(RedisError),
    /// Another server has its slot, or is about to.
    Elsewhere(Arc<Node>, Ask, RedisError),
}

/// Whether a server has to be told that a call was sent on to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    No,
    Yes,
}

/// Calls that go to one server together.
struct Load {
    node: Arc<Node>,
    /// Whether they end with a wait for replicas.
    durable: bool,
    places: Vec<(usize, Ask)>,
}

type Detours = HashMap<usize, (Arc<Node>, Ask)>;

impl Link {
    /// Connects, and fails if no server answers soon.
    pub async fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        let mut infos = Vec::new();
        for url in &options.urls {
            infos.push(connection_info(url)?);
        }
        let Some(info) = infos.first().cloned() else {
            return Err(OpenError("redis.url names no server".to_owned()));
        };
        let authorities = match &options.ca_file {
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                OpenError(format!("cannot read redis.ca_file ({}): {error}", path.display()))
            })?),
            None => None,
        };
        let wrong = |error: RedisError| OpenError(format!("redis.url cannot be used: {error}"));
        let mut nodes = Vec::new();
        for info in infos {
            nodes.push(Arc::new(Node::new(client(info, authorities.as_deref()).map_err(wrong)?)));
        }
        let is_cluster = probe(&nodes, &options.urls).await?;
        if nodes.len() > 1 && !is_cluster {
            return Err(OpenError(
                "redis.url names several servers, but they are no cluster (cluster_enabled is not 1)"
                    .to_owned(),
            ));
        }
        let slots = watch::Sender::new(Arc::new(Slots::all_on(nodes[0].clone())));
        let link = Self(Arc::new(Inner {
            info,
            authorities,
            wait_replicas: options.wait_replicas,
            is_cluster,
            configured: nodes.len(),
            nodes: Mutex::new(nodes),
            slots,
            doubted: Notify::new(),
            fence: Fence::default(),
        }));
        if is_cluster && !link.refresh().await {
            return Err(OpenError("redis.url: the cluster does not tell who holds which slots".to_owned()));
        }
        // Who has just come knows nothing that it could tell, and nobody to wait for.
        for run in link.runs().await.map_err(|error| OpenError(error.to_string()))? {
            link.fence().open(&run);
        }
        Ok(link)
    }

    /// Which servers may be published to.
    pub fn fence(&self) -> &Fence {
        &self.0.fence
    }

    /// The runs of all servers that hold slots.
    pub async fn runs(&self) -> Result<Vec<Run>, StoreError> {
        let (nodes, mut runs) = (self.slots().borrow().nodes(), Vec::new());
        for node in nodes {
            runs.push(node.commands().await?.run);
        }
        Ok(runs)
    }

    /// Whether keys of different slots may be on different servers.
    pub fn is_cluster(&self) -> bool {
        self.0.is_cluster
    }

    /// Who holds which slots, now and whenever it changes.
    pub fn slots(&self) -> watch::Receiver<Arc<Slots>> {
        self.0.slots.subscribe()
    }

    /// Says that what is known of the cluster may be out of date.
    pub fn doubt(&self) {
        self.0.doubted.notify_one();
    }

    /// Keeps what is known of a cluster true, until it is dropped.
    pub async fn follow(self) {
        if !self.is_cluster() {
            return std::future::pending().await;
        }
        loop {
            let _in_time = tokio::time::timeout(REFRESH, self.0.doubted.notified()).await;
            self.refresh().await;
            // Many calls fail together when a server does; ask once for all of them.
            tokio::time::sleep(PAUSES.1).await;
        }
    }

    /// Sends one call, and reads its answer.
    ///
    /// # Errors
    /// [`StoreError`] says why there is none in time; the outcome of a call that may not be repeated is then
    /// unknown.
    pub async fn ask<T: FromRedisValue>(&self, call: Call) -> Result<T, StoreError> {
        let answer = self.send(vec![call]).await.pop();
        let answer = answer.unwrap_or_else(|| Err(StoreError("redis: no answer".to_owned())))?;
        Ok(redis::from_redis_value(answer.counted()?)?)
    }

    /// Sends calls, and reads their answers, which are in order.
    ///
    /// # Errors
    /// As [`Link::ask`], where any of them fails.
    pub async fn ask_all<T: FromRedisValue>(&self, calls: Vec<Call>) -> Result<Vec<T>, StoreError> {
        let answers = self.send(calls).await.into_iter();
        answers.map(|answer| Ok(redis::from_redis_value(answer?.counted()?)?)).collect()
    }

    /// Whether every server that holds slots answers.
    ///
    /// # Errors
    /// [`StoreError`] says why one does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let slots = self.0.slots.borrow().clone();
        let ping = |node: Arc<Node>| async move {
            let mut line = node.commands().await?;
            let answer = redis::cmd("PING").query_async::<()>(&mut line.connection).await;
            answer.inspect_err(|_| line.discard())
        };
        let answers = tokio::time::timeout(DEADLINE, join_all(slots.nodes().into_iter().map(ping))).await;
        let answers = answers.map_err(|_| StoreError("redis: no answer in time".to_owned()))?;
        answers.into_iter().collect::<Result<(), RedisError>>().map_err(StoreError::from)
    }

    /// Sends calls, pipelined, each to the server that holds its slot. The answers are in order; the calls of one
    /// slot are executed in order as long as none of them has to be sent again.
    pub async fn send(&self, calls: Vec<Call>) -> Vec<Result<Reply, StoreError>> {
        let deadline = Instant::now() + DEADLINE;
        let mut answers: Vec<Option<Result<Reply, StoreError>>> = calls.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..calls.len()).collect();
        let (mut detours, mut pause) = (Detours::new(), PAUSES.0);
        while !open.is_empty() {
            let mut failure = None;
            for (place, verdict) in self.attempt(&calls, &open, &detours).await {
                detours.remove(&place);
                match verdict {
                    Verdict::Done(answer) => answers[place] = Some(answer),
                    Verdict::Again(error) => failure = Some(error),
                    Verdict::Elsewhere(node, ask, error) => {
                        detours.insert(place, (node, ask));
                        failure = Some(error);
                    }
                }
            }
            open.retain(|place| answers[*place].is_none());
            let Some(error) = failure else { break };
            let wait = jittered(pause);
            if Instant::now() + wait >= deadline {
                let error = StoreError::from(error);
                open.iter().for_each(|place| answers[*place] = Some(Err(error.clone())));
                break;
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        let unanswered = || Err(StoreError("redis: no answer".to_owned()));
        answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    /// Sends calls once.
    async fn attempt(&self, calls: &[Call], open: &[usize], detours: &Detours) -> Vec<(usize, Verdict)> {
        let slots = self.0.slots.borrow().clone();
        let mut verdicts = Vec::with_capacity(open.len());
        let mut loads: Vec<Load> = Vec::new();
        for place in open.iter().copied() {
            let call = &calls[place];
            let durable = call.durable && self.0.wait_replicas > 0;
            let found = match detours.get(&place) {
                Some((node, ask)) => Some((node.clone(), *ask)),
                None => slots.node_of(call.slot).map(|node| (node.clone(), Ask::No)),
            };
            let Some((node, ask)) = found else {
                self.doubt();
                verdicts.push((place, Verdict::Again(no_server())));
                continue;
            };
            match loads.iter_mut().find(|load| Arc::ptr_eq(&load.node, &node) && load.durable == durable) {
                Some(load) => load.places.push((place, ask)),
                None => loads.push(Load { node, durable, places: vec![(place, ask)] }),
            }
        }
        let exchanges = loads.iter().map(|load| self.exchange(load, calls));
        verdicts.extend(join_all(exchanges).await.into_iter().flatten());
        verdicts
    }

    /// Sends calls to one server.
    async fn exchange(&self, load: &Load, calls: &[Call]) -> Vec<(usize, Verdict)> {
        let Load { node, durable, places } = load;
        let line = if *durable { node.waiting().await } else { node.commands().await };
        let mut line = match line {
            Ok(line) => line,
            Err(error) => {
                self.doubt();
                let again = |(place, _): &(usize, Ask)| (*place, Verdict::Again(error.clone()));
                return places.iter().map(again).collect();
            }
        };
        if places.iter().any(|(place, _)| calls[*place].fenced) && !self.0.fence.lets_through(&line.run) {
            return places.iter().map(|(place, _)| (*place, Verdict::Again(came_back()))).collect();
        }
        let mut pipe = Pipeline::with_capacity(places.len());
        for (place, ask) in places {
            match ask {
                Ask::Yes => pipe.cmd("ASKING").ignore().add_command(calls[*place].with_one_key()),
                Ask::No => pipe.add_command(calls[*place].command.clone()),
            };
        }
        pipe.ignore_errors();
        let mut same_connection = line.connection.clone();
        // Side by side, because what was executed has to be known also where the wait comes to nothing.
        let (answers, replicated) = tokio::join!(
            pipe.query_async::<Vec<RedisResult<Value>>>(&mut line.connection),
            self.replicated(*durable, &mut same_connection),
        );
        let mut verdicts = Vec::with_capacity(places.len());
        match answers {
            Ok(answers) => {
                for ((place, _), answer) in places.iter().zip(answers) {
                    let verdict = self.judge(node, &mut line, &calls[*place], answer, replicated).await;
                    verdicts.push((*place, verdict));
                }
            }
            Err(error) => {
                line.discard();
                self.doubt();
                verdicts.extend(places.iter().map(|(place, _)| {
                    let unknown = || Verdict::Done(Err(error.clone().into()));
                    let repeatable = calls[*place].repeatable;
                    (*place, if repeatable { Verdict::Again(error.clone()) } else { unknown() })
                }));
            }
        }
        verdicts
    }

    /// Waits until enough replicas have what was sent on a connection before, where that is asked for.
    async fn replicated(&self, asked_for: bool, connection: &mut MultiplexedConnection) -> bool {
        if !asked_for {
            return true;
        }
        let timeout = u64::try_from(REPLICAS_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let mut wait = redis::cmd("WAIT");
        let wait = wait.arg(self.0.wait_replicas).arg(timeout).query_async::<u32>(connection).await;
        wait.is_ok_and(|replicas| replicas >= self.0.wait_replicas)
    }

    async fn judge(
        &self,
        node: &Arc<Node>,
        line: &mut Borrowed<'_>,
        call: &Call,
        answer: RedisResult<Value>,
        replicated: bool,
    ) -> Verdict {
        let error = match answer {
            Ok(value) => return Verdict::Done(Ok(Reply { value, replicated })),
            Err(error) => error,
        };
        let ErrorKind::Server(kind) = error.kind() else { return refused_or_again(error) };
        match kind {
            ServerErrorKind::NoScript => match &call.script {
                // A server that has just started knows no scripts.
                Some(text) => match load(line, text).await {
                    Ok(()) => Verdict::Again(error),
                    Err(error) => Verdict::Again(error),
                },
                None => Verdict::Done(Err(error.into())),
            },
            ServerErrorKind::Moved | ServerErrorKind::Ask => {
                let ask = if kind == ServerErrorKind::Ask { Ask::Yes } else { Ask::No };
                if ask == Ask::No {
                    self.doubt();
                }
                match error.redirect_node().and_then(|(address, _)| self.node_at(address, node)) {
                    Some(other) => Verdict::Elsewhere(other, ask, error),
                    None => Verdict::Again(error),
                }
            }
            ServerErrorKind::ReadOnly => {
                // It was demoted, or is not promoted yet: whoever is master now may be behind the same address.
                line.discard();
                self.doubt();
                Verdict::Again(error)
            }
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown => {
                self.doubt();
                Verdict::Again(error)
            }
            _ => refused_or_again(error),
        }
    }

    /// The server at an address that another one named.
    fn node_at(&self, address: &str, named_by: &Node) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() { named_by.address().rsplit_once(':')?.0 } else { host };
        self.node(host, port.parse().ok()?)
    }

    /// The server of a host and port, which is known from then on.
    fn node(&self, host: &str, port: u16) -> Option<Arc<Node>> {
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let address = format!("{host}:{port}");
        if let Some(node) = nodes.iter().find(|node| node.address() == address) {
            return Some(node.clone());
        }
        let address = match self.0.info.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: *insecure, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        let client = client(self.0.info.clone().set_addr(address), self.0.authorities.as_deref()).ok()?;
        let node = Arc::new(Node::new(client));
        nodes.push(node.clone());
        Some(node)
    }

    /// Asks all known servers who holds what, and believes what most of them say. Says whether any answered.
    async fn refresh(&self) -> bool {
        let nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let views: Vec<_> = join_all(nodes.iter().map(view)).await.into_iter().flatten().collect();
        let agreeing = |view: &Vec<Shard>| views.iter().filter(|other| *other == view).count();
        let Some(believed) = views.iter().max_by_key(|view| agreeing(view)) else { return false };
        let range = |shard: &Shard| {
            let host = shard.host.as_deref()?;
            Some((shard.range.clone(), self.node(host, shard.port)?))
        };
        let slots = Slots::new(believed.iter().filter_map(range).collect());
        self.forget_all_but(&slots.nodes());
        self.0.slots.send_if_modified(|current| {
            let changed = **current != slots;
            if changed {
                *current = Arc::new(slots);
            }
            changed
        });
        true
    }

    /// Forgets servers that hold nothing, but for those that were configured: through them a cluster is found again.
    fn forget_all_but(&self, holding: &[Arc<Node>]) {
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = 0;
        nodes.retain(|node| {
            place += 1;
            place <= self.0.configured || holding.iter().any(|other| Arc::ptr_eq(other, node))
        });
    }
}

/// How a server sees its cluster; `None` if it does not say.
async fn view(node: &Arc<Node>) -> Option<Vec<Shard>> {
    let ask = async {
        let mut line = node.commands().await?;
        let mut call = redis::cmd("CLUSTER");
        let answer: RedisResult<Value> = call.arg("SLOTS").query_async(&mut line.connection).await;
        answer.inspect_err(|_| line.discard())
    };
    let answer = tokio::time::timeout(PROBE_TIMEOUT, ask).await.ok()?.ok()?;
    let (own_host, _) = node.address().rsplit_once(':')?;
    let mut shards = slots::shards(answer);
    shards.iter_mut().for_each(|shard| {
        shard.host.get_or_insert_with(|| own_host.to_owned());
    });
    shards.sort_by_key(|shard| *shard.range.start());
    Some(shards).filter(|shards| !shards.is_empty())
}

/// Asks the servers that were configured, until one answers, whether they are a cluster.
async fn probe(nodes: &[Arc<Node>], urls: &[String]) -> Result<bool, OpenError> {
    let mut problems = Vec::new();
    for (node, url) in nodes.iter().zip(urls) {
        let ask = async {
            let mut line = node.commands().await?;
            let mut call = redis::cmd("INFO");
            call.arg("cluster").query_async::<String>(&mut line.connection).await
        };
        problems.push(match tokio::time::timeout(DEADLINE, ask).await {
            Ok(Ok(info)) => return Ok(info.contains("cluster_enabled:1")),
            Ok(Err(error)) => format!("{}: {error}", without_password(url)),
            Err(_) => format!("{}: no answer", without_password(url)),
        });
    }
    Err(OpenError(format!("cannot use the Redis server of redis.url ({})", problems.join("; "))))
}

async fn load(line: &mut Borrowed<'_>, text: &str) -> RedisResult<()> {
    let mut call = redis::cmd("SCRIPT");
    call.arg("LOAD").arg(text).query_async::<()>(&mut line.connection).await
}

/// Errors that tell themselves that a later attempt may succeed.
fn refused_or_again(error: RedisError) -> Verdict {
    // A script that met keys of a slot on its way to another server.
    let on_its_way = error.detail().is_some_and(|detail| detail.contains("non local key"));
    match error.code() {
        Some("BUSY" | "NOREPLICAS") => Verdict::Again(error),
        _ if on_its_way => Verdict::Again(error),
        _ => Verdict::Done(Err(error.into())),
    }
}

fn no_server() -> RedisError {
    (ErrorKind::ClusterConnectionNotFound, "no server of the cluster holds the slot").into()
}

fn came_back() -> RedisError {
    (ErrorKind::Client, "the server has just come back, and gateways still tell it what they have seen")
        .into()
}

/// Between half of a pause and all of it, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn connection_info(url: &str) -> Result<ConnectionInfo, OpenError> {
    let info = url.into_connection_info().map_err(|error| {
        OpenError(format!("redis.url must be redis://[user:password@]host:port[/db] or rediss://…: {error}"))
    })?;
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(socket2::TcpKeepalive::new().with_time(Duration::from_secs(10)));
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    Ok(info.set_tcp_settings(tcp).set_redis_settings(settings))
}

fn client(info: ConnectionInfo, authorities: Option<&[u8]>) -> RedisResult<Client> {
    match authorities {
        Some(root) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(root.to_vec()) };
            Client::build_with_tls(info, certificates)
        }
        None => Client::open(info),
    }
}

/// The URL as it may stand in a log.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}
