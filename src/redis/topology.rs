//! Which servers there are: one, or those of a cluster, and which of them holds which slots.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::Value;
use tokio::sync::{Notify, watch};

use super::{
    error::Error,
    options::{Dialer, RedisOptions, without_password},
    server::Server,
    slot_map::{self, Shard, SlotMap},
};

/// How long opening waits for a server.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a server may take to say how it sees its cluster.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a cluster is asked who holds what, also when nothing seems to have changed.
const REFRESH: Duration = Duration::from_secs(10);

/// How long it is left alone in between: many calls fail together when a server does.
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

/// The servers that there are, and which of them holds which slots.
#[derive(Debug)]
pub struct Topology {
    dialer: Dialer,
    replicas: u32,
    is_cluster: bool,
    /// All servers that commands may be sent to: first those that were configured, then others that hold slots.
    servers: Mutex<Vec<Arc<Server>>>,
    configured: usize,
    slots: watch::Sender<Arc<SlotMap>>,
    doubted: Notify,
}

impl Topology {
    /// Connects, and fails if no server answers soon.
    pub async fn open(options: &RedisOptions) -> Result<Self, Error> {
        let (dialer, replicas) = (Dialer::new(options)?, options.wait_replicas);
        let server = |url: &String| Ok(Arc::new(Server::new(dialer.url(url)?, replicas)));
        let servers = options.urls.iter().map(server).collect::<Result<Vec<_>, Error>>()?;
        let is_cluster = probe(&servers, &options.urls).await?;
        if servers.len() > 1 && !is_cluster {
            return Err(Error::Options(
                "redis.url names several servers, but they are no cluster (cluster_enabled is not 1)"
                    .to_owned(),
            ));
        }
        let slots = watch::Sender::new(Arc::new(SlotMap::all_on(servers[0].clone())));
        let (configured, servers, doubted) = (servers.len(), Mutex::new(servers), Notify::new());
        let topology = Self { dialer, replicas, is_cluster, configured, servers, slots, doubted };
        if is_cluster && !topology.refresh().await {
            let silent = "redis.url: the cluster does not tell who holds which slots";
            return Err(Error::Options(silent.to_owned()));
        }
        Ok(topology)
    }

    /// Whether keys of different slots may be on different servers.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Who holds which slots now.
    pub fn slots(&self) -> Arc<SlotMap> {
        self.slots.borrow().clone()
    }

    /// Resolves with every change of who holds which slots.
    pub fn changes(&self) -> watch::Receiver<Arc<SlotMap>> {
        self.slots.subscribe()
    }

    /// Says that what is known of the cluster may be out of date.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Keeps what is known of the servers true, until it is dropped.
    pub async fn follow(&self) {
        loop {
            let _in_time = tokio::time::timeout(REFRESH, self.doubted.notified()).await;
            if self.is_cluster() {
                self.refresh().await;
            }
            join_all(self.slots().servers().iter().map(|server| server.recheck())).await;
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }

    /// The server at an address that another one named as the holder of a slot.
    pub fn server_at(&self, address: &str, named_by: &Server) -> Option<Arc<Server>> {
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() { named_by.address().rsplit_once(':')?.0 } else { host };
        let server = self.server(host, port.parse().ok()?)?;
        if !self.slots().holds_any(&server) {
            // It may have been a replica when it was connected to.
            server.reconnect();
        }
        Some(server)
    }

    /// The server of a host and port, which is known from then on.
    fn server(&self, host: &str, port: u16) -> Option<Arc<Server>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let address = format!("{host}:{port}");
        if let Some(server) = servers.iter().find(|server| server.address() == address) {
            return Some(server.clone());
        }
        let server = Arc::new(Server::new(self.dialer.address(host, port).ok()?, self.replicas));
        servers.push(server.clone());
        Some(server)
    }

    /// Asks all known servers who holds what, and believes what most of them say. Says whether any answered.
    async fn refresh(&self) -> bool {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let views: Vec<_> = join_all(servers.iter().map(view)).await.into_iter().flatten().collect();
        let agreeing = |view: &Vec<Shard>| views.iter().filter(|other| *other == view).count();
        let Some(believed) = views.iter().max_by_key(|view| agreeing(view)) else { return false };
        let range = |shard: &Shard| {
            let host = shard.host.as_deref()?;
            Some((shard.range.clone(), self.server(host, shard.port)?))
        };
        let (before, slots) = (self.slots(), SlotMap::new(believed.iter().filter_map(range).collect()));
        let promoted = |server: &&Arc<Server>| !before.holds_any(server);
        slots.servers().iter().filter(promoted).for_each(|server| server.reconnect());
        self.forget_all_but(&slots);
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
    fn forget_all_but(&self, slots: &SlotMap) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = 0;
        servers.retain(|server| {
            place += 1;
            place <= self.configured || slots.holds_any(server)
        });
    }
}

/// How a server sees its cluster; `None` if it does not say.
async fn view(server: &Arc<Server>) -> Option<Vec<Shard>> {
    let mut question = redis::cmd("CLUSTER");
    let ask = server.ask::<Value>(question.arg("SLOTS"));
    let answer = tokio::time::timeout(PROBE_TIMEOUT, ask).await.ok()?.ok()?;
    let (own_host, _) = server.address().rsplit_once(':')?;
    let mut shards = slot_map::shards(answer);
    shards.iter_mut().for_each(|shard| {
        shard.host.get_or_insert_with(|| own_host.to_owned());
    });
    shards.sort_by_key(|shard| *shard.range.start());
    Some(shards).filter(|shards| !shards.is_empty())
}

/// Asks the servers that were configured, until one answers, whether they are a cluster.
async fn probe(servers: &[Arc<Server>], urls: &[String]) -> Result<bool, Error> {
    let mut problems = Vec::new();
    for (server, url) in servers.iter().zip(urls) {
        let mut question = redis::cmd("INFO");
        let ask = server.ask::<String>(question.arg("cluster"));
        problems.push(match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(info)) => return Ok(info.contains("cluster_enabled:1")),
            Ok(Err(error)) => format!("{}: {error}", without_password(url)),
            Err(_) => format!("{}: no answer", without_password(url)),
        });
    }
    Err(Error::Options(format!("cannot use the Redis server of redis.url ({})", problems.join("; "))))
}
