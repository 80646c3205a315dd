//! Redis is away for a while: watchers stay connected, publishers are told soon, and afterwards all is as before.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    proxy::{Condition, Proxy},
    site::{DURABLE, Setting, at, readiness},
    trial::Expectation,
    verdict::Verdict,
};

/// How soon a publish has to be answered that the store does not take.
const BOUND: Duration = Duration::from_secs(15);

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &DURABLE).await?;
    let proxy = Proxy::start(redis.address()).await?;
    let gateways = setting.gateways(2, proxy.address(), &[]).await?;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    trial.watch(setting.sizes.clients, at(&gateways)).await?;
    trial.publish();
    sleep(Duration::from_secs(1)).await;
    let connected = trial.context.counts.connections.get();

    let begun = Instant::now();
    proxy.set(Condition::Refusing);
    proxy.cut();
    let mut down = Vec::new();
    for gateway in &gateways {
        down.push(readiness(gateway.address(), false, setting.span() + BOUND).await?);
    }
    sleep(setting.span().saturating_sub(begun.elapsed())).await;
    let unavailable = trial.context.counts.unavailable.get();
    proxy.set(Condition::Normal);
    let mut up = Vec::new();
    for gateway in &gateways {
        up.push(readiness(gateway.address(), true, Duration::from_secs(60)).await?);
    }
    sleep(Duration::from_secs(1)).await;

    let context = trial.context.clone();
    let mut verdict = trial.finish().await?;
    let reconnected = context.counts.connections.get() - connected;
    if reconnected > 0 {
        verdict.complaints.push(format!("{reconnected} connections were made again"));
    }
    if unavailable == 0 && setting.full {
        verdict.complaints.push("no publish was answered 503 during the outage".to_owned());
    }
    if Duration::from_millis(verdict.slowest_try_ms) > BOUND {
        verdict.complaints.push(format!("a publish was answered after {} ms", verdict.slowest_try_ms));
    }
    verdict.remarks.push(format!("not ready after {down:?}, ready again after {up:?}"));
    Ok(verdict)
}
