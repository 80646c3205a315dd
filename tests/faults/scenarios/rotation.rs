//! Histories are shorter than what watchers miss: what is gone is announced, and nothing else is.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Failure,
    client::Endpoint,
    proxy::{Condition, Proxy},
    site::{Setting, StoreKind},
    trial::{Expectation, Trial},
    verdict::Verdict,
};

/// How many events a history keeps here.
const SHORT_HISTORY: usize = 10;

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let short = SHORT_HISTORY.to_string();
    let options = [("JOBCAST_HISTORY__MAX_EVENTS", short.as_str())];
    let redis = setting.redis("redis", &[]).await?;
    let gateways = match setting.store {
        StoreKind::Redis => setting.gateways(2, redis.address(), &options).await?,
        StoreKind::Embedded => vec![setting.embedded(&options).await?],
    };
    let mut setup = setting.setup(&gateways, Expectation::Gaps);
    setup.history_cap = SHORT_HISTORY;
    let mut trial = Trial::new(setup);
    let mut proxies = Vec::new();
    for gateway in &gateways {
        proxies.push(Proxy::start(gateway.address()).await?);
    }
    // Half of the watchers miss nothing but what a slow machine makes them miss.
    let endpoint = |number: usize| {
        let way = number / 2 % gateways.len();
        let address = if number.is_multiple_of(2) { proxies[way].address() } else { gateways[way].address() };
        Endpoint { addresses: vec![address], ..Endpoint::default() }
    };
    trial.watch(setting.sizes.clients, endpoint).await?;
    trial.publish();
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_millis(500)).await;
        proxies.iter().for_each(|proxy| {
            proxy.set(Condition::Refusing);
            proxy.cut();
        });
        let before = trial.context.counts.answered.get();
        // Until every job's history has rotated by far.
        let enough = 3 * SHORT_HISTORY * setting.sizes.jobs;
        trial.context.counts.answered.reaches(before + enough as u64).await;
        proxies.iter().for_each(|proxy| proxy.set(Condition::Normal));
    }
    sleep(Duration::from_secs(1)).await;
    let mut verdict = trial.finish().await?;
    if verdict.announced == 0 {
        verdict.complaints.push("nothing was announced as gone: the scenario has shown nothing".to_owned());
    }
    Ok(verdict)
}
