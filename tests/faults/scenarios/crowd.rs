//! Very many watchers of users' rooms lose their network for two seconds every fifteen, and come back by position.

use tokio::time::sleep;

use super::drops::{LONG, SHORT};
use crate::{
    Failure,
    lanes::Lanes,
    site::{DURABLE, Setting},
    trial::{Audience, Expectation, Trial},
    verdict::Verdict,
    view::Owners,
};

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &DURABLE).await?;
    let gateways = setting.gateways(2, redis.address(), &[]).await?;
    let mut setup = setting.setup(&gateways, Expectation::Everything);
    setup.audience = Audience::Users;
    setup.owners = Owners { users: setting.sizes.jobs / 2 };
    let mut trial = Trial::new(setup);
    let rhythm = if setting.full { LONG } else { SHORT };
    // They lose it by themselves: proxies would take three file descriptors for each.
    let lanes = Lanes::start(&gateways, rhythm, false).await?;
    trial.watch(setting.sizes.clients, |number| lanes.endpoint(number)).await?;
    trial.publish();
    sleep(setting.span()).await;
    trial.finish().await
}
