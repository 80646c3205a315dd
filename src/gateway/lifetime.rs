//! The life of sessions whose tokens expire: they are told so in time, and end with their token (contract, section 9).

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{CloseReason, Gateway, hub::SessionKey, outlet::Signal};
use crate::timestamp::Timestamp;

/// How long before its end a session is told of it.
const NOTICE: Duration = Duration::from_secs(30);

/// How long after its token has expired a session ends, so that a clock that is a little behind does not see it end early.
const LEEWAY: Duration = Duration::from_millis(250);

/// How long the clock is trusted to go on as it does.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// What is due for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Notice,
    End,
}

/// What is due, and when. It has at most one entry for each session.
#[derive(Debug, Default)]
pub struct Lifetimes {
    due: Mutex<BTreeSet<(Timestamp, SessionKey, Step)>>,
    changed: Notify,
}

impl Lifetimes {
    fn due(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, SessionKey, Step)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes when a session's token expires.
    pub fn add(&self, key: SessionKey, expires_at: Timestamp) {
        self.due().insert((expires_at.before(NOTICE), key, Step::Notice));
        self.changed.notify_one();
    }

    /// Forgets a session whose token would have expired then.
    pub fn remove(&self, key: SessionKey, expires_at: Timestamp) {
        let mut due = self.due();
        due.remove(&(expires_at.before(NOTICE), key, Step::Notice));
        due.remove(&(expires_at.after(LEEWAY), key, Step::End));
    }

    fn add_end(&self, key: SessionKey, expires_at: Timestamp) {
        self.due().insert((expires_at.after(LEEWAY), key, Step::End));
    }

    /// What is due by now; or how long there is nothing due.
    fn take(&self, now: Timestamp) -> Result<(SessionKey, Step), Option<Duration>> {
        let mut due = self.due();
        match due.first().copied() {
            None => Err(None),
            Some((at, ..)) if at > now => Err(Some(Duration::from_millis(at.millis() - now.millis()))),
            Some(first @ (_, key, step)) => {
                due.remove(&first);
                Ok((key, step))
            }
        }
    }
}

/// Tells sessions that their tokens are about to expire, and ends them when they have.
pub async fn follow(gateway: Gateway) {
    loop {
        match gateway.0.lifetimes.take(Timestamp::now()) {
            Ok((key, step)) => gateway.advance_life(key, step),
            Err(pause) => {
                let pause = pause.map_or(Duration::MAX, |pause| pause.min(CLOCK_CHECK));
                let _either = tokio::time::timeout(pause, gateway.0.lifetimes.changed.notified()).await;
            }
        }
    }
}

impl Gateway {
    fn advance_life(&self, key: SessionKey, step: Step) {
        let Some(expires_at) = self.hub(|hub| hub.pass(key)).and_then(|pass| pass.expires_at) else { return };
        match step {
            Step::Notice => {
                self.0.lifetimes.add_end(key, expires_at);
                let outlet = self.hub(|hub| {
                    hub.signal(key, Signal::Expiring(expires_at));
                    hub.outlet(key)
                });
                if let Some(outlet) = outlet {
                    outlet.flush();
                }
            }
            // It may have got another token since this was noted.
            Step::End if Timestamp::now() < expires_at.after(LEEWAY) => {}
            Step::End => self.close(key, CloseReason::TokenExpired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_entry() {
        let lifetimes = Lifetimes::default();
        let (key, at) = (SessionKey::default(), Timestamp::from_millis(1_000_000).unwrap());
        lifetimes.add(key, at);
        assert_eq!(lifetimes.take(at.before(NOTICE * 2)), Err(Some(NOTICE)));
        assert_eq!(lifetimes.take(at.before(NOTICE)), Ok((key, Step::Notice)));
        lifetimes.add_end(key, at);
        assert_eq!(lifetimes.take(at), Err(Some(LEEWAY)));
        lifetimes.remove(key, at);
        assert_eq!(lifetimes.take(at.after(NOTICE)), Err(None));
        lifetimes.add(key, at);
        lifetimes.remove(key, at);
        assert_eq!(lifetimes.take(at.after(NOTICE)), Err(None));
    }
}
