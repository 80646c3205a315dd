//! The node's budget of bytes: whatever waits in memory for somebody counts against it (contract, section 9,
//! `limits.memory`).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use thiserror::Error;
use tokio::sync::Notify;

use crate::error::{ApiError, ErrorCode};

/// What bytes wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A peer that does not take what was sent to it.
    Outbox,
    /// Parts of an answer or a replay that are being made.
    Answer,
    /// The rest of a request.
    Request,
    /// A store that has not accepted them yet.
    Publish,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Purpose; 4] = [Purpose::Outbox, Purpose::Answer, Purpose::Request, Purpose::Publish];

    /// The purpose as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Outbox => "outbox",
            Purpose::Answer => "answer",
            Purpose::Request => "request",
            Purpose::Publish => "publish",
        }
    }
}

/// The label for the purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PurposeLabel {
    /// The purpose.
    pub purpose: &'static str,
}

/// The budget has no place for new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the gateway holds as many bytes as it may (limits.memory); try again later")]
pub struct OverBudget;

impl From<OverBudget> for ApiError {
    fn from(error: OverBudget) -> Self {
        ApiError::new(ErrorCode::LimitReached, error.to_string())
    }
}

/// The bytes that one node may hold for others. Cheap to clone; each clone is the same budget.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    limit: u64,
    used: AtomicU64,
    held: Family<PurposeLabel, Gauge>,
    /// The gauges of `held`, in the order of [`Purpose::ALL`].
    by_purpose: [Gauge; Purpose::ALL.len()],
    exceeded: Notify,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        let held = Family::<PurposeLabel, Gauge>::default();
        let gauge =
            |purpose: Purpose| held.get_or_create(&PurposeLabel { purpose: purpose.as_str() }).clone();
        let by_purpose = Purpose::ALL.map(gauge);
        Self(Arc::new(Shared { limit, used: AtomicU64::new(0), held, by_purpose, exceeded: Notify::new() }))
    }

    /// Reserves bytes for new work, all or none.
    ///
    /// # Errors
    /// [`OverBudget`] if they would exceed the limit.
    pub fn reserve(&self, purpose: Purpose, bytes: u64) -> Result<Reservation, OverBudget> {
        let mut reservation = self.charge(purpose, 0);
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Counts bytes that are there already. If they exceed the limit, [`Budget::exceeded`] resolves.
    pub fn charge(&self, purpose: Purpose, bytes: u64) -> Reservation {
        let mut reservation = Reservation { budget: self.clone(), purpose, bytes: 0 };
        reservation.set(bytes);
        reservation
    }

    /// How many bytes are held.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// How many bytes may be held.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Resolves when bytes that were there already have exceeded the limit. One task waits at a time.
    pub async fn exceeded(&self) {
        self.0.exceeded.notified().await;
    }

    /// How many bytes are held for each purpose, as a metric.
    pub fn held(&self) -> &Family<PurposeLabel, Gauge> {
        &self.0.held
    }

    fn gauge(&self, purpose: Purpose) -> &Gauge {
        &self.0.by_purpose[purpose as usize]
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Budget").field("limit", &self.0.limit).field("used", &self.used()).finish()
    }
}

/// Bytes that are held. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    purpose: Purpose,
    bytes: u64,
}

impl Reservation {
    /// How many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds more bytes, all or none.
    ///
    /// # Errors
    /// [`OverBudget`] if they would exceed the limit. It then holds what it held before.
    pub fn grow(&mut self, bytes: u64) -> Result<(), OverBudget> {
        let limit = self.budget.0.limit;
        let add = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        self.budget.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| OverBudget)?;
        self.bytes += bytes;
        self.budget.gauge(self.purpose).inc_by(signed(bytes));
        Ok(())
    }

    /// Holds exactly `bytes` from now on, even beyond the limit.
    pub fn set(&mut self, bytes: u64) {
        let (before, shared) = (std::mem::replace(&mut self.bytes, bytes), &self.budget.0);
        if bytes <= before {
            shared.used.fetch_sub(before - bytes, Ordering::Relaxed);
        } else if shared.used.fetch_add(bytes - before, Ordering::Relaxed) + bytes - before > shared.limit {
            shared.exceeded.notify_one();
        }
        self.budget.gauge(self.purpose).inc_by(signed(bytes) - signed(before));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn new_work_is_refused_beyond_the_limit_and_may_come_when_there_is_place_again() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(Purpose::Answer, 60).expect("there is place");
        assert_eq!(budget.reserve(Purpose::Request, 41).map(|held| held.bytes()), Err(OverBudget));
        assert_eq!((first.grow(41), first.bytes()), (Err(OverBudget), 60));
        drop(first);
        assert_eq!(budget.reserve(Purpose::Request, 100).map(|held| held.bytes()), Ok(100));
        assert_eq!(Purpose::ALL.map(|purpose| budget.gauge(purpose).get()), [0; 4]);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_there_counts_and_says_when_it_is_too_much() {
        let budget = Budget::new(100);
        let mut outbox = budget.charge(Purpose::Outbox, 100);
        assert!(budget.exceeded().now_or_never().is_none() && budget.used() <= budget.limit());
        outbox.set(101);
        assert!(budget.exceeded().now_or_never().is_some() && budget.used() > budget.limit());
        assert_eq!(budget.gauge(Purpose::Outbox).get(), 101);
        outbox.set(7);
        assert_eq!((budget.used(), budget.gauge(Purpose::Outbox).get()), (7, 7));
    }
}
