//! Abuse: one gateway, honest watchers and publishers, and beside them everything that attackers on the same network
//! try. Whoever behaves notices nothing, and the gateway's memory stays within its bound.
//!
//! ```text
//! cargo test --profile cost --test abuse             everything at once, in short, as `tests/run.sh` does
//! cargo test --profile cost --test abuse -- --full   for two minutes
//! cargo test --test abuse -- http2 ping-flood        these attacks alone
//! cargo test --test abuse -- --each                  one attack after the other, each on a gateway of its own
//! ```
//!
//! `docs/abuse.md` says what has to hold. Whatever is chosen at random comes from the seed that is printed; `SEED=7`
//! gives another. `JOBCAST_BIN` names another binary than the one just built.
//!
//! - `attacks/` has the attacks, by subject; an attack is the life of one `hand`, which begins again when it is cut
//! - `crew` keeps all hands at work, on a thread of its own
//! - `preload` gives them something to read
//! - `probe` asks for `/healthz` and joins as newcomers do, `watchdog` has an eye on memory
//! - `run` puts all that beside the `honest` ones, and `bars` is what it is measured against
//!
//! Honest watchers, publishers and what they are compared by are those of `tests/faults/`.

mod attacks;
mod bars;
mod crew;
mod hand;
mod honest;
mod preload;
mod probe;
mod run;
mod watchdog;

#[path = "../faults/client.rs"]
mod client;
#[path = "../faults/gateway.rs"]
#[allow(dead_code, reason = "faults need more of a gateway")]
mod gateway;
#[path = "../faults/ledger.rs"]
#[allow(dead_code, reason = "faults count more")]
mod ledger;
#[path = "../faults/publisher.rs"]
mod publisher;
#[path = "../faults/ranges.rs"]
mod ranges;
#[path = "../faults/tally.rs"]
#[allow(dead_code, reason = "faults measure more")]
mod tally;
#[path = "../faults/trial.rs"]
#[allow(dead_code, reason = "faults begin and end trials in more ways")]
mod trial;
#[path = "../faults/verdict.rs"]
#[allow(dead_code, reason = "faults have more verdicts")]
mod verdict;
#[path = "../faults/view.rs"]
mod view;
#[path = "../faults/wire.rs"]
mod wire;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    attacks::{ALL, Attack},
    bars::Report,
    run::Setting,
};

/// What went wrong with the trial itself.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Attackers beside honest clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// The attacks whose names contain one of these; all without it.
    attacks: Vec<String>,
    /// Run the long form.
    #[arg(long)]
    full: bool,
    /// Run one attack after the other, each on a gateway of its own.
    #[arg(long)]
    each: bool,
    /// How long the attack lasts.
    #[arg(long)]
    seconds: Option<u64>,
    /// What all random choices come from.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// Only tell which attacks there are.
    #[arg(long)]
    list: bool,
}

impl Arguments {
    fn chosen(&self) -> Vec<&'static Attack> {
        let named = |attack: &&Attack| self.attacks.iter().any(|name| attack.name.contains(name.as_str()));
        ALL.iter().filter(|attack| self.attacks.is_empty() || named(attack)).collect()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = arguments.chosen();
    if arguments.list {
        chosen.iter().for_each(|attack| println!("{}: {}", attack.name, attack.about));
        return ExitCode::SUCCESS;
    }
    raise_descriptor_limit();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let setting = Setting::new(arguments.full, arguments.seconds, seed);
    let trials: Vec<&[&Attack]> = if arguments.each { chosen.chunks(1).collect() } else { vec![&chosen] };
    println!("\nrunning {} attacks, SEED={seed}", chosen.len());
    let mut hold = !chosen.is_empty();
    for attacks in trials {
        let report = run::run(attacks, &setting).await;
        hold &= report.as_ref().is_ok_and(Report::holds);
        match report {
            Ok(report) if arguments.each => println!("{}", report.line(attacks[0].name)),
            Ok(report) => println!("{report}"),
            Err(failure) => println!("FAIL {failure}"),
        }
    }
    if hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Watchers and attackers are all in this process.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where that is not allowed, connections fail, and tell why.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
