//! While the disk takes no more writes: what publishers and probes are told, and what the end of it needs.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::kv::Fault;
use crate::store::StoreError;

/// How long to wait before trying again to write to a disk that refused.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// An outage that has begun.
#[derive(Debug)]
pub struct Outage {
    fault: Fault,
    began: Instant,
}

impl Outage {
    /// Begins with a commit that failed. Says so in the log, once, and to whoever follows `told`.
    pub fn begin(fault: Fault, told: &watch::Sender<Option<StoreError>>) -> Self {
        let error = &fault.error;
        match fault.reopen_with {
            Some(_) => tracing::error!(%error, "cannot write: no event is accepted until that is over"),
            None => tracing::error!(%error, "cannot write: no event is accepted any more"),
        }
        told.send_replace(Some(fault.error.clone()));
        Self { fault, began: Instant::now() }
    }

    /// What those are told who ask for what cannot be done now.
    pub fn error(&self) -> &StoreError {
        &self.fault.error
    }

    /// How much room there has to be before it is of use to reopen; `None` where nothing but a restart helps.
    pub fn reopen_with(&self) -> Option<u64> {
        self.fault.reopen_with
    }

    /// Goes on, for a reason that may have changed.
    pub fn goes_on(&mut self, error: StoreError, told: &watch::Sender<Option<StoreError>>) {
        if self.fault.error != error {
            self.fault.error = error;
            told.send_replace(Some(self.fault.error.clone()));
        }
    }

    /// Ends, in the log and for whoever follows `told`.
    pub fn end(self, told: &watch::Sender<Option<StoreError>>) {
        tracing::info!(seconds = self.began.elapsed().as_secs(), "events are written and accepted again");
        told.send_replace(None);
    }
}
