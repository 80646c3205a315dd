//! A Redis Cluster: the master of a shared room dies, and while its replica takes over, watchers of shared rooms lose
//! their network. They come back by position, before, during or after that.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{MASTERS, end, gateways, shared_room};
use crate::{
    Failure,
    client::Endpoint,
    cluster::{Cluster, SOON},
    gateway::Gateway,
    proxy::{Condition, Proxy},
    site::Setting,
    trial::{Audience, Expectation, Trial},
    verdict::Verdict,
};

/// How long a part of the watchers stays away at most, in milliseconds: longer than a failover takes.
const AWAY: u64 = 4000;

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let mut cluster = Cluster::start(&setting, MASTERS, 1, SOON).await?;
    let waited_for = setting.wait_replicas.unwrap_or(1);
    let gateways = gateways(&setting, &cluster, waited_for).await?;
    let lanes = lanes(&gateways).await?;
    let mut setup = setting.setup(&gateways, Expectation::LostTail);
    setup.audience = Audience::Shared;
    let mut trial = Trial::new(setup);
    let endpoint = |number: usize| Endpoint {
        addresses: vec![lanes[number % lanes.len()].address()],
        ..Endpoint::default()
    };
    trial.watch(setting.sizes.clients, endpoint).await?;
    trial.publish();
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_millis(random.u64(0..1000))).await;
        let victim = cluster.holder(&shared_room(&mut random)).await?;
        cluster.kill(victim)?;
        let outages: Vec<_> = lanes.iter().map(|lane| outage(lane, random.fork())).collect();
        let (taken_over, _) =
            tokio::join!(cluster.taken_over(victim), futures_util::future::join_all(outages));
        taken_over?;
        cluster.restart(victim).await?;
        cluster.whole().await?;
    }
    sleep(Duration::from_secs(1)).await;
    end(trial, waited_for > 0).await
}

/// A few lanes to each gateway.
async fn lanes(gateways: &[Gateway]) -> Result<Vec<Proxy>, Failure> {
    let mut lanes = Vec::new();
    for gateway in gateways.iter().cycle().take(3 * gateways.len()) {
        lanes.push(Proxy::start(gateway.address()).await?);
    }
    Ok(lanes)
}

/// Whoever is on the lane loses the network for a while.
async fn outage(lane: &Proxy, mut random: fastrand::Rng) {
    sleep(Duration::from_millis(random.u64(0..AWAY / 2))).await;
    lane.set(Condition::Refusing);
    lane.cut();
    sleep(Duration::from_millis(random.u64(0..AWAY))).await;
    lane.set(Condition::Normal);
}
