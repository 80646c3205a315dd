//! Everything at once: watchers lose their network, gateways and Redis are killed, and what lies between them fails
//! for one gateway at a time.

use std::time::Duration;

use clap::ValueEnum;
use tokio::time::sleep;

use super::{
    cuts::{Fault, happen},
    drops::SHORT,
};
use crate::{
    Failure,
    lanes::Lanes,
    proxy::Proxy,
    site::{DURABLE, Setting},
    trial::Expectation,
    verdict::Verdict,
};

/// How many gateways there are.
const GATEWAYS: usize = 3;

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let mut redis = setting.redis("redis", &DURABLE).await?;
    let (mut proxies, mut gateways) = (Vec::new(), Vec::new());
    for number in 0..GATEWAYS {
        let proxy = Proxy::start(redis.address()).await?;
        let url = format!("redis://{}", proxy.address());
        gateways.push(setting.gateway(&format!("gateway-{number}"), &[("REDIS_URL", &url)]).await?);
        proxies.push(proxy);
    }
    let lanes = Lanes::start(&gateways, SHORT, !setting.no_proxy).await?;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    trial.watch(setting.sizes.clients, |number| lanes.endpoint(number)).await?;
    trial.publish();
    for _ in 0..setting.sizes.rounds {
        sleep(Duration::from_millis(random.u64(100..1000))).await;
        let place = random.usize(0..GATEWAYS);
        match random.u8(0..4) {
            0 => {
                redis.kill()?;
                sleep(Duration::from_millis(random.u64(0..1000))).await;
                redis.restart().await?;
            }
            1 => {
                gateways[place].kill()?;
                sleep(Duration::from_millis(random.u64(0..1000))).await;
                gateways[place].restart().await?;
            }
            _ => {
                let faults = Fault::value_variants();
                let fault = setting.fault.unwrap_or(faults[random.usize(0..faults.len())]);
                happen(fault, &proxies[place], &redis, &mut random, setting.full).await?;
            }
        }
    }
    sleep(Duration::from_secs(1)).await;
    proxies.iter().for_each(Proxy::disarm);
    trial.finish().await
}
