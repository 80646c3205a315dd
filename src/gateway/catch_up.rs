//! Catching up: one task for each session that is behind, from history until it is in step again.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::{
    CloseReason, Gateway,
    hub::{Need, Progress, Round, SessionKey, Want},
};
use crate::{
    event::{JobEvent, Seq},
    id::JobId,
    store::{Entry, StoreError, Window},
    telemetry::ReasonLabel,
};

/// How many events are read from history at the same time for all who catch up or resume: so many times the largest
/// event is what they hold in memory at the most.
pub const EVENTS_READ_AT_ONCE: u32 = 1024;

/// The first and the longest pause while a session has no place, or the store gives no answer.
pub const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Looks after a session that has fallen behind, until it is not any more, is gone, or is given up.
pub fn start(gateway: &Gateway, key: SessionKey, reason: &'static str) {
    gateway.0.metrics.catch_ups.get_or_create(&ReasonLabel { reason }).inc();
    let gateway = gateway.clone();
    gateway.0.tasks.clone().spawn_until_stop("catch-up", async move {
        if reason == SLOW {
            tracing::debug!(who = %gateway.who(key), "a session has fallen behind");
        }
        let begun = Instant::now();
        let in_time = catch_up(&gateway, key).await;
        let seconds = gateway.0.metrics.catch_up_seconds.get_or_create(&ReasonLabel { reason }).clone();
        seconds.observe(begun.elapsed().as_secs_f64());
        match in_time {
            true => tracing::debug!(?key, reason, took = ?begun.elapsed(), "a session has caught up"),
            false => gateway.close(key, CloseReason::TooSlow),
        }
    });
}

/// The reason of who has no place for what is live; others read what they have asked for.
pub const SLOW: &str = "slow";

/// Says whether the session is in step, or gone, within the time that it has.
async fn catch_up(gateway: &Gateway, key: SessionKey) -> bool {
    let Some(outlet) = gateway.hub(|hub| hub.outlet(key)) else { return true };
    let (mut pages, mut pause) = (Pages::default(), PAUSES.0);
    let (mut since, patience) = (Instant::now(), gateway.0.options.behind);
    let (mut told, mut round) = (false, Round::default());
    while let Some(need) = gateway.hub(|hub| hub.next_need(key)) {
        let progress = if outlet.is_full() {
            Progress { full: true, asked: false }
        } else {
            match need {
                Need::Notices => gateway.hub(|hub| hub.flush_notices(key)),
                Need::History { job, after } => {
                    let reading = Instant::now();
                    let page = pages.recall(gateway, key, &job, after).await;
                    // No client is to blame for a store that does not answer.
                    since += reading.elapsed();
                    gateway.hub(|hub| hub.replay(key, &job, after, &page))
                }
                Need::Round => {
                    if round.is_over() {
                        round = gateway.hub(|hub| hub.begin_round(key));
                    }
                    let reading = Instant::now();
                    pages.supply(gateway, &mut round).await;
                    since += reading.elapsed();
                    gateway.hub(|hub| hub.hand(key, &mut round))
                }
            }
        };
        outlet.flush();
        if progress.asked {
            // A long replay may take its time, for as long as it moves.
            since = Instant::now();
        }
        if since.elapsed() >= patience {
            return false;
        }
        if since.elapsed() >= patience / 2 && !std::mem::replace(&mut told, true) {
            tracing::info!(who = %gateway.who(key), "a session stays behind");
        }
        if progress.full {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        } else {
            pause = PAUSES.0;
        }
    }
    true
}

/// How many events the first page has, and how many a later one has at the most.
const PAGE: (u32, u32) = (16, 100);

/// How many bytes a page should have.
const PAGE_BYTES: usize = 256 * 1024;

/// How many histories are read at once for a session that catches up by time.
const READS_AT_ONCE: usize = 16;

/// How many times as many events as before the next page has at the most.
const GROWTH: u32 = 4;

