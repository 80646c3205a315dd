//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::scenario::Knobs;
use crate::subject::Subject;

/// Loads Jobcast and what it is compared with, and measures both.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    pub matrix: Matrix,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Runs one load on one subject and prints what it measured.
    One(One),
    /// Lists loads and the subjects that each suits.
    List,
}

/// Every load on every subject, in rounds.
#[derive(Args)]
pub struct Matrix {
    /// How often everything is measured; the medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Only these loads.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub scenarios: Vec<String>,
    /// Only these subjects.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub subjects: Vec<Subject>,
    /// One round of short runs: to see that everything works.
    #[arg(long)]
    pub quick: bool,
    /// The folder for results.json and results.md [default: benches/results]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Forget what is in that folder: otherwise what is not measured again stays in the report.
    #[arg(long)]
    pub fresh: bool,
}

#[derive(Args)]
pub struct One {
    /// What is loaded.
    #[arg(long, required_unless_present = "attach")]
    pub subject: Option<Subject>,
    /// The load's name.
    #[arg(long)]
    pub scenario: String,
    /// How long to measure, in place of the load's own time.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// How many events may be outstanding in closed loops.
    #[arg(long)]
    pub window: Option<u64>,
    /// A short run: to see that it works.
    #[arg(long)]
    pub quick: bool,
    /// Leave the server running afterwards, until Ctrl-C.
    #[arg(long)]
    pub hold: bool,
    /// Load a server that runs already on 127.0.0.1; processor time is read from this process.
    #[arg(long, value_name = "PID:PORT", value_parser = pid_and_port, conflicts_with_all = ["subject", "hold"])]
    pub attach: Option<(u32, u16)>,
}

impl One {
    pub fn knobs(&self) -> Knobs {
        Knobs { quick: self.quick, seconds: self.seconds, window: self.window }
    }
}

impl Matrix {
    /// The subjects asked for, or all.
    pub fn subjects(&self) -> &[Subject] {
        if self.subjects.is_empty() { Subject::value_variants() } else { &self.subjects }
    }
}

fn pid_and_port(text: &str) -> Result<(u32, u16), String> {
    let (pid, port) = text.split_once(':').ok_or("must be PID:PORT")?;
    let number = |error: std::num::ParseIntError| error.to_string();
    Ok((pid.parse().map_err(number)?, port.parse().map_err(number)?))
}
