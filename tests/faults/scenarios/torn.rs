//! Connections of watchers are cut in the middle of what is sent to them, replays above all. Whoever comes back gets
//! the rest.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    client::Endpoint,
    proxy::{Proxy, Way},
    site::{Setting, StoreKind},
    trial::Expectation,
    verdict::Verdict,
};

/// How many lanes are cut, each for itself.
const LANES: usize = 4;

/// How often each lane is armed again.
const PACE: Duration = Duration::from_millis(150);

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let redis = setting.redis("redis", &[]).await?;
    let gateways = match setting.store {
        StoreKind::Redis => setting.gateways(2, redis.address(), &[]).await?,
        StoreKind::Embedded => vec![setting.embedded(&[]).await?],
    };
    let mut lanes = Vec::new();
    for number in 0..LANES {
        lanes.push(Proxy::start(gateways[number % gateways.len()].address()).await?);
    }
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    let endpoint =
        |number: usize| Endpoint { addresses: vec![lanes[number % LANES].address()], ..Endpoint::default() };
    trial.watch(setting.sizes.clients, endpoint).await?;
    trial.publish();
    let begun = Instant::now();
    while begun.elapsed() < setting.span() {
        for lane in &lanes {
            lane.cut_after(random.usize(1..20_000), Way::Back);
        }
        sleep(PACE).await;
    }
    lanes.iter().for_each(Proxy::disarm);
    trial.finish().await
}
