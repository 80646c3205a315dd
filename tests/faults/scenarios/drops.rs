//! Watchers behind lanes that lose the network for a while, each at its own phase.

use std::time::Duration;

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval_at, sleep},
};

use crate::{
    Failure,
    client::Home,
    proxy::{Proxy, Weather},
    site::Setting,
    trial::Expectation,
    verdict::Verdict,
};

/// How many lanes there are, and how often and for how long each is down.
const LANES: usize = 10;
const PERIOD: Duration = Duration::from_secs(15);
const DOWN: Duration = Duration::from_secs(2);

/// Ends what it holds when it is dropped.
struct Dropping(JoinHandle<()>);

impl Drop for Dropping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let redis = setting.redis("redis", &[]).await?;
    let gateways = setting.gateways(2, redis.address(), &[]).await?;
    let mut trial = setting.trial(&gateways, Expectation::Everything);
    // The short form has a shorter period, so that every lane is down at least once.
    let (period, down) = if setting.full { (PERIOD, DOWN) } else { (PERIOD / 4, DOWN / 2) };
    let mut lanes = Vec::new();
    let mut dropping = Vec::new();
    for number in 0..LANES {
        let phase = period.mul_f64(number as f64 / LANES as f64);
        if setting.no_proxy {
            let network = watch::Sender::new(true);
            lanes.push(Home {
                doors: gateways.iter().map(|gateway| gateway.address()).collect(),
                network: Some(network.subscribe()),
                ..Home::default()
            });
            dropping.push(Dropping(tokio::spawn(lose_network(network, phase, period, down))));
        } else {
            let upstream = gateways[number % gateways.len()].address();
            let proxy = Proxy::start(upstream).await?;
            // A client comes back by the same lane, to whatever gateway is behind it then.
            lanes.push(Home { doors: vec![proxy.address()], ..Home::default() });
            let upstreams = gateways.iter().map(|gateway| gateway.address()).collect();
            dropping.push(Dropping(tokio::spawn(drop_lane(proxy, upstreams, phase, period, down))));
        }
    }
    let home = |number: usize| {
        let lane = &lanes[number % LANES];
        Home { doors: lane.doors.clone(), network: lane.network.clone(), ..Home::default() }
    };
    trial.watch(setting.sizes.clients, home).await?;
    trial.publish();
    sleep(setting.span()).await;
    // Lanes go on dropping while watchers catch up.
    trial.finish().await
}

async fn lose_network(network: watch::Sender<bool>, phase: Duration, period: Duration, down: Duration) {
    let mut times = interval_at(Instant::now() + phase, period);
    loop {
        times.tick().await;
        network.send_replace(false);
        sleep(down).await;
        network.send_replace(true);
    }
}

async fn drop_lane(
    proxy: Proxy,
    upstreams: Vec<std::net::SocketAddr>,
    phase: Duration,
    period: Duration,
    down: Duration,
) {
    let mut times = interval_at(Instant::now() + phase, period);
    for turn in 0.. {
        times.tick().await;
        proxy.set(Weather::Refusing);
        proxy.cut();
        sleep(down).await;
        proxy.switch(upstreams[turn % upstreams.len()]);
        proxy.set(Weather::Fair);
    }
}
