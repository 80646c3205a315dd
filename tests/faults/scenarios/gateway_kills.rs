//! Gateways are killed at random moments and started again at the same address.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    gateway::Gateway,
    redis::Redis,
    site::{DURABLE, Setting, StoreKind, at},
    trial::Expectation,
    verdict::Verdict,
};

/// How long a crashed node's clients may still be listed (contract, section 5).
const LEASE: Duration = Duration::from_secs(120);

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    match setting.store {
        StoreKind::Redis => on_redis(setting).await,
        StoreKind::Embedded => {
            let mut gateways = vec![setting.embedded(&[]).await?];
            rounds(&setting, &mut gateways).await
        }
    }
}

async fn on_redis(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &DURABLE).await?;
    let mut gateways = setting.gateways(3, redis.address(), &[]).await?;
    let mut verdict = rounds(&setting, &mut gateways).await?;
    if setting.full {
        let left = leftovers(&redis).await?;
        verdict.complaints.extend(left.iter().take(5).map(|key| format!("{key} is left after {LEASE:?}")));
        verdict.remarks.push(format!("{} keys of clients left after {LEASE:?}", left.len()));
    }
    Ok(verdict)
}

async fn rounds(setting: &Setting, gateways: &mut [Gateway]) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let mut trial = setting.trial(gateways, Expectation::Everything);
    trial.watch(setting.sizes.clients, at(gateways)).await?;
    trial.publish();
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_millis(random.u64(200..2000))).await;
        let gateway = random.usize(0..gateways.len());
        gateways[gateway].kill()?;
        sleep(Duration::from_millis(random.u64(0..1000))).await;
        gateways[gateway].restart().await?;
    }
    sleep(Duration::from_secs(1)).await;
    trial.finish().await
}

/// The keys of clients that are there although no client is, after the lease of those whose node crashed.
async fn leftovers(redis: &Redis) -> Result<Vec<String>, Failure> {
    let begun = Instant::now();
    loop {
        let mut left = Vec::new();
        for pattern in ["client:*", "subscriptions:*"] {
            left.extend(redis.keys(pattern).await?);
        }
        if left.is_empty() || begun.elapsed() > LEASE {
            return Ok(left);
        }
        sleep(Duration::from_secs(1)).await;
    }
}
