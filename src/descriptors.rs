//! Open files: as many as the system grants, and some of them kept for the store.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many descriptors at the most are kept for everything that is not a connection: files, Redis, the runtime.
const KEPT: u64 = 256;

/// Raises the process's limit of open files to what the system lets it have.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(from = current, to = maximum, "raised the limit of open files"),
        Err(error) => tracing::info!(%error, limit = current, "the limit of open files stays as it is"),
    }
}

/// How many connections may be open at once, so that the store never lacks a descriptor.
pub fn for_connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = limit - KEPT.min(limit / 2);
    usize::try_from(connections).unwrap_or(usize::MAX)
}
