//! Abuse: one gateway, honest watchers and publishers, and beside them everything that attackers on the same network
//! try. Whoever behaves notices nothing, and the gateway's memory stays within its bound.
//!
//! ```text
//! cargo test --profile cost --test abuse             everything at once, in short, as `tests/run.sh` does
//! cargo test --profile cost --test abuse -- --full   for two minutes
//! cargo test --test abuse -- http2 ping-flood        these attacks alone
//! cargo test --test abuse -- --each                  one attack after the other, each on a gateway of its own
//! cargo test --profile cost --test abuse -- token    one client with a valid token, and then one with a key
//! ```
//!
//! `docs/abuse.md` says what has to hold. Whatever is chosen at random comes from the seed that is printed; `SEED=7`
//! gives another. `JOBCAST_BIN` names another binary than the one just built.
//!
//! - `attacks/` has the attacks, by subject; an attack is the life of one `hand`, which begins again when it is cut
//! - `crew` keeps all hands at work, on a thread of its own
//! - `credentials` says who is asked for what, and what they show
//! - `preload` gives them something to read
//! - `probe` asks for `/healthz` and joins as newcomers do, `watchdog` has an eye on memory
//! - `run` puts all that beside the `honest` ones, and `bars` is what it is measured against
//!
//! Honest watchers, publishers and what they are compared by are those of `tests/faults/`.

mod attacks;
mod bars;
mod credentials;
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

use crate::{attacks::Attack, bars::Report, credentials::Attackers, run::Setting};

/// What went wrong with the trial itself.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Attackers beside honest clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// The attacks whose names contain one of these; all without it. With `token` first, those of one client with a valid
    /// token, and then of one with an API key.
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
    /// The attacks of one run after the other, each by whom.
    fn chosen(&self) -> Vec<(Attackers, Vec<&'static Attack>)> {
        let (attackers, names): (&[Attackers], _) = match self.attacks.split_first() {
            Some((first, rest)) if first == "token" => (&[Attackers::Token, Attackers::Key], rest),
            _ => (&[Attackers::Anybody], self.attacks.as_slice()),
        };
        let named = |attack: &&Attack| {
            names.is_empty() || names.iter().any(|name| attack.name.contains(name.as_str()))
        };
        let of = |attackers: &Attackers| {
            (*attackers, attacks::of(*attackers).into_iter().filter(named).collect::<Vec<_>>())
        };
        attackers.iter().map(of).filter(|(_, attacks)| !attacks.is_empty()).collect()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = arguments.chosen();
    if arguments.list {
        for (attackers, attacks) in chosen {
            attacks.iter().for_each(|attack| println!("{attackers:?} {}: {}", attack.name, attack.about));
        }
        return ExitCode::SUCCESS;
    }
    raise_descriptor_limit();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let mut hold = !chosen.is_empty();
    for (attackers, attacks) in &chosen {
        println!("\nrunning {} attacks by {attackers:?}, SEED={seed}", attacks.len());
        let setting = Setting::new(*attackers, arguments.full, arguments.seconds, seed);
        let trials = if arguments.each { attacks.chunks(1) } else { attacks.chunks(attacks.len()) };
        for attacks in trials {
            let report = run::run(attacks, &setting).await;
            hold &= report.as_ref().is_ok_and(Report::holds);
            match report {
                Ok(report) if arguments.each => println!("{}", report.line(attacks[0].name)),
                Ok(report) => println!("{report}"),
                Err(failure) => println!("FAIL {failure}"),
            }
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
