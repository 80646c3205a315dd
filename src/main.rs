//! The `jobcast` binary: arguments, a command, an exit code.
#![forbid(unsafe_code)]

/// It gives memory back after a burst (docs/scaling.md); the system's keeps most of it.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    jobcast::cli::run()
}
