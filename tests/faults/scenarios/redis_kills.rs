//! Redis, which has on disk what it answers, is killed at random moments and started again. As soon as it answers,
//! publishes are accepted.

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
        // Mostly: sometimes the next crash comes before everybody is back.
        if random.u8(0..4) > 0 {
            trial.store_is_back().await?;
        }
    }
    sleep(Duration::from_secs(1)).await;
    let context = trial.context.clone();
    let mut verdict = trial.finish().await?;
    verdict.remarks.push(context.first_tries_told());
    Ok(verdict)
}
