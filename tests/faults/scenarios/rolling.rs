//! Gateways are restarted one after the other, as a deployment does.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    site::{DURABLE, Setting, at},
    trial::Expectation,
    verdict::Verdict,
};

/// How long an orderly end may take: the default of `server.shutdown_grace`, and a little for the process itself.
const GRACE: Duration = Duration::from_secs(11);

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &DURABLE).await?;
    let mut gateways = setting.gateways(3, redis.address(), &[]).await?;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    trial.watch(setting.sizes.clients, at(&gateways)).await?;
    trial.publish();
    let (mut complaints, mut slowest) = (Vec::new(), Duration::ZERO);
    for round in 0..setting.sizes.rounds {
        for (number, gateway) in gateways.iter_mut().enumerate() {
            sleep(Duration::from_millis(500)).await;
            let begun = Instant::now();
            let status = gateway.terminate(GRACE * 2).await?;
            slowest = slowest.max(begun.elapsed());
            if !status.success() || begun.elapsed() > GRACE {
                complaints.push(format!(
                    "round {round}: gateway {number} ended with {status} after {:?}",
                    begun.elapsed()
                ));
            }
            gateway.restart().await?;
        }
    }
    sleep(Duration::from_secs(1)).await;
    let mut verdict = trial.finish().await?;
    verdict.complaints.append(&mut complaints);
    verdict.remarks.push(format!("the slowest orderly end took {slowest:?}"));
    Ok(verdict)
}
