//! The limit of open files: raised at the start, with a part reserved for the store.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most descriptors that are reserved for files, Redis and the runtime.
const RESERVED: u64 = 256;

/// Raises the limit of open files to the most that the system allows.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(from = current, to = maximum, "raised the limit of open files"),
        Err(error) => tracing::info!(%error, limit = current, "the limit of open files stays as it is"),
    }
}

/// How many connections may be open at once. The store then never lacks a descriptor.
pub fn max_connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = limit - RESERVED.min(limit / 2);
    usize::try_from(connections).unwrap_or(usize::MAX)
}
