//! Watchers behind lanes that lose the network for a while, each at its own phase.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Failure,
    lanes::{Lanes, Rhythm},
    site::Setting,
    trial::Expectation,
    verdict::Verdict,
};

/// What the contract's clients see on a bad day.
pub const LONG: Rhythm = Rhythm { period: Duration::from_secs(15), down: Duration::from_secs(2) };

/// So short that every lane is down at least once in the short form.
pub const SHORT: Rhythm = Rhythm { period: Duration::from_secs(4), down: Duration::from_secs(1) };

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &[]).await?;
    let gateways = setting.gateways(2, redis.address(), &[]).await?;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    let rhythm = if setting.full { LONG } else { SHORT };
    let lanes = Lanes::start(&gateways, rhythm, !setting.no_proxy).await?;
    trial.watch(setting.sizes.clients, |number| lanes.endpoint(number)).await?;
    trial.publish();
    sleep(setting.span()).await;
    // Lanes go on dropping while watchers catch up.
    trial.finish().await
}
