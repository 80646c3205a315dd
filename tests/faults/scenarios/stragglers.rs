//! One gateway is slow to reach Redis, so that what it is given first is stored last, while watchers lose their network.
//! Whoever comes back misses none of it.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Failure,
    lanes::Lanes,
    proxy::{Condition, Proxy},
    site::Setting,
    trial::Expectation,
    verdict::Verdict,
};

use super::drops::SHORT;

/// How slow: well within what a publish waits for the store.
const SLOW: Duration = Duration::from_millis(700);

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &[]).await?;
    let proxy = Proxy::start(redis.address()).await?;
    let mut gateways = setting.gateways(1, redis.address(), &[]).await?;
    let url = format!("redis://{}", proxy.address());
    let slow = setting.gateway("gateway-slow", &[("REDIS_URL", &url)]).await?;
    let lanes = Lanes::start(&gateways, SHORT, !setting.no_proxy).await?;
    // Publishers publish by both, watchers watch by the fast one.
    gateways.push(slow);
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    trial.watch(setting.sizes.clients, |number| lanes.endpoint(number)).await?;
    proxy.set(Condition::Slow(SLOW));
    trial.publish();
    sleep(setting.span()).await;
    proxy.set(Condition::Normal);
    trial.finish().await
}
