//! The master is killed and its replica promoted. What the replica had not got yet is lost from history, which
//! asynchronous replication allows; nothing else is, no number that anybody has seen is given again, and publishes are
//! accepted as soon as the replica answers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{cluster::end, drops::SHORT};
use crate::{
    Failure,
    lanes::Lanes,
    proxy::{Condition, Proxy},
    redis::Redis,
    site::{DURABLE, Setting, at, readiness},
    trial::Expectation,
    verdict::Verdict,
};

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let replicas = setting.wait_replicas.map(|count| count.to_string());
    let options: Vec<_> =
        replicas.iter().map(|count| ("JOBCAST_REDIS__WAIT_REPLICAS", count.as_str())).collect();
    let mut master = setting.redis("redis-0", &DURABLE).await?;
    let (mut replica, mut link) = follower(&setting, 1, &master).await?;
    let proxy = Proxy::start(master.address()).await?;
    let gateways = setting.gateways(3, proxy.address(), &options).await?;
    let mut trial = setting.trial(&gateways, Expectation::LostTail);
    // Half of the watchers come back now and then, so that they resume from what the store may have lost.
    let (lanes, direct) = (Lanes::start(&gateways, SHORT, !setting.no_proxy).await?, at(&gateways));
    let endpoint =
        |number: usize| if number.is_multiple_of(2) { direct(number) } else { lanes.endpoint(number / 2) };
    trial.watch(setting.sizes.clients, endpoint).await?;
    trial.publish();
    for round in 0..setting.sizes.rounds {
        sleep(Duration::from_millis(random.u64(500..1500))).await;
        // The replica gets nothing for a moment: there is a tail to lose, unless publishes wait for it.
        link.set(Condition::Held);
        sleep(Duration::from_millis(random.u64(50..500))).await;
        master.kill()?;
        proxy.set(Condition::Refusing);
        proxy.cut();
        link.cut();
        replica.done(&["REPLICAOF", "NO", "ONE"]).await?;
        proxy.switch(replica.address());
        proxy.set(Condition::Normal);
        trial.store_is_back().await?;
        for gateway in &gateways {
            readiness(gateway.address(), true, Duration::from_secs(60)).await?;
        }
        let (next, next_link) = follower(&setting, round + 2, &replica).await?;
        master = std::mem::replace(&mut replica, next);
        link = next_link;
    }
    sleep(Duration::from_secs(1)).await;
    let context = trial.context.clone();
    // Publishes that waited for the replica may lose what was not answered, and nothing else.
    let mut verdict = end(trial, setting.wait_replicas.is_some()).await?;
    verdict.remarks.push(context.first_tries_told());
    Ok(verdict)
}

/// A replica of a server, once it follows, and the link by which it does.
async fn follower(setting: &Setting, number: usize, master: &Redis) -> Result<(Redis, Proxy), Failure> {
    let link = Proxy::start(master.address()).await?;
    let port = link.address().port().to_string();
    let name = format!("redis-{number}");
    let arguments =
        [DURABLE.as_slice(), &["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]]
            .concat();
    let replica = setting.redis(&name, &arguments).await?;
    let begun = Instant::now();
    while !replica.info("replication").await?.contains("master_link_status:up") {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("the replica does not follow".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok((replica, link))
}
