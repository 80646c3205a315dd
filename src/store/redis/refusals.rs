//! Whether Redis refuses what publishers write, though it answers: it is out of memory, or a key has a wrong type.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::store::StoreError;

/// For how long a refusal counts after which nobody has published.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long refusals must have ended until that is said: some may be refused and others not.
const SETTLED: Duration = Duration::from_secs(1);

/// The refusals of late. It is said once that they begin and once that they end.
#[derive(Debug, Default)]
pub struct Refusals {
    any: AtomicBool,
    newest: Mutex<Option<Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    at: Instant,
    error: StoreError,
    /// Whether something was accepted since.
    over: bool,
}

impl Refusals {
    fn newest(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was refused.
    pub fn refused(&self, error: &StoreError) {
        let refusal = Refusal { at: Instant::now(), error: error.clone(), over: false };
        if self.newest().replace(refusal).is_none() {
            tracing::error!(%error, "Redis refuses what is published");
        }
        self.any.store(true, Ordering::Release);
    }

    /// Something was accepted.
    pub fn accepted(&self) {
        if self.any.load(Ordering::Acquire) {
            let mut newest = self.newest();
            newest.iter_mut().for_each(|refusal| refusal.over = true);
            self.end(&mut newest);
        }
    }

    /// Why it cannot be published now, if so.
    pub fn check(&self) -> Result<(), StoreError> {
        let mut newest = self.newest();
        self.end(&mut newest);
        match &*newest {
            Some(Refusal { error, over: false, .. }) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn end(&self, newest: &mut Option<Refusal>) {
        let ended =
            |refusal: &mut Refusal| refusal.at.elapsed() >= if refusal.over { SETTLED } else { REMEMBERED };
        if newest.take_if(ended).is_some() {
            tracing::info!("Redis takes what is published again");
            self.any.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_until_something_is_accepted() {
        let refusals = Refusals::default();
        let error = StoreError("OOM".to_owned());
        refusals.accepted();
        assert_eq!(refusals.check(), Ok(()));
        refusals.refused(&error);
        assert_eq!(refusals.check(), Err(error.clone()));
        refusals.accepted();
        assert_eq!(refusals.check(), Ok(()));
        refusals.refused(&error);
        assert_eq!(refusals.check(), Err(error));
    }
}
