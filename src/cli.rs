//! The command line: arguments become a command, and a command's outcome an exit code.

mod api_key;
mod check;
mod demo;
mod serve;
mod token;

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// Live job events that no watcher misses.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve(ServeArguments),
    /// Check the configuration, and do nothing else
    Check(ConfigArguments),
    /// Publish a few simulated jobs to a running gateway, for a first look
    Demo(demo::DemoArguments),
    /// Make a token by auth.secret, for development
    Token(token::TokenArguments),
    /// Make an API key and its entry in the configuration
    ApiKey(api_key::ApiKeyArguments),
}

#[derive(Debug, Args)]
struct ConfigArguments {
    /// The configuration file [default: config.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The address to listen on, in place of server.listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

/// An error message for people.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the process was called with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or(Command::Serve(arguments.serve));
    let outcome = match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::ApiKey(arguments) => api_key::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _told = writeln!(std::io::stderr(), "jobcast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The most threads for blocking work, most of which waits for the disk. More would compete for it when many clients
/// return together.
const BLOCKING_THREADS: usize = 16;

/// Runs a command's work to its end on a runtime of its own.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.max_blocking_threads(BLOCKING_THREADS);
    runtime.enable_all().build()?.block_on(work)
}
