//! Lanes between watchers and gateways, each of which loses the network for a while, at its own phase.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval_at, sleep},
};

use crate::{
    Failure,
    client::Endpoint,
    gateway::Gateway,
    proxy::{Condition, Proxy},
};

/// How many lanes there are.
const LANES: usize = 10;

/// How often a lane is down, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    pub period: Duration,
    pub down: Duration,
}

/// Lanes that go on dropping until they are dropped themselves.
pub struct Lanes {
    endpoints: Vec<Endpoint>,
    dropping: Vec<JoinHandle<()>>,
}

impl Lanes {
    /// Lanes of proxies to these gateways; without proxies watchers lose their network by themselves.
    pub async fn start(gateways: &[Gateway], rhythm: Rhythm, proxies: bool) -> Result<Self, Failure> {
        let addresses: Vec<SocketAddr> = gateways.iter().map(Gateway::address).collect();
        let mut lanes = Self { endpoints: Vec::new(), dropping: Vec::new() };
        for number in 0..LANES {
            let phase = rhythm.period.mul_f64(number as f64 / LANES as f64);
            if proxies {
                let proxy = Proxy::start(addresses[number % addresses.len()]).await?;
                lanes.endpoints.push(Endpoint { addresses: vec![proxy.address()], ..Endpoint::default() });
                lanes.dropping.push(tokio::spawn(drop_lane(proxy, addresses.clone(), phase, rhythm)));
            } else {
                let network = watch::Sender::new(true);
                let receiver = Some(network.subscribe());
                lanes.endpoints.push(Endpoint {
                    addresses: addresses.clone(),
                    network: receiver,
                    ..Endpoint::default()
                });
                lanes.dropping.push(tokio::spawn(lose_network(network, phase, rhythm)));
            }
        }
        Ok(lanes)
    }

    /// A watcher's endpoint: one of them.
    pub fn endpoint(&self, number: usize) -> Endpoint {
        let lane = &self.endpoints[number % LANES];
        Endpoint { addresses: lane.addresses.clone(), network: lane.network.clone(), ..Endpoint::default() }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.dropping.iter().for_each(JoinHandle::abort);
    }
}

async fn lose_network(network: watch::Sender<bool>, phase: Duration, rhythm: Rhythm) {
    let mut times = interval_at(Instant::now() + phase, rhythm.period);
    loop {
        times.tick().await;
        network.send_replace(false);
        sleep(rhythm.down).await;
        network.send_replace(true);
    }
}

/// Whoever comes back by the lane meets the next gateway behind it.
async fn drop_lane(proxy: Proxy, gateways: Vec<SocketAddr>, phase: Duration, rhythm: Rhythm) {
    let mut times = interval_at(Instant::now() + phase, rhythm.period);
    for turn in 0.. {
        times.tick().await;
        proxy.set(Condition::Refusing);
        proxy.cut();
        sleep(rhythm.down).await;
        proxy.switch(gateways[turn % gateways.len()]);
        proxy.set(Condition::Normal);
    }
}
