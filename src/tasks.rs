//! Every task of the process: named, owned and stoppable. Nothing else in the crate spawns.

use std::{future::Future, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The label of the `jobcast_tasks` gauge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TaskLabel {
    name: &'static str,
}

/// A group of tasks that stop together. Cloning gives another handle on the same group.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    alive: Family<TaskLabel, Gauge>,
}

/// Counts a task for as long as it lives, however it ends.
struct TaskCount(Gauge);

impl Drop for TaskCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Tasks {
    /// A group with no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many tasks of each name are alive.
    pub fn alive(&self) -> &Family<TaskLabel, Gauge> {
        &self.alive
    }

    fn count(&self, name: &'static str) -> TaskCount {
        let gauge = self.alive.get_or_create(&TaskLabel { name }).clone();
        gauge.inc();
        TaskCount(gauge)
    }

    /// Runs `work` until it ends by itself. It has to watch [`Tasks::token`], or end soon anyway.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let alive = self.count(name);
        self.tracker.spawn(async move {
            let _alive = alive;
            work.await;
        });
    }

    /// Runs `work` until it ends by itself or the group stops, whichever is first: at a stop it is dropped at
    /// its next await.
    pub fn spawn_until_stop(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.spawn(name, async move {
            stopping.run_until_cancelled(work).await;
        });
    }

    /// Runs `work` on a thread where it may block. A stop waits for it.
    pub fn spawn_blocking(&self, name: &'static str, work: impl FnOnce() + Send + 'static) {
        let alive = self.count(name);
        self.tracker.spawn_blocking(move || {
            let _alive = alive;
            work();
        });
    }

    /// Runs a short piece of blocking work and waits for its result; `None` if it panicked.
    pub async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.tracker.spawn_blocking(work).await.ok()
    }

    /// The token that is cancelled when the group is told to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Tells all tasks to stop and waits for them, at most `timeout`. Says whether all ended in time.
    pub async fn stop(&self, timeout: Duration) -> bool {
        self.stopping.cancel();
        self.tracker.close();
        tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_ends_and_counts_all() {
        let tasks = Tasks::new();
        tasks.spawn_until_stop("endless", std::future::pending());
        let token = tasks.token().clone();
        tasks.spawn("watching", async move { token.cancelled().await });
        let gauge = tasks.alive().get_or_create(&TaskLabel { name: "endless" }).clone();
        assert_eq!(gauge.get(), 1);
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert_eq!(gauge.get(), 0);
    }
}
