//! Catching up: one task for each session that is behind, from history until it is in step again.

use std::time::Duration;

use super::{
    CloseReason, Gateway,
    hub::{Need, Progress, SessionKey},
};
use crate::{
    event::{JobEvent, Seq},
    id::JobId,
    store::{Entry, StoreError, Window},
    telemetry::ReasonLabel,
};

/// How many events are read from history at once.
pub const PAGE: usize = 100;

/// The first and the longest pause while a session has no place, or the store gives no answer.
pub const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Looks after a session that has fallen behind, until it is not any more, is gone, or is given up.
pub fn start(gateway: &Gateway, key: SessionKey, reason: &'static str) {
    gateway.0.metrics.catch_ups.get_or_create(&ReasonLabel { reason }).inc();
    let gateway = gateway.clone();
    gateway.0.tasks.clone().spawn_until_stop("catch-up", async move {
        let caught_up = tokio::time::timeout(gateway.0.options.behind, catch_up(&gateway, key)).await;
        if caught_up.is_err()
            && let Some(outlet) = gateway.hub(|hub| hub.outlet(key))
        {
            gateway.close(&*outlet, CloseReason::TooSlow);
        }
    });
}

async fn catch_up(gateway: &Gateway, key: SessionKey) {
    let mut pause = PAUSES.0;
    while let Some(need) = gateway.hub(|hub| hub.next_need(key)) {
        let progress = match need {
            Need::Notices => gateway.hub(|hub| hub.flush_notices(key)),
            Need::History { job, after } => {
                let page = page(gateway, &job, after).await;
                gateway.hub(|hub| hub.replay(key, &job, after, &page))
            }
        };
        match progress {
            Progress::Moved => pause = PAUSES.0,
            Progress::Full => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

/// The events of a job after a number, oldest first; waits for the store for as long as the caller does.
pub async fn page(gateway: &Gateway, job: &JobId, after: Seq) -> Vec<JobEvent> {
    gateway.retry(|| read_page(gateway, job, after)).await
}

async fn read_page(gateway: &Gateway, job: &JobId, after: Seq) -> Result<Vec<JobEvent>, StoreError> {
    // Closed never: the semaphore lives as long as the gateway.
    let _place = gateway.0.catch_up_reads.acquire().await;
    let entries = gateway.0.store.history(job, Window::After { seq: after, limit: PAGE }).await?;
    Ok(entries.into_iter().filter_map(Entry::event).collect())
}
