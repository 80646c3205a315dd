//! A Redis Cluster: slots move from server to server, and masters are killed. What is moved is never lost, nor what
//! was answered by a gateway that waits for a replica.

use std::time::Duration;

use tokio::time::sleep;

use super::drops::SHORT;
use crate::{
    Failure,
    cluster::{Cluster, SOON},
    gateway::Gateway,
    lanes::Lanes,
    site::{Setting, USERS, at},
    trial::{Expectation, Trial},
    verdict::Verdict,
    view::Owners,
};

pub const MASTERS: usize = 3;

/// The longest pause between two steps of a move, in milliseconds.
const PAUSE: u64 = 250;

/// How many slots move between two kills.
const MOVES: usize = 2;

/// One slot after the other moves.
pub async fn moves(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let cluster = Cluster::start(&setting, MASTERS, 0, SOON).await?;
    let gateways = gateways(&setting, &cluster, 0).await?;
    let (trial, _lanes) = begin(&setting, &gateways, Expectation::Everything).await?;
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_millis(random.u64(0..500))).await;
        cluster.move_slot(&slot(&setting, &mut random), PAUSE, &mut random).await?;
    }
    sleep(Duration::from_secs(1)).await;
    trial.finish().await
}

/// A master dies, its replica takes over, and it comes back as a replica; between that, slots move.
pub async fn kills(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let mut cluster = Cluster::start(&setting, MASTERS, 1, SOON).await?;
    let waited_for = setting.wait_replicas.unwrap_or(1);
    let gateways = gateways(&setting, &cluster, waited_for).await?;
    let (trial, _lanes) = begin(&setting, &gateways, Expectation::LostTail).await?;
    for _ in 0..setting.sizes.rounds {
        for _ in 0..MOVES {
            cluster.move_slot(&slot(&setting, &mut random), PAUSE, &mut random).await?;
        }
        // Redis itself loses keys that have moved to a master which dies before its replica has them.
        cluster.whole().await?;
        sleep(Duration::from_millis(random.u64(0..1000))).await;
        let masters = cluster.masters().await?;
        let victim = masters[random.usize(0..masters.len())];
        cluster.kill(victim)?;
        cluster.taken_over(victim).await?;
        sleep(Duration::from_millis(random.u64(0..500))).await;
        cluster.restart(victim).await?;
        cluster.whole().await?;
    }
    sleep(Duration::from_secs(1)).await;
    end(trial, waited_for > 0).await
}

/// Three gateways, of which one knows all servers, one the first masters, and one a single server.
pub async fn gateways(setting: &Setting, cluster: &Cluster, replicas: u32) -> Result<Vec<Gateway>, Failure> {
    let replicas = replicas.to_string();
    let mut gateways = Vec::new();
    for (number, url) in
        [cluster.url(0..MASTERS), cluster.url(1..MASTERS), cluster.url([0])].iter().enumerate()
    {
        let variables = [("REDIS_URL", url.as_str()), ("JOBCAST_REDIS__WAIT_REPLICAS", &replicas)];
        gateways.push(setting.gateway(&format!("gateway-{number}"), &variables).await?);
    }
    Ok(gateways)
}

/// Watchers, of whom half come back now and then, and publishers.
async fn begin(
    setting: &Setting,
    gateways: &[Gateway],
    expectation: Expectation,
) -> Result<(Trial, Lanes), Failure> {
    let mut trial = setting.trial(gateways, expectation);
    let (lanes, direct) = (Lanes::start(gateways, SHORT, !setting.no_proxy).await?, at(gateways));
    let endpoint =
        |number: usize| if number.is_multiple_of(2) { direct(number) } else { lanes.endpoint(number / 2) };
    trial.watch(setting.sizes.clients, endpoint).await?;
    trial.publish();
    Ok((trial, lanes))
}

/// A key of the slot to move: mostly a job's, some times a shared room's.
fn slot(setting: &Setting, random: &mut fastrand::Rng) -> String {
    match random.u8(0..10) {
        0..3 => shared_room(random),
        _ => format!("job-history:job-{}", random.usize(0..setting.sizes.jobs)),
    }
}

/// The name of a shared room, which is the hash tag of its keys.
pub fn shared_room(random: &mut fastrand::Rng) -> String {
    let owners = Owners { users: USERS };
    match random.u8(0..3) {
        0 => "all-jobs".to_owned(),
        1 => format!("user:user-{}", random.usize(0..owners.users)),
        _ => format!("tenant:tenant-{}", random.usize(0..owners.tenants())),
    }
}

/// What comes of a trial in which masters were killed: a gateway that waits for a replica has lost nothing.
pub async fn end(trial: Trial, waits: bool) -> Result<Verdict, Failure> {
    let context = trial.context.clone();
    let mut verdict = trial.finish().await?;
    let lost = context.ledger.lost_count();
    let told = format!("{lost} answered events are lost from history");
    match waits && lost > 0 {
        true => verdict.complaints.push(told),
        false => verdict.remarks.push(told),
    }
    Ok(verdict)
}
