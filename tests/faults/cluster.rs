//! A Redis Cluster of the trial's own, whose masters have a replica each or none.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    redis::{Redis, free_port},
    site::{DURABLE, Setting},
};

const SLOTS: usize = 16_384;

/// How long the servers may take to agree.
const PATIENCE: Duration = Duration::from_secs(60);

/// After how many milliseconds a server that does not answer is taken for dead, so that a replica takes over soon.
pub const SOON: &str = "1500";

/// A replica takes over whatever befell its link to the master.
const OPTIONS: [&str; 6] =
    ["--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];

pub struct Cluster {
    servers: Vec<Redis>,
    /// What they are called among themselves, in the same order.
    ids: Vec<String>,
    masters: usize,
}

impl Cluster {
    /// Starts masters that share the slots evenly, each with so many replicas, and waits until it is whole. A server
    /// that does not answer for so many milliseconds is taken for dead.
    pub async fn start(
        setting: &Setting,
        masters: usize,
        replicas: usize,
        timeout: &str,
    ) -> Result<Self, Failure> {
        let buses: Vec<_> = (0..masters * (1 + replicas)).map(|_| free_port().to_string()).collect();
        let start = buses.iter().enumerate().map(|(place, bus)| async move {
            let own = ["--cluster-port", bus, "--cluster-node-timeout", timeout];
            let arguments = [OPTIONS.as_slice(), &DURABLE, &own].concat();
            setting.redis(&format!("redis-{place}"), &arguments).await
        });
        let servers = try_join_all(start).await?;
        let ids = try_join_all(servers.iter().map(|server| server.command(&["CLUSTER", "MYID"]))).await?;
        let cluster = Self { servers, ids, masters };
        let first = cluster.servers[0].address().port().to_string();
        for (place, server) in cluster.servers.iter().enumerate() {
            if place > 0 {
                server.done(&["CLUSTER", "MEET", "127.0.0.1", &first, &buses[0]]).await?;
            }
            if place < masters {
                let (from, to) = (SLOTS * place / masters, SLOTS * (place + 1) / masters - 1);
                server.done(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]).await?;
            }
        }
        for (place, replica) in cluster.servers.iter().enumerate().skip(masters) {
            let follow = ["CLUSTER", "REPLICATE", &cluster.ids[place % masters]];
            // Until it has heard of its master.
            until("replicas to know their masters", || async { Ok(replica.done(&follow).await.is_ok()) })
                .await?;
        }
        cluster.whole().await?;
        Ok(cluster)
    }

    /// The addresses of some servers, as one `REDIS_URL`.
    pub fn url(&self, places: impl IntoIterator<Item = usize>) -> String {
        let urls = places.into_iter().map(|place| format!("redis://{}", self.servers[place].address()));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Ends a server as a crash does.
    pub fn kill(&mut self, place: usize) -> Result<(), Failure> {
        self.servers[place].kill()
    }

    pub async fn restart(&mut self, place: usize) -> Result<(), Failure> {
        self.servers[place].restart().await
    }

    /// Waits until all servers agree on who holds what, and every master's replicas have what it has.
    pub async fn whole(&self) -> Result<(), Failure> {
        let all: Vec<_> = (0..self.servers.len()).collect();
        self.agreed(&all).await?;
        for place in self.masters().await? {
            until("replicas to be connected", || async {
                let info = self.servers[place].info("replication").await?;
                Ok(info.matches("state=online").count() == self.servers.len() / self.masters - 1)
            })
            .await?;
        }
        for master in self.masters().await? {
            let written = offset(&self.servers[master].info("replication").await?, "master_repl_offset");
            let behind = format!("master_port:{}\r", self.servers[master].address().port());
            for replica in &self.servers {
                until("replicas to follow", || async {
                    let info = replica.info("replication").await?;
                    Ok(!info.contains(&behind) || offset(&info, "slave_repl_offset") >= written)
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Waits until a replica has taken over from a server that is away.
    pub async fn taken_over(&self, away: usize) -> Result<(), Failure> {
        let others: Vec<_> = (0..self.servers.len()).filter(|place| *place != away).collect();
        until("a replica to take over", || async {
            let map = self.map(others[0]).await?;
            Ok(!map.iter().any(|(_, _, id)| *id == self.ids[away]))
        })
        .await?;
        self.agreed(&others).await
    }

    async fn agreed(&self, places: &[usize]) -> Result<(), Failure> {
        until("the cluster to agree", || async {
            let (mut maps, mut well) = (BTreeSet::new(), true);
            for place in places {
                let info: String = self.servers[*place].command(&["CLUSTER", "INFO"]).await?;
                well &= info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384");
                well &= info.contains(&format!("cluster_known_nodes:{}", self.servers.len()));
                maps.insert(self.map(*place).await?);
            }
            let holders = maps.first().map(|map| map.iter().map(|(.., id)| id).collect::<BTreeSet<_>>());
            Ok(well && maps.len() == 1 && holders.is_some_and(|holders| holders.len() == self.masters))
        })
        .await
    }

    /// Who holds which slots, in the eyes of one server.
    async fn map(&self, place: usize) -> Result<Vec<(usize, usize, String)>, Failure> {
        let nodes: String = self.servers[place].command(&["CLUSTER", "NODES"]).await?;
        let mut map = Vec::new();
        for words in nodes.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
            // After the eighth come its slots; in brackets those that move.
            let ranges = words.iter().skip(8).filter(|range| !range.starts_with('['));
            for range in ranges {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                map.push((from.parse()?, to.parse()?, words[0].to_owned()));
            }
        }
        map.sort();
        Ok(map)
    }

    /// The places of those that hold slots.
    pub async fn masters(&self) -> Result<Vec<usize>, Failure> {
        let ids: BTreeSet<_> = self.map(0).await?.into_iter().map(|(.., id)| id).collect();
        Ok((0..self.servers.len()).filter(|place| ids.contains(&self.ids[*place])).collect())
    }

    /// The place of the master that holds the slot of a key.
    pub async fn holder(&self, key: &str) -> Result<usize, Failure> {
        let slot: usize = self.servers[0].command(&["CLUSTER", "KEYSLOT", key]).await?;
        let map = self.map(0).await?;
        let holder = map.iter().find(|(from, to, _)| (*from..=*to).contains(&slot));
        let holder = holder.and_then(|(.., id)| self.ids.iter().position(|known| known == id));
        holder.ok_or_else(|| "a slot without a holder".into())
    }

    /// One of the servers.
    pub fn server(&self, place: usize) -> &Redis {
        &self.servers[place]
    }

    /// Moves the slot of a key to another master, key by key, with up to so many milliseconds between two steps.
    pub async fn move_slot(&self, key: &str, pause: u64, random: &mut fastrand::Rng) -> Result<(), Failure> {
        let slot: usize = self.servers[0].command(&["CLUSTER", "KEYSLOT", key]).await?;
        let from = self.holder(key).await?;
        let others: Vec<_> = self.masters().await?.into_iter().filter(|place| *place != from).collect();
        let to = others[random.usize(0..others.len())];
        let (source, target, slot) = (&self.servers[from], &self.servers[to], slot.to_string());
        target.done(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await?;
        source.done(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await?;
        let port = target.address().port().to_string();
        loop {
            sleep(Duration::from_millis(random.u64(0..=pause))).await;
            let keys: Vec<String> = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await?;
            let Some(key) = keys.first() else { break };
            source.done(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await?;
        }
        for place in [to, from].into_iter().chain(others) {
            self.servers[place].done(&["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]).await?;
        }
        Ok(())
    }
}

fn offset(info: &str, name: &str) -> u64 {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

async fn until<F>(what: &str, holds: impl Fn() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<bool, Failure>>,
{
    let begun = Instant::now();
    while !holds().await.unwrap_or(false) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("waited in vain for {what}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
