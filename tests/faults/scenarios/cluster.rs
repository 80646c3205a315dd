//! A Redis Cluster: slots move from server to server, and masters are killed. What is moved is never lost, nor what
//! was answered by a gateway that waits for a replica.

use std::time::Duration;

use tokio::time::sleep;

use super::drops::SHORT;
use crate::{
    Failure,
    cluster::Cluster,
    gateway::Gateway,
    lanes::Lanes,
    site::{Setting, at},
    trial::{Expectation, Trial},
    verdict::Verdict,
    view::{TENANTS, USERS},
};

const MASTERS: usize = 3;

/// The longest pause between two steps of a move, in milliseconds.
const PAUSE: u64 = 250;

/// How many slots move between two kills.
const MOVES: usize = 2;

/// One slot after the other moves.
pub async fn moves(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let cluster = Cluster::start(&setting, MASTERS, 0).await?;
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
    let mut cluster = Cluster::start(&setting, MASTERS, 1).await?;
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
    let floor = trial.floor.clone();
    let mut verdict = trial.finish().await?;
    let lost = format!("{} answered events are lost from history", floor.ledger.lost_count());
    match waited_for > 0 && floor.ledger.lost_count() > 0 {
        true => verdict.complaints.push(lost),
        false => verdict.remarks.push(lost),
    }
    Ok(verdict)
}

/// Three gateways, of which one knows all servers, one the first masters, and one a single server.
async fn gateways(setting: &Setting, cluster: &Cluster, replicas: u32) -> Result<Vec<Gateway>, Failure> {
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

/// The first watcher of twenty in rooms that are resumed by time (see `trial`).
const BY_TIME: usize = 15;

/// Watchers, of whom half come back now and then, and publishers. Those who would resume by time stay: while the server
/// of their room fails over, an event may reach it after younger ones of jobs elsewhere, and who is cut off in that very
/// moment does not ask for it again.
async fn begin(
    setting: &Setting,
    gateways: &[Gateway],
    expectation: Expectation,
) -> Result<(Trial, Lanes), Failure> {
    let mut trial = setting.trial(gateways, expectation);
    let (lanes, direct) = (Lanes::start(gateways, SHORT, !setting.no_proxy).await?, at(gateways));
    let stays = |number: usize| number.is_multiple_of(2) || number % 20 >= BY_TIME;
    let home = |number: usize| if stays(number) { direct(number) } else { lanes.home(number / 2) };
    trial.watch(setting.sizes.clients, home).await?;
    trial.publish();
    Ok((trial, lanes))
}

/// A key of the slot to move: mostly a job's, some times that of an index.
fn slot(setting: &Setting, random: &mut fastrand::Rng) -> String {
    match random.u8(0..10) {
        0 => "all-jobs".to_owned(),
        1 => format!("user:user-{}", random.usize(0..USERS)),
        2 => format!("tenant:tenant-{}", random.usize(0..TENANTS)),
        _ => format!("job-history:job-{}", random.usize(0..setting.sizes.jobs)),
    }
}