/// Reads history page by page. How many events the next page has follows from how large they were in the last one.
#[derive(Debug)]
pub struct Pages {
    limit: u32,
}

impl Default for Pages {
    fn default() -> Self {
        Self { limit: PAGE.0 }
    }
}

impl Pages {
    /// The events of a job after a number, oldest first; waits for the store for as long as the caller does.
    pub async fn read(&mut self, gateway: &Gateway, job: &JobId, after: Seq) -> Vec<JobEvent> {
        let page = gateway.retry(|| read_page(gateway, job, after, self.limit)).await;
        self.adapt(&page);
        page
    }

    /// The same for a session that missed it live, of which most is still in memory.
    async fn recall(&mut self, gateway: &Gateway, key: SessionKey, job: &JobId, after: Seq) -> Vec<JobEvent> {
        let page = gateway.hub(|hub| hub.remembered(key, job, after, PAGE.1 as usize));
        if page.is_empty() { self.read(gateway, job, after).await } else { page }
    }

    /// Reads what a round needs to go on.
    async fn supply(&mut self, gateway: &Gateway, round: &mut Round) {
        let limit = self.limit;
        let read = |want: Want| async move {
            let limit = limit.min(u32::try_from(want.limit).unwrap_or(u32::MAX));
            let page = gateway.retry(|| read_page(gateway, &want.job, want.after, limit)).await;
            (want, page)
        };
        loop {
            let wanted = round.wanted();
            if wanted.is_empty() {
                return;
            }
            let mut pages = stream::iter(wanted).map(read).buffer_unordered(READS_AT_ONCE);
            while let Some((want, page)) = pages.next().await {
                self.adapt(&page);
                round.supply(&want, page);
            }
        }
    }

    fn adapt(&mut self, page: &[JobEvent]) {
        let bytes: usize = page.iter().map(|event| event.json().get().len()).sum();
        if let Some(average) = bytes.checked_div(page.len()) {
            let fitting = u32::try_from(PAGE_BYTES / average.max(1)).unwrap_or(u32::MAX);
            self.limit = fitting.clamp(1, (self.limit * GROWTH).min(PAGE.1));
        }
    }
}

async fn read_page(
    gateway: &Gateway,
    job: &JobId,
    after: Seq,
    limit: u32,
) -> Result<Vec<JobEvent>, StoreError> {
    read(gateway, job, Window::After { seq: after, limit: limit as usize }).await
}

/// Reads a part of a job's history, once not too much is being read.
pub async fn read(gateway: &Gateway, job: &JobId, window: Window) -> Result<Vec<JobEvent>, StoreError> {
    let (Window::Newest(count) | Window::After { limit: count, .. }) = window;
    let places = u32::try_from(count).unwrap_or(u32::MAX).min(EVENTS_READ_AT_ONCE);
    // Closed never: the semaphore lives as long as the gateway.
    let _places = gateway.0.catch_up_reads.acquire_many(places).await;
    let entries = gateway.0.store.history(job, window).await?;
    Ok(entries.into_iter().filter_map(Entry::event).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Draft, Owner},
        timestamp::Timestamp,
    };

    fn page(count: usize, bytes: usize) -> Vec<JobEvent> {
        let draft = || Draft::error("j".parse().unwrap(), &"x".repeat(bytes), Owner::default());
        (0..count).map(|_| draft().accept(&Owner::default(), Timestamp::default(), 1)).collect()
    }

    #[test]
    fn pages_grow_while_events_are_small_and_shrink_with_large_ones() {
        let mut pages = Pages::default();
        let mut limits = Vec::new();
        for (count, bytes) in
            [(16, 100), (64, 100), (100, 100), (100, 128 * 1024), (1, 1), (0, 0), (1, 1 << 20)]
        {
            pages.adapt(&page(count, bytes));
            limits.push(pages.limit);
        }
        assert_eq!(limits, [64, 100, 100, 1, 4, 4, 1]);
    }
}
