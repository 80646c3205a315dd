//! Catching up: one task for each session that is behind, which reads the logs of its rooms until it meets their live
//! edges.

use std::time::{Duration, Instant};

use super::{
    CloseReason, Gateway,
    hub::{CatchUpReason, Need, SessionKey},
};
use crate::{
    position::Position,
    room::Room,
    store::{Content, LogEntry, LogPage},
    telemetry::ReasonLabel,
};

/// How many entries are read at the same time for all who catch up or resume: so many times the largest event is what
/// they hold in memory at the most.
pub const ENTRIES_READ_AT_ONCE: u32 = 1024;

/// The first and the longest pause while a session has no place, or the store gives no answer.
pub const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Looks after a session that has fallen behind, until it is not any more, is gone, or is given up.
pub fn start(gateway: &Gateway, key: SessionKey, reason: CatchUpReason) {
    let label = ReasonLabel { reason: reason.as_str() };
    gateway.0.metrics.catch_ups.get_or_create(&label).inc();
    let gateway = gateway.clone();
    gateway.0.tasks.clone().spawn_until_stop("catch-up", async move {
        if reason == CatchUpReason::Slow {
            tracing::debug!(who = %gateway.who(key), "a session has fallen behind");
        }
        let begun = Instant::now();
        let in_time = catch_up(&gateway, key).await;
        gateway.0.metrics.catch_up_seconds.get_or_create(&label).observe(begun.elapsed().as_secs_f64());
        match in_time {
            true => tracing::debug!(?key, took = ?begun.elapsed(), "a session has caught up"),
            false => gateway.close(key, CloseReason::TooSlow),
        }
    });
}

/// Says whether the session is at the live edge of its rooms, or gone, within the time that it has.
async fn catch_up(gateway: &Gateway, key: SessionKey) -> bool {
    let Some(outlet) = gateway.hub(|hub| hub.outlet(key)) else { return true };
    let (mut pages, mut pause) = (Pages::default(), PAUSES.0);
    let (mut since, patience) = (Instant::now(), gateway.0.options.behind);
    let mut told = false;
    while let Some(need) = gateway.hub(|hub| hub.next_need(key)) {
        let progress = match &need {
            _ if outlet.is_full() => gateway.hub(|hub| hub.note_full(key)),
            Need::Notices => gateway.hub(|hub| hub.flush_notices(key)),
            Need::Log { room, after, .. } => {
                let reading = Instant::now();
                let Some(page) = pages.recall(gateway, key, room, *after).await else { continue };
                // No client is to blame for a store that does not answer.
                since += reading.elapsed();
                gateway.hub(|hub| hub.replay(key, &need, &page))
            }
        };
        outlet.flush();
        if progress.asked {
            // A long replay may take its time, for as long as it moves, and so may notices.
            since = Instant::now();
        }
        if progress.asked && need == Need::Notices {
            // Publishers wait for it.
            pause = PAUSES.0;
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

/// How many entries the first page has, and how many a later one has at the most.
const PAGE: (u32, u32) = (16, 100);

/// How many bytes of events a page should have.
const PAGE_BYTES: usize = 256 * 1024;

/// How many times as many entries as before the next page has at the most.
const GROWTH: u32 = 4;

/// Reads logs page by page. How many entries the next page has follows from how large the events were in the last one.
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
    /// The log of a room after a place, once not too much is being read and the store answers. `None` once nobody awaits
    /// it any more.
    pub async fn read(
        &mut self,
        gateway: &Gateway,
        room: &Room,
        after: Position,
        is_awaited: impl Fn() -> bool,
    ) -> Option<LogPage> {
        let (limit, mut pause) = (self.limit.min(ENTRIES_READ_AT_ONCE), PAUSES.0);
        loop {
            // It is never closed: it lives as long as the gateway.
            let places = gateway.0.log_reads.acquire_many(limit).await;
            if !is_awaited() {
                return None;
            }
            match gateway.0.store.log(room, after, limit as usize).await {
                Ok(page) => {
                    self.adapt(&page.entries);
                    return Some(page);
                }
                Err(error) => {
                    gateway.0.metrics.store_errors.inc();
                    tracing::debug!(%error, "the store does not answer yet");
                }
            }
            drop(places);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// The same for a session that missed it live, of which most is still in memory. `None` once it is not in the room any
    /// more.
    async fn recall(
        &mut self,
        gateway: &Gateway,
        key: SessionKey,
        room: &Room,
        after: Position,
    ) -> Option<LogPage> {
        let entries = gateway.hub(|hub| hub.remembered(key, room, after, PAGE.1 as usize));
        match entries.last().map(|entry| entry.position) {
            Some(end) => Some(LogPage { entries, is_last: false, end }),
            None => self.read(gateway, room, after, || gateway.hub(|hub| hub.is_in(key, room))).await,
        }
    }

    fn adapt(&mut self, entries: &[LogEntry]) {
        let bytes: usize = entries.iter().map(size).sum();
        if let Some(average) = bytes.checked_div(entries.len()) {
            let fitting = u32::try_from(PAGE_BYTES / average.max(1)).unwrap_or(u32::MAX);
            self.limit = fitting.clamp(1, (self.limit * GROWTH).min(PAGE.1));
        }
    }
}

fn size(entry: &LogEntry) -> usize {
    match &entry.content {
        Content::Event(event) => event.json().get().len(),
        Content::Lost(gap) => gap.job.as_str().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Draft, Owner},
        timestamp::Timestamp,
    };

    fn page(count: usize, bytes: usize) -> Vec<LogEntry> {
        let draft = || Draft::error("j".parse().unwrap(), &"x".repeat(bytes), Owner::default());
        let event = || draft().accept(&Owner::default(), Timestamp::default(), 1);
        let entry = |_| LogEntry { position: Position::of_seq(1), content: Content::Event(event()) };
        (0..count).map(entry).collect()
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
