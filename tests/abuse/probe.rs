//! Probes: `/healthz` on fresh connections, and newcomers that join, each from an address of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    Failure,
    attacks::{join_by_polling, join_by_websocket},
    credentials::Attackers,
    hand::{Hand, status},
};

/// From one probe to the next.
const HEALTH_EVERY: Duration = Duration::from_millis(200);
const NEWCOMER_EVERY: Duration = Duration::from_secs(1);

/// How long a probe waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// What probes of one kind have found; dropped with it, they end.
pub struct Probe {
    found: Arc<Found>,
    task: JoinHandle<()>,
}

/// How many there were, how many had no answer, and the slowest of those that had one.
#[derive(Default)]
struct Found {
    count: AtomicU64,
    failed: AtomicU64,
    slowest_micros: AtomicU64,
}

impl Probe {
    /// Asks for `/healthz`.
    pub fn health(gateway: SocketAddr) -> Self {
        Self::start(gateway, HEALTH_EVERY, async |hand| {
            let answer = hand.exchange(&hand.get("/healthz", "Connection: close\r\n")).await?;
            if status(&answer) == "200" { Ok(()) } else { Err("not healthy".into()) }
        })
    }

    /// Joins the namespace, by turns over WebSocket and by polling.
    pub fn newcomers(gateway: SocketAddr, attackers: Attackers) -> Self {
        let token = attackers.token_of(&json!({"sub": "newcomer"}));
        Self::start(gateway, NEWCOMER_EVERY, move |hand| {
            let hand = hand.with(token.clone());
            async move {
                match hand.round % 2 {
                    0 => join_by_websocket(&hand).await.map(drop),
                    _ => join_by_polling(&hand).await.map(drop),
                }
            }
        })
    }

    fn start<F>(gateway: SocketAddr, every: Duration, probe: impl Fn(Hand) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send,
    {
        let found = Arc::<Found>::default();
        let own = found.clone();
        let task = tokio::spawn(async move {
            for round in 0.. {
                let begun = Instant::now();
                let outcome = timeout(PATIENCE, probe(newcomer(gateway, round))).await;
                own.note(matches!(outcome, Ok(Ok(()))), begun.elapsed());
                sleep(every.saturating_sub(begun.elapsed())).await;
            }
        });
        Self { found, task }
    }

    /// Forgets what has been found so far.
    pub fn begin(&self) {
        let Found { count, failed, slowest_micros } = &*self.found;
        [count, failed, slowest_micros].iter().for_each(|number| number.store(0, Ordering::Relaxed));
    }

    /// How many there were and how many had no answer.
    pub fn counts(&self) -> (u64, u64) {
        (self.found.count.load(Ordering::Relaxed), self.found.failed.load(Ordering::Relaxed))
    }

    /// The slowest answer.
    pub fn slowest(&self) -> Duration {
        Duration::from_micros(self.found.slowest_micros.load(Ordering::Relaxed))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Found {
    fn note(&self, answered: bool, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if answered {
            self.slowest_micros.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn newcomer(gateway: SocketAddr, round: u64) -> Hand {
    let source = [127, 0, 2, 1 + (round % 200) as u8].into();
    let random = fastrand::Rng::with_seed(round);
    Hand { gateway, source, number: 0, round, random, notes: Arc::default(), credential: "".into() }
}
