//! A Redis Cluster on loopback.

use std::time::{Duration, Instant};

use super::{RedisServer, free_port};

/// Masters, and replicas of each.
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
    masters: usize,
}

impl RedisCluster {
    /// Starts `masters` masters that share the slots evenly, each with so many replicas, and waits until all agree.
    pub async fn start(masters: usize, replicas: usize) -> Self {
        let count = masters * (1 + replicas);
        let bus: Vec<String> = (0..count).map(|_| free_port().to_string()).collect();
        let start = bus.iter().map(|bus| async move {
            let cluster =
                ["--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1500"];
            let replication = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];
            RedisServer::with(&[&cluster[..], &replication[..]].concat()).await
        });
        let servers = futures_util::future::join_all(start).await;
        let cluster = Self { servers, masters };
        let first = cluster.servers[0].port().to_string();
        for server in &cluster.servers[1..] {
            ask::<()>(server, &["CLUSTER", "MEET", "127.0.0.1", &first, &bus[0]]).await;
        }
        for (place, server) in cluster.servers[..masters].iter().enumerate() {
            let (from, to) = (16_384 * place / masters, 16_384 * (place + 1) / masters - 1);
            ask::<()>(server, &["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]).await;
        }
        for (place, replica) in cluster.servers.iter().enumerate().skip(masters) {
            let master = cluster.id(place % masters).await;
            until("the replica knows its master", || async {
                try_ask::<()>(replica, &["CLUSTER", "REPLICATE", &master]).await.is_ok()
            })
            .await;
        }
        cluster.agreed(count).await;
        cluster
    }

    /// Waits until every server that lives sees all slots served, and so many servers.
    pub async fn agreed(&self, servers: usize) {
        for server in &self.servers[..servers] {
            until("the cluster agrees", || async {
                let info = try_ask::<String>(server, &["CLUSTER", "INFO"]).await.unwrap_or_default();
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{servers}"))
            })
            .await;
        }
        for master in 0..self.masters {
            let replicas = servers / self.masters - 1;
            until("the replicas are connected", || async {
                let info = ask::<String>(&self.servers[master], &["INFO", "replication"]).await;
                info.matches("state=online").count() == replicas
            })
            .await;
        }
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }

    /// The id of a server in the cluster.
    pub async fn id(&self, place: usize) -> String {
        ask(&self.servers[place], &["CLUSTER", "MYID"]).await
    }

    /// Waits until a replica has become a master.
    pub async fn is_promoted(&self, place: usize) {
        until("the replica takes over", || async {
            ask::<String>(&self.servers[place], &["INFO", "replication"]).await.contains("role:master")
        })
        .await;
    }

    /// Which master holds a key.
    pub async fn holder(&self, key: &str) -> usize {
        let slot: u16 = ask(&self.servers[0], &["CLUSTER", "KEYSLOT", key]).await;
        usize::from(slot) * self.masters / 16_384
    }

    /// Begins to move the slot of a key from one master to another: keys are where they were.
    pub async fn begin_move(&self, key: &str, from: usize, to: usize) {
        let slot: u16 = ask(&self.servers[0], &["CLUSTER", "KEYSLOT", key]).await;
        let (slot, source, target) = (slot.to_string(), self.id(from).await, self.id(to).await);
        ask::<()>(&self.servers[to], &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await;
        ask::<()>(&self.servers[from], &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await;
    }

    /// Moves all keys of the slot one by one.
    pub async fn move_keys(&self, key: &str, from: usize, to: usize) {
        let slot: u16 = ask(&self.servers[0], &["CLUSTER", "KEYSLOT", key]).await;
        let port = self.servers[to].port().to_string();
        loop {
            let keys: Vec<String> =
                ask(&self.servers[from], &["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1"]).await;
            let Some(key) = keys.first() else { return };
            ask::<()>(&self.servers[from], &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        }
    }

    /// Ends the move: the slot is the other master's.
    pub async fn end_move(&self, key: &str, to: usize) {
        let slot: u16 = ask(&self.servers[0], &["CLUSTER", "KEYSLOT", key]).await;
        let target = self.id(to).await;
        for server in [to, 0, 1, 2].map(|place| &self.servers[place]) {
            ask::<()>(server, &["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &target]).await;
        }
    }
}

/// Asks one server.
pub async fn ask<T: redis::FromRedisValue>(server: &RedisServer, command: &[&str]) -> T {
    try_ask(server, command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

async fn try_ask<T: redis::FromRedisValue>(server: &RedisServer, command: &[&str]) -> redis::RedisResult<T> {
    let client = redis::Client::open(server.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
