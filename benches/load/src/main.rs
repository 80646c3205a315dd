//! Loads Jobcast and what it is compared with, and measures both: one run, or all runs in rounds with a report.

#![forbid(unsafe_code)]

mod answer;
mod bars;
mod cli;
mod credential;
mod digits;
mod drive;
mod error;
mod figure;
mod frontier;
mod interrupt;
mod latency;
mod loads;
mod machine;
mod matrix;
mod names;
mod order;
mod over;
mod proc;
mod process;
mod publisher;
mod redis;
mod report;
mod room;
mod rows;
mod scenario;
mod socket;
mod stage;
mod stats;
mod subject;
mod swarm;
mod tally;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{Cli, Command, One};
use crate::error::Error;
use crate::figure::shown;
use crate::loads::Entry;
use crate::scenario::Scenario;
use crate::stage::{Stage, scratch};
use crate::subject::Programs;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = start().and_then(|()| match cli.command {
        Some(Command::One(one)) => run_one(&one).map(|()| true),
        Some(Command::List) => Ok(list()),
        None => matrix::run(&cli.matrix, &programs()?, &root()),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes as many open files as the system grants, and minds signals.
fn start() -> Result<(), Error> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    latency::micros();
    interrupt::watch()
}

fn run_one(one: &One) -> Result<(), Error> {
    let scenario = named(&one.scenario)?;
    let mut stage = match (one.attach, one.subject) {
        (Some((pid, port)), _) => Stage::attach(pid, port),
        (None, Some(subject)) => Stage::start(&programs()?, subject, scenario.nodes(), &scratch(&root()))?,
        (None, None) => return Err("neither a subject nor a server to attach to".into()),
    };
    if stage.pids().len() < scenario.nodes() {
        return Err(format!("this load takes {} processes", scenario.nodes()).into());
    }
    for (pid, server) in stage.pids().iter().zip(stage.servers()) {
        eprintln!("pid {pid}, http://{}", server.address);
    }
    let figures = scenario.run(&mut stage, one.knobs())?;
    let line: Vec<_> =
        figures.iter().map(|figure| format!("{} {}", figure.name, shown(figure.value))).collect();
    println!("{}: {}", one.scenario, line.join(" | "));
    while one.hold && !interrupt::asked() {
        std::thread::sleep(Duration::from_millis(100));
        stage.check()?;
    }
    Ok(())
}

fn named(name: &str) -> Result<Box<dyn Scenario>, Error> {
    let found = loads::all().into_iter().find(|entry| entry.name == name);
    found.map(|entry| entry.scenario).ok_or_else(|| format!("there is no scenario “{name}”").into())
}

/// The repository that this was built from.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

fn list() -> bool {
    for Entry { name, scenario, subjects } in loads::all() {
        let subjects: Vec<_> = subjects.iter().map(|subject| subject.name()).collect();
        println!("{name}\n  {}\n  {}", scenario.about(), subjects.join(", "));
    }
    true
}

fn programs() -> Result<Programs, Error> {
    let jobcast =
        std::env::var_os("JOBCAST_BIN").map_or_else(|| root().join("target/release/jobcast"), PathBuf::from);
    let jobcast = std::path::absolute(jobcast)?;
    let limits = std::env::current_exe()?.with_file_name("jobcast-limits");
    Ok(Programs { jobcast, limits, opponents: root().join("benches/opponents") })
}
