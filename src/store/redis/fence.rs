//! Keeps numbers that watchers have seen from being given again after a server has lost the end of what it accepted.
//!
//! A server that comes back as another run (restarted, or a replica that took over) may have lost its newest events.
//! What watchers have seen of them the gateways still know, and tell it. Until all of them have, or have had time
//! enough, nobody publishes there.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Value;
use tokio::{sync::Notify, time::Instant};

use super::{call::Call, keys::Keys, link::Link};
use crate::{store::StoreError, timestamp::Timestamp};

/// How long publishers wait for gateways that do not tell what they know.
const PATIENCE: Duration = Duration::from_secs(4);

/// How often it is looked whether they have.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a gateway says that it lives, and for how long that counts.
const RENEWAL: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(15);

/// For how long a server remembers who has told it.
const TOLD_LIFETIME: Duration = Duration::from_secs(600);

/// How many runs are remembered: far more than a cluster has servers at a time.
const RUNS: usize = 4096;

/// Names one run of a server, from its start or its promotion to its end.
pub type Run = Arc<str>;

/// Which runs may be published to.
#[derive(Debug, Default)]
pub struct Fence {
    /// Each with the time since when it is waited for; `None` once it need not be.
    runs: Mutex<VecDeque<(Run, Option<Instant>)>>,
    closed: Notify,
}

impl Fence {
    fn runs(&self) -> MutexGuard<'_, VecDeque<(Run, Option<Instant>)>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a run may be published to. One that was not seen before may not, at first.
    pub fn lets_through(&self, run: &Run) -> bool {
        let mut runs = self.runs();
        if let Some((_, waiting)) = runs.iter().find(|(known, _)| known == run) {
            return waiting.is_none();
        }
        remember(&mut runs, run.clone(), Some(Instant::now()));
        self.closed.notify_one();
        false
    }

    /// Lets a run through from now on.
    pub fn open(&self, run: &Run) {
        let mut runs = self.runs();
        match runs.iter_mut().find(|(known, _)| known == run) {
            Some((_, waiting)) => *waiting = None,
            None => remember(&mut runs, run.clone(), None),
        }
    }

    /// A run that is waited for, and since when.
    fn waiting(&self) -> Option<(Run, Instant)> {
        self.runs().iter().find_map(|(run, waiting)| Some((run.clone(), (*waiting)?)))
    }
}

fn remember(runs: &mut VecDeque<(Run, Option<Instant>)>, run: Run, waiting: Option<Instant>) {
    runs.push_back((run, waiting));
    if runs.len() > RUNS {
        runs.pop_front();
    }
}

/// This gateway among the others that use the same servers.
#[derive(Debug)]
pub struct Guard {
    link: Link,
    keys: Keys,
    node: String,
}

impl Guard {
    pub fn new(link: Link, keys: Keys, node: &str) -> Self {
        Self { link, keys, node: node.to_owned() }
    }

    /// Knows the others, and opens the fence when they have told what they know; until it is dropped.
    pub async fn keep(&self) {
        let mut peers = HashSet::new();
        loop {
            match self.renew().await {
                Ok(found) => peers = found,
                Err(error) => tracing::debug!(%error, "could not look who else is there"),
            }
            let _in_time = tokio::time::timeout(RENEWAL, self.link.fence().closed.notified()).await;
            while let Some((run, since)) = self.link.fence().waiting() {
                let told = self.told(&run).await.unwrap_or_default();
                if peers.is_subset(&told) || since.elapsed() >= PATIENCE {
                    self.link.fence().open(&run);
                } else {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Says that this gateway has told all servers, as they are now, what its watchers have seen.
    pub async fn tell(&self) -> Result<(), StoreError> {
        for run in self.link.runs().await? {
            let key = self.keys.told(&run);
            let calls = vec![
                Call::on("SADD", &key).arg(&self.node),
                Call::on("EXPIRE", &key).arg(TOLD_LIFETIME.as_secs()),
            ];
            self.link.ask_all::<Value>(calls).await?;
        }
        Ok(())
    }

    /// Takes this gateway out of those that are waited for.
    pub async fn withdraw(&self) -> Result<(), StoreError> {
        let call = Call::on("ZREM", &self.keys.nodes()).arg(&self.node);
        self.link.ask::<Value>(call).await.map(|_| ())
    }

    async fn told(&self, run: &Run) -> Result<HashSet<String>, StoreError> {
        self.link.ask(Call::on("SMEMBERS", &self.keys.told(run))).await
    }

    /// Says that this gateway lives, and answers which others do.
    async fn renew(&self) -> Result<HashSet<String>, StoreError> {
        let (key, now) = (self.keys.nodes(), Timestamp::now().millis());
        let ends = now + LEASE.as_millis() as u64;
        let calls = vec![
            Call::on("ZADD", &key).arg(ends).arg(&self.node),
            Call::on("ZREMRANGEBYSCORE", &key).arg("-inf").arg(now),
            Call::on("EXPIRE", &key).arg(TOLD_LIFETIME.as_secs()),
            Call::on("ZRANGE", &key).arg(0).arg(-1),
        ];
        let last = self.link.ask_all::<Value>(calls).await?.pop().unwrap_or(Value::Nil);
        let mut peers: HashSet<String> = redis::from_redis_value(last)?;
        peers.remove(&self.node);
        Ok(peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_waits_and_a_known_one_does_not() {
        let (fence, first, second): (Fence, Run, Run) = (Fence::default(), "a".into(), "b".into());
        fence.open(&first);
        assert!(fence.lets_through(&first) && fence.waiting().is_none());
        assert!(!fence.lets_through(&second) && !fence.lets_through(&second));
        assert_eq!(fence.waiting().map(|(run, _)| run), Some(second.clone()));
        fence.open(&second);
        assert!(fence.lets_through(&second) && fence.waiting().is_none());
    }
}
