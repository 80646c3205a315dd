//! Which servers there are: one, or those of a cluster, and which of them holds which slots.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult,
    TlsCertificates, Value,
    io::tcp::{TcpSettings, socket2},
};
use tokio::sync::{Notify, watch};

use super::{
    node::Node,
    slots::{self, Shard, Slots},
};
use crate::store::{OpenError, StoreError};

/// How long opening waits for a server.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a server may take to say how it sees its cluster.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a cluster is asked who holds what, also when nothing seems to have changed.
const REFRESH: Duration = Duration::from_secs(10);

/// How long it is left alone in between: many calls fail together when a server does.
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

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

/// The servers that there are, and which of them holds which slots.
#[derive(Debug)]
pub struct Servers {
    /// How every server is spoken to.
    info: ConnectionInfo,
    authorities: Option<Vec<u8>>,
    is_cluster: bool,
    /// All servers that calls may be sent to: first those that were configured, then others that hold slots.
    nodes: Mutex<Vec<Arc<Node>>>,
    configured: usize,
    slots: watch::Sender<Arc<Slots>>,
    doubted: Notify,
}

impl Servers {
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
        let servers = Self {
            info,
            authorities,
            is_cluster,
            configured: nodes.len(),
            nodes: Mutex::new(nodes),
            slots,
            doubted: Notify::new(),
        };
        if is_cluster && !servers.refresh().await {
            return Err(OpenError("redis.url: the cluster does not tell who holds which slots".to_owned()));
        }
        Ok(servers)
    }

    /// Whether keys of different slots may be on different servers.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Who holds which slots now.
    pub fn slots(&self) -> Arc<Slots> {
        self.slots.borrow().clone()
    }

    /// Resolves with every change of who holds which slots.
    pub fn changes(&self) -> watch::Receiver<Arc<Slots>> {
        self.slots.subscribe()
    }

    /// Says that what is known of the cluster may be out of date.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Keeps what is known of a cluster true, until it is dropped.
    pub async fn follow(&self) {
        if !self.is_cluster() {
            return std::future::pending().await;
        }
        loop {
            let _in_time = tokio::time::timeout(REFRESH, self.doubted.notified()).await;
            self.refresh().await;
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }

    /// The server at an address that another one named.
    pub fn node_at(&self, address: &str, named_by: &Node) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() { named_by.address().rsplit_once(':')?.0 } else { host };
        self.node(host, port.parse().ok()?)
    }

    /// The server of a host and port, which is known from then on.
    fn node(&self, host: &str, port: u16) -> Option<Arc<Node>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let address = format!("{host}:{port}");
        if let Some(node) = nodes.iter().find(|node| node.address() == address) {
            return Some(node.clone());
        }
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: *insecure, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        let client = client(self.info.clone().set_addr(address), self.authorities.as_deref()).ok()?;
        let node = Arc::new(Node::new(client));
        nodes.push(node.clone());
        Some(node)
    }

    /// Asks all known servers who holds what, and believes what most of them say. Says whether any answered.
    async fn refresh(&self) -> bool {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let views: Vec<_> = join_all(nodes.iter().map(view)).await.into_iter().flatten().collect();
        let agreeing = |view: &Vec<Shard>| views.iter().filter(|other| *other == view).count();
        let Some(believed) = views.iter().max_by_key(|view| agreeing(view)) else { return false };
        let range = |shard: &Shard| {
            let host = shard.host.as_deref()?;
            Some((shard.range.clone(), self.node(host, shard.port)?))
        };
        let slots = Slots::new(believed.iter().filter_map(range).collect());
        self.forget_all_but(&slots.nodes());
        self.slots.send_if_modified(|current| {
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
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = 0;
        nodes.retain(|node| {
            place += 1;
            place <= self.configured || holding.iter().any(|other| Arc::ptr_eq(other, node))
        });
    }
}

/// How a server sees its cluster; `None` if it does not say.
async fn view(node: &Arc<Node>) -> Option<Vec<Shard>> {
    let mut question = redis::cmd("CLUSTER");
    let ask = node.ask::<Value>(question.arg("SLOTS"));
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
        let mut question = redis::cmd("INFO");
        let ask = node.ask::<String>(question.arg("cluster"));
        problems.push(match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(info)) => return Ok(info.contains("cluster_enabled:1")),
            Ok(Err(error)) => format!("{}: {error}", without_password(url)),
            Err(_) => format!("{}: no answer", without_password(url)),
        });
    }
    Err(OpenError(format!("cannot use the Redis server of redis.url ({})", problems.join("; "))))
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
