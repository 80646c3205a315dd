//! All watchers lose their connection in the same moment, come back at once and resume, while events go on.

use tokio::time::{Duration, Instant, sleep, timeout};

use crate::{
    Failure,
    site::{Setting, at},
    trial::Expectation,
    verdict::Verdict,
};

/// How long all may take to be back.
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &[]).await?;
    let gateways = setting.gateways(2, redis.address(), &[]).await?;
    let clients = setting.sizes.clients as u64;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    let arriving = Instant::now();
    trial.watch(setting.sizes.clients, at(&gateways)).await?;
    let arrived = arriving.elapsed();
    trial.publish();
    let mut remarks = vec![format!("{clients} arrived one by one in {arrived:.1?}")];
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_secs(1)).await;
        let context = &trial.context;
        let (begun, settled) = (Instant::now(), context.settlings.get());
        trial.drop_all();
        timeout(PATIENCE, context.settlings.reaches(settled + clients)).await.map_err(|_| {
            let back = context.settlings.get() - settled;
            format!("only {back} of {clients} watchers were back within {PATIENCE:?}")
        })?;
        let memory: Vec<_> = gateways.iter().map(|gateway| gateway.memory()).collect();
        remarks.push(format!(
            "all back in their rooms after {:.1?}; gateways at {memory:?} MiB",
            begun.elapsed()
        ));
    }
    let begun = Instant::now();
    trial.end_publishing().await?;
    trial.catch_up().await;
    remarks.push(format!("and caught up {:.1?} after that", begun.elapsed()));
    let mut verdict = trial.finish().await?;
    verdict.remarks.append(&mut remarks);
    Ok(verdict)
}
