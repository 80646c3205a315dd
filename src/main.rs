//! The `jobcast` binary: arguments, a command, an exit code.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    jobcast::cli::run()
}
