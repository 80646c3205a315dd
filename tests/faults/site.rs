//! The site of a trial: a folder, a Redis or none, and gateways on it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    client::Endpoint,
    gateway::{Configuration, Gateway, panics},
    redis::Redis,
    scenarios::Fault,
    trial::{Audience, Expectation, Setup, Trial, http_client},
    verdict::Verdict,
    view::Owners,
};

/// Which store gateways run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    Redis,
    Embedded,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub clients: usize,
    pub jobs: usize,
    /// Events a second, of all publishers together.
    pub rate: f64,
    pub seconds: u64,
    pub rounds: usize,
}

/// What a scenario is run with.
#[derive(Debug, Clone)]
pub struct Setting {
    pub sizes: Sizes,
    pub seed: u64,
    pub store: StoreKind,
    /// Whether it is the long form.
    pub full: bool,
    pub wait_replicas: Option<u32>,
    /// The one fault that happens, where there is a choice.
    pub fault: Option<Fault>,
    /// Which rooms watchers are in, where the scenario leaves it open.
    pub audience: Audience,
    /// Whether watchers lose their network by themselves, which costs fewer file descriptors than proxies.
    pub no_proxy: bool,
    pub folder: PathBuf,
}

/// Events that a history keeps, where its length is of no matter.
pub const LONG_HISTORY: usize = 50_000;

/// Users in a trial, where their number is of no matter.
pub const USERS: usize = 5;

/// A Redis that has on disk what it has answered.
pub const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

impl Setting {
    pub fn span(&self) -> Duration {
        Duration::from_secs(self.sizes.seconds)
    }

    pub fn random(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    /// A Redis with files of its own.
    pub async fn redis(&self, name: &str, arguments: &[&str]) -> Result<Redis, Failure> {
        Redis::start(self.folder.join(name), arguments).await
    }

    /// So many gateways on a Redis at that address.
    pub async fn gateways(
        &self,
        count: usize,
        redis: SocketAddr,
        more: &[(&str, &str)],
    ) -> Result<Vec<Gateway>, Failure> {
        let mut gateways = Vec::new();
        for number in 0..count {
            let url = format!("redis://{redis}");
            let variables = [&[("REDIS_URL", url.as_str())], more].concat();
            gateways.push(self.gateway(&format!("gateway-{number}"), &variables).await?);
        }
        Ok(gateways)
    }

    /// One gateway on a folder of its own.
    pub async fn embedded(&self, more: &[(&str, &str)]) -> Result<Gateway, Failure> {
        let path = self.folder.join("store");
        let path = path.to_string_lossy();
        self.gateway("gateway-0", &[&[("JOBCAST_STORE__PATH", path.as_ref())], more].concat()).await
    }

    /// One gateway with these variables; histories are long unless they say otherwise.
    pub async fn gateway(&self, name: &str, variables: &[(&str, &str)]) -> Result<Gateway, Failure> {
        let long = LONG_HISTORY.to_string();
        let mut all = vec![("JOBCAST_HISTORY__MAX_EVENTS".to_owned(), long)];
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (folder, name) = (self.folder.clone(), name.to_owned());
        Gateway::start(Configuration { variables: all, folder, name }).await
    }

    /// A trial on these gateways with the setting's sizes.
    pub fn trial(&self, gateways: &[Gateway], expectation: Expectation) -> Trial {
        Trial::new(self.setup(gateways, expectation))
    }

    pub fn setup(&self, gateways: &[Gateway], expectation: Expectation) -> Setup {
        Setup {
            jobs: self.sizes.jobs,
            seed: self.seed,
            rate: self.sizes.rate,
            padding: 0,
            history_cap: LONG_HISTORY,
            expectation,
            audience: self.audience,
            owners: Owners { users: USERS },
            jumps: self.store == StoreKind::Redis,
            gateways: gateways.iter().map(Gateway::address).collect(),
        }
    }

    /// Adds what the gateways' logs tell of panics.
    pub fn read_logs(&self, verdict: &mut Verdict) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("gateway") {
                verdict
                    .complaints
                    .extend(panics(&entry.path()).into_iter().map(|line| format!("{name}: {line}")));
            }
        }
    }
}

/// Endpoints with the addresses of all gateways.
pub fn at(gateways: &[Gateway]) -> impl Fn(usize) -> Endpoint {
    let addresses: Vec<_> = gateways.iter().map(Gateway::address).collect();
    move |_| Endpoint { addresses: addresses.clone(), ..Endpoint::default() }
}

/// Waits until a gateway says that it is ready, or is not. Answers how long that took.
pub async fn readiness(gateway: SocketAddr, ready: bool, patience: Duration) -> Result<Duration, Failure> {
    let (http, begun) = (http_client(None), Instant::now());
    loop {
        let asked =
            http.get(format!("http://{gateway}/readyz")).timeout(Duration::from_secs(15)).send().await;
        if asked.is_ok_and(|answer| answer.status().is_success() == ready) {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > patience {
            return Err(format!("{gateway}/readyz: not {ready} within {patience:?}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
