//! One watcher stops reading. Everybody else notices nothing, and it is closed, or caught up when it reads again.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};

use crate::{
    Failure,
    client::Endpoint,
    site::{Setting, at},
    trial::{Expectation, Trial},
    verdict::Verdict,
    view::Room,
};

/// Payloads long enough to fill what lies between a gateway and a watcher that does not read.
const PADDING: usize = 4000;

/// Windows of the latencies.
const WITHOUT: usize = 0;
const WITH: usize = 1;
const BETWEEN: usize = 2;

/// How long a change may take to be over.
const BREATH: Duration = Duration::from_secs(1);

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &[]).await?;
    let gateways = setting.gateways(1, redis.address(), &[]).await?;
    let mut setup = setting.setup(&gateways, Expectation::Everything);
    setup.padding = PADDING;
    let mut trial = Trial::new(setup);
    trial.watch(setting.sizes.clients, at(&gateways)).await?;
    let reading = watch::Sender::new(true);
    let addresses = vec![gateways[0].address()];
    trial.add(
        "the stalled one".to_owned(),
        vec![Room::All],
        Endpoint { addresses, reading: Some(reading.subscribe()), ..Endpoint::default() },
    );
    trial.publish();
    let latencies = &trial.context.latencies;
    let mut memory = Vec::new();
    for _ in 0..setting.sizes.rounds {
        for window in [WITHOUT, WITH] {
            reading.send_replace(window == WITHOUT);
            // What begins or ends does not count.
            latencies.switch(BETWEEN);
            sleep(BREATH).await;
            latencies.switch(window);
            sleep(setting.span()).await;
            memory.push(gateways[0].memory());
        }
    }
    latencies.switch(BETWEEN);
    reading.send_replace(true);
    let context = trial.context.clone();
    let mut verdict = trial.finish().await?;
    let quantiles = |window| [0.5, 0.99].map(|share| context.latencies.quantile(window, share));
    let ([p50, p99], [with_p50, with_p99]) = (quantiles(WITHOUT), quantiles(WITH));
    let ratio = with_p99.as_secs_f64() / p99.as_secs_f64();
    verdict.remarks.push(format!("without: p50 {p50:.1?}, p99 {p99:.1?}"));
    verdict.remarks.push(format!(
        "with one that does not read: p50 {with_p50:.1?}, p99 {with_p99:.1?}: {ratio:.2} times"
    ));
    verdict.remarks.push(format!("the gateway's memory after each window: {memory:?} MiB"));
    Ok(verdict)
}
