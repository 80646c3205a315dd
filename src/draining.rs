//! How a node takes its leave: first it is not ready any more, then its clients go one after the other, so that
//! they do not come back elsewhere all at once.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// How many clients leave in a second where there is time enough: a few are gone at once.
const PACE: f64 = 200.0;

/// The least time over which clients come back.
const LEAST_RETURN: Duration = Duration::from_secs(1);

/// What all edges know of the node's end. Cloning gives another handle on the same one.
#[derive(Debug, Clone)]
pub struct Draining(watch::Sender<Stage>);

#[derive(Debug, Clone, Copy)]
enum Stage {
    Serving,
    Announced,
    Leaving(Departures),
}

impl Default for Draining {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Serving))
    }
}

impl Draining {
    /// From now on the node is not ready. Everything else goes on.
    pub fn announce(&self) {
        self.0.send_replace(Stage::Announced);
    }

    /// Whether the node is about to end.
    pub fn has_begun(&self) -> bool {
        !matches!(*self.0.borrow(), Stage::Serving)
    }

    /// From now on clients leave: as many as there are spread over `window`, or faster where there are few.
    pub fn depart(&self, clients: usize, window: Duration) -> Departures {
        let span = Duration::from_secs_f64(clients as f64 / PACE).min(window);
        let departures = Departures { begin: Instant::now(), span };
        self.0.send_replace(Stage::Leaving(departures));
        departures
    }

    /// Waits until it is one client's turn to leave, and answers how long it should wait before it comes back.
    pub async fn turn(&self) -> Duration {
        let mut stage = self.0.subscribe();
        let leaving = stage.wait_for(|stage| matches!(stage, Stage::Leaving(_))).await.map(|stage| *stage);
        let Ok(Stage::Leaving(departures)) = leaving else { return pending().await };
        departures.at(fastrand::f64()).await;
        departures.reconnect_after()
    }
}

/// When clients leave.
#[derive(Debug, Clone, Copy)]
pub struct Departures {
    begin: Instant,
    span: Duration,
}

impl Departures {
    /// Waits for a moment of the departures, from 0 (the first) to 1 (the last).
    pub async fn at(&self, moment: f64) {
        sleep_until(self.begin + self.span.mul_f64(moment)).await;
    }

    /// How long a client should wait before it comes back: random, so that those who leave together do not return
    /// together.
    pub fn reconnect_after(&self) -> Duration {
        self.span.max(LEAST_RETURN).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn few_leave_at_once_and_many_over_the_window() {
        let window = Duration::from_secs(5);
        for (clients, span) in [(0, 0), (2, 10), (200, 1_000), (100_000, 5_000)] {
            let draining = Draining::default();
            let begin = Instant::now();
            draining.depart(clients, window).at(1.0).await;
            assert_eq!(begin.elapsed().as_millis(), span, "{clients} clients");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_within_the_window() {
        let draining = Draining::default();
        assert!(!draining.has_begun());
        draining.announce();
        assert!(draining.has_begun());
        let early = tokio::time::timeout(Duration::from_secs(3600), draining.turn()).await;
        assert!(early.is_err(), "nobody leaves before the departures begin");
        let begin = Instant::now();
        draining.depart(10_000, Duration::from_secs(4));
        for _ in 0..100 {
            let wait = draining.turn().await;
            assert!(wait >= Duration::from_secs(2) && wait <= Duration::from_secs(4), "{wait:?}");
        }
        assert!(begin.elapsed() <= Duration::from_secs(4));
    }
}
