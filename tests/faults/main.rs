//! Load and faults: real gateways, thousands of watchers, publishers, and everything that can go wrong between them
//! on one machine. What each watcher got is compared with what publishers were answered, number by number.
//!
//! ```text
//! cargo test --test faults                                   every scenario in its short form, as `tests/run.sh` does
//! cargo test --release --test faults -- redis-kills --full   one of them in its long form
//! cargo test --release --test faults -- drops --clients 5000 --seconds 60 --seed 7
//! ```
//!
//! `cargo test` alone runs none of them: they need `redis-server`, and take minutes.
//!
//! A scenario's verdict fails by any silent difference: an answered event that a watcher neither got nor was told of
//! as gone, one that came twice or out of its room's order, a number with two contents, a history that lacks what was
//! answered. A jump in the numbers of a job is nothing; only the server says what is gone.
//! Whatever is chosen at random comes from the seed that is printed; processes and networks add their own chance.
//!
//! - `scenarios/` has a file for each scenario
//! - `site` is what a scenario runs on: `gateway` and `redis` processes, a `cluster` of them, a `proxy` between whom it
//!   likes, `lanes`
//! - `trial` puts `client`s and `publisher`s on it, and sees them to the end
//! - `view` is the world as one watcher sees it, `ledger` what publishers were answered, `verdict` the comparison
//! - `wire` is Socket.IO, `ranges` and `tally` are numbers
//!
//! `JOBCAST_BIN` names another binary than the one just built. A process may need many file descriptors: one for each
//! watcher, three where proxies are between (`--no-proxy` does without).

mod client;
mod cluster;
mod gateway;
mod lanes;
mod ledger;
mod proxy;
mod publisher;
mod ranges;
mod redis;
mod scenarios;
mod site;
mod tally;
mod trial;
mod verdict;
mod view;
mod wire;

use std::{path::Path, process::ExitCode, time::Instant};

use clap::Parser;

use crate::{
    scenarios::{ALL, Fault, Scenario},
    site::{Setting, Sizes, StoreKind},
    trial::Audience,
};

/// What went wrong with the trial itself.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Load and faults.
#[derive(Debug, Parser)]
struct Arguments {
    /// The scenarios whose name contains this; all without it, or with `all`.
    scenario: Option<String>,
    /// Run the long form.
    #[arg(long)]
    full: bool,
    /// How many watchers.
    #[arg(long)]
    clients: Option<usize>,
    /// How many jobs, each with a publisher.
    #[arg(long)]
    jobs: Option<usize>,
    /// How many events a second, all publishers together.
    #[arg(long)]
    rate: Option<f64>,
    /// For how long, where a scenario has no rounds.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many times, where it has.
    #[arg(long)]
    rounds: Option<usize>,
    /// What all random choices come from.
    #[arg(long)]
    seed: Option<u64>,
    /// The store, where a scenario works with either; both without it.
    #[arg(long, value_enum)]
    store: Option<StoreKind>,
    /// Have a publish wait for so many replicas.
    #[arg(long)]
    wait_replicas: Option<u32>,
    /// The one fault that happens in `cuts`.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// Which rooms watchers are in, where the scenario leaves it open.
    #[arg(long, value_enum, default_value = "mixed")]
    audience: Audience,
    /// Watchers lose their network by themselves.
    #[arg(long)]
    no_proxy: bool,
    /// Only tell which scenarios there are.
    #[arg(long)]
    list: bool,
    /// Options of Rust's own test harness, which mean nothing here.
    #[command(flatten)]
    others: Others,
}

#[derive(Debug, clap::Args)]
struct Others {
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
    #[arg(long, hide = true)]
    skip: Vec<String>,
}

impl Arguments {
    fn wants(&self, scenario: &Scenario) -> bool {
        let named = self.scenario.as_deref().is_none_or(|name| name == "all" || scenario.name.contains(name));
        // None is ignored by default.
        named && !self.others.ignored && !self.others.skip.iter().any(|name| scenario.name.contains(name))
    }

    /// The scenarios to run, each with the store to run it on.
    fn chosen(&self) -> Vec<(&'static Scenario, StoreKind)> {
        let scenarios = ALL.iter().filter(|scenario| self.wants(scenario));
        let on_stores = |scenario: &'static Scenario| {
            let stores = scenario.stores.iter().filter(|store| self.store.is_none_or(|only| only == **store));
            stores.map(move |store| (scenario, *store))
        };
        scenarios.flat_map(on_stores).collect()
    }

    fn setting(&self, scenario: &Scenario, store: StoreKind, seed: u64, folder: &Path) -> Setting {
        let sizes = if self.full { scenario.full } else { scenario.short };
        Setting {
            sizes: Sizes {
                clients: self.clients.unwrap_or(sizes.clients),
                jobs: self.jobs.unwrap_or(sizes.jobs),
                rate: self.rate.unwrap_or(sizes.rate),
                seconds: self.seconds.unwrap_or(sizes.seconds),
                rounds: self.rounds.unwrap_or(sizes.rounds),
            },
            seed,
            store,
            full: self.full,
            wait_replicas: self.wait_replicas,
            fault: self.fault,
            audience: self.audience,
            no_proxy: self.no_proxy,
            folder: folder.to_owned(),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = arguments.chosen();
    if arguments.list {
        chosen.iter().for_each(|(scenario, store)| println!("{} on {store:?}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    println!("\nrunning {} fault scenarios", chosen.len());
    let mut failed = 0;
    for (scenario, store) in &chosen {
        if !run(scenario, *store, &arguments, seed).await {
            failed += 1;
        }
    }
    println!("{} held, {failed} failed\n", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one scenario and tells its verdict. The files of one that fails are kept.
async fn run(scenario: &Scenario, store: StoreKind, arguments: &Arguments, seed: u64) -> bool {
    let folder = tempfile::Builder::new().prefix("jobcast-faults-").tempdir();
    let folder = folder.expect("the system has a folder for temporary files");
    let setting = arguments.setting(scenario, store, seed, folder.path());
    let Sizes { clients, jobs, rate, .. } = setting.sizes;
    let begun = Instant::now();
    let outcome = (scenario.run)(setting.clone()).await;
    let seconds = begun.elapsed().as_secs_f64();
    let told = format!(
        "{} on {store:?} (seed {seed}, {clients} watchers, {jobs} jobs, {rate}/s, {seconds:.1} s)",
        scenario.name
    );
    let holds = match outcome {
        Ok(mut verdict) => {
            setting.read_logs(&mut verdict);
            let holds = verdict.holds();
            println!("{} {told}: {verdict}", if holds { "ok  " } else { "FAIL" });
            holds
        }
        Err(failure) => {
            println!("FAIL {told}: {}: {failure}", scenario.about);
            false
        }
    };
    if !holds {
        println!("     its logs are in {}", folder.keep().display());
    }
    holds
}
