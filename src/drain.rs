//! How a node drains: it reports that it is not ready, then disconnects its clients one by one, so that they do not all
//! reconnect at once.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// The drain rate, if the window allows it.
const CLIENTS_PER_SECOND: f64 = 200.0;

/// The shortest reconnect delay.
const MIN_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// The drain state, shared by all edges. Cloning gives another handle on the same state.
#[derive(Debug, Clone)]
pub struct Draining(watch::Sender<Stage>);

#[derive(Debug, Clone, Copy)]
enum Stage {
    Serving,
    Unready,
    Draining(DrainSchedule),
}

impl Default for Draining {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Serving))
    }
}

impl Draining {
    /// From now on the node is not ready. It still serves its clients.
    pub fn begin(&self) {
        self.0.send_replace(Stage::Unready);
    }

    /// Whether the node is no longer ready.
    pub fn has_begun(&self) -> bool {
        !matches!(*self.0.borrow(), Stage::Serving)
    }

    /// From now on clients are disconnected, spread over `window`, or faster if they are few.
    pub fn schedule(&self, clients: usize, window: Duration) -> DrainSchedule {
        let span = Duration::from_secs_f64(clients as f64 / CLIENTS_PER_SECOND).min(window);
        let schedule = DrainSchedule { begin: Instant::now(), span };
        self.0.send_replace(Stage::Draining(schedule));
        schedule
    }

    /// Waits until it is the turn of one client. Returns how long that client should wait before it reconnects.
    pub async fn wait_for_turn(&self) -> Duration {
        let mut stage = self.0.subscribe();
        let draining = stage.wait_for(|stage| matches!(stage, Stage::Draining(_))).await.map(|stage| *stage);
        let Ok(Stage::Draining(schedule)) = draining else { return pending().await };
        schedule.wait_until(fastrand::f64()).await;
        schedule.reconnect_after()
    }
}

/// When which client is disconnected.
#[derive(Debug, Clone, Copy)]
pub struct DrainSchedule {
    begin: Instant,
    span: Duration,
}

impl DrainSchedule {
    /// Waits until this fraction of the schedule has passed: 0 is the first client, 1 is the last.
    pub async fn wait_until(&self, fraction: f64) {
        sleep_until(self.begin + self.span.mul_f64(fraction)).await;
    }

    /// How long a client should wait before it reconnects. It is random, so that clients do not return together.
    pub fn reconnect_after(&self) -> Duration {
        self.span.max(MIN_RECONNECT_DELAY).mul_f64(0.5 + fastrand::f64() / 2.0)
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
            draining.schedule(clients, window).wait_until(1.0).await;
            assert_eq!(begin.elapsed().as_millis(), span, "{clients} clients");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_within_the_window() {
        let draining = Draining::default();
        assert!(!draining.has_begun());
        draining.begin();
        assert!(draining.has_begun());
        let early = tokio::time::timeout(Duration::from_secs(3600), draining.wait_for_turn()).await;
        assert!(early.is_err(), "nobody leaves before the schedule begins");
        let begin = Instant::now();
        draining.schedule(10_000, Duration::from_secs(4));
        for _ in 0..100 {
            let wait = draining.wait_for_turn().await;
            assert!(wait >= Duration::from_secs(2) && wait <= Duration::from_secs(4), "{wait:?}");
        }
        assert!(begin.elapsed() <= Duration::from_secs(4));
    }
}
