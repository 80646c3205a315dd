//! Redis, which has on disk what it answers, is killed at random moments and started again.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Failure,
    site::{DURABLE, Setting, at},
    trial::Expectation,
    verdict::Verdict,
};

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let mut redis = setting.redis("redis", &DURABLE).await?;
    let gateways = setting.gateways(3, redis.address(), &[]).await?;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    trial.watch(setting.sizes.clients, at(&gateways)).await?;
    trial.publish();
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_millis(random.u64(200..2000))).await;
        redis.kill()?;
        sleep(Duration::from_millis(random.u64(0..1500))).await;
        redis.restart().await?;
    }
    sleep(Duration::from_secs(1)).await;
    trial.finish().await
}
