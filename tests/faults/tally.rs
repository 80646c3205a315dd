//! Counting from many tasks, waiting for a count, and latencies in buckets.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;

/// A number that only rises, and that can be waited for.
#[derive(Default)]
pub struct Tally {
    count: AtomicU64,
    changed: Notify,
}

impl Tally {
    pub fn add(&self, more: u64) {
        self.count.fetch_add(more, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Raises it to a number, unless it is there already.
    pub fn raise(&self, to: u64) {
        self.count.fetch_max(to, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Waits until it is at least so much.
    pub async fn reaches(&self, goal: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.get() >= goal {
                return;
            }
            changed.await;
        }
    }
}

/// Eight buckets for each doubling, from a microsecond to over an hour.
const BUCKETS: usize = 256;

/// How many windows latencies are told apart by.
const WINDOWS: usize = 3;

/// How long deliveries took since their first publishing, by windows of the trial.
pub struct Latencies {
    windows: [Vec<AtomicU64>; WINDOWS],
    window: AtomicUsize,
}

impl Default for Latencies {
    fn default() -> Self {
        let buckets = || (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { windows: std::array::from_fn(|_| buckets()), window: AtomicUsize::new(0) }
    }
}

impl Latencies {
    /// Notes a delivery of what was sent at that time (Unix, in microseconds).
    pub fn note(&self, sent: u64) {
        let took = unix_micros().saturating_sub(sent).max(1);
        let doubling = took.ilog2();
        let eighth = (took << 3 >> doubling) & 7;
        let bucket = (doubling as usize * 8 + eighth as usize).min(BUCKETS - 1);
        self.windows[self.window.load(Ordering::Relaxed)][bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// What is noted from now on belongs to that window.
    pub fn switch(&self, window: usize) {
        self.window.store(window % WINDOWS, Ordering::Relaxed);
    }

    /// How many deliveries a window has.
    pub fn count(&self, window: usize) -> u64 {
        self.windows[window].iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The latency that so large a share of a window's deliveries did not exceed, to an eighth of itself.
    pub fn quantile(&self, window: usize, share: f64) -> Duration {
        let counts: Vec<u64> =
            self.windows[window].iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let goal = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut sum = 0;
        let bucket = counts.iter().position(|count| {
            sum += count;
            sum >= goal
        });
        let bucket = bucket.unwrap_or(BUCKETS - 1);
        let (doubling, eighth) = (bucket / 8, bucket as u64 % 8);
        Duration::from_micros(((8 + eighth + 1) << doubling) >> 3)
    }
}

/// The time in microseconds since 1970.
pub fn unix_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
