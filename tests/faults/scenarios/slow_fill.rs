//! A job's gap takes long to fill: the feed of the server that has the job is cut, and the server stands still. Watchers
//! of all jobs get the events of all other jobs without delay meanwhile.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::cluster::{MASTERS, gateways};
use crate::{
    Failure,
    client::{Endpoint, Stopwatch},
    cluster::Cluster,
    gateway::Gateway,
    site::{Setting, at},
    tally::Latencies,
    trial::{Expectation, Trial},
    verdict::Verdict,
    view::Room,
};

/// No server is taken for dead while it stands still, in milliseconds.
const NEVER: &str = "120000";

/// Windows of the latencies.
const MOVING: usize = 0;
const STILL: usize = 1;

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let cluster = Cluster::start(&setting, MASTERS, 0, NEVER).await?;
    let gateways = gateways(&setting, &cluster, 0).await?;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    let owners = setting.setup(&gateways, Expectation::Everything).owners;
    let all_jobs = cluster.holder("all-jobs").await?;
    let slow = (0..MASTERS).find(|place| *place != all_jobs).ok_or("one master has everything")?;
    let (mut quick, mut behind) = (BTreeSet::new(), Vec::new());
    for job in 0..setting.sizes.jobs {
        let history = format!("job-history:job-{job}");
        if cluster.holder(&history).await? == slow {
            behind.push(Room::Job(job));
            continue;
        }
        let user = format!("user:user-{}", owners.user_of(job));
        let tenant = format!("tenant:tenant-{}", owners.tenant_of(job));
        // Publishing waits for these.
        if cluster.holder(&user).await? != slow && cluster.holder(&tenant).await? != slow {
            quick.insert(job);
        }
    }
    if quick.is_empty() || behind.is_empty() {
        return Err("no job is quick, or none is slow: take more jobs".into());
    }
    let stopwatch = Arc::new(Stopwatch { jobs: quick, latencies: Latencies::default() });
    let watching = watchers(&setting, &mut trial, &gateways, &behind, &stopwatch);
    settled(&trial, watching).await?;
    trial.publish();
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_secs(1)).await;
        let server = cluster.server(slow);
        server.done(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
        server.signal("STOP")?;
        stopwatch.latencies.switch(STILL);
        sleep(setting.span()).await;
        server.signal("CONT")?;
        // What was held up comes now.
        sleep(Duration::from_secs(1)).await;
        stopwatch.latencies.switch(MOVING);
    }
    sleep(Duration::from_secs(1)).await;
    let mut verdict = trial.finish().await?;
    tell(&stopwatch.latencies, setting.span() / 2, &mut verdict);
    Ok(verdict)
}

/// Watchers of all jobs; every second one is in the slow jobs' rooms too, and so behind there.
fn watchers(
    setting: &Setting,
    trial: &mut Trial,
    gateways: &[Gateway],
    behind: &[Room],
    stopwatch: &Arc<Stopwatch>,
) -> u64 {
    let endpoint = at(gateways);
    for number in 0..setting.sizes.clients {
        let mut rooms = vec![Room::All];
        if number.is_multiple_of(2) {
            rooms.extend(behind.iter().take(5));
        }
        let endpoint = Endpoint { stopwatch: Some(stopwatch.clone()), ..endpoint(number) };
        trial.add(format!("watcher {number}"), rooms, endpoint);
    }
    setting.sizes.clients as u64
}

async fn settled(trial: &Trial, watchers: u64) -> Result<(), Failure> {
    let settled = timeout(Duration::from_secs(60), trial.context.settled.reaches(watchers)).await;
    settled.map_err(|_| "not all watchers were in their rooms within a minute".into())
}

/// Of a hundred deliveries all but one take no longer than the bound, which is less than the server stands still.
fn tell(latencies: &Latencies, bound: Duration, verdict: &mut Verdict) {
    let [moving, still] = [MOVING, STILL].map(|window| latencies.quantile(window, 0.99));
    let count = latencies.count(STILL);
    verdict.remarks.push(format!(
        "99 of 100 deliveries of other jobs within {moving:.1?}, and while the server stood still ({count} of \
         them) within {still:.1?}"
    ));
    if count == 0 || still > bound {
        verdict
            .complaints
            .push(format!("one job's gap held others up: {count} deliveries, 99 % within {still:.1?}"));
    }
}
