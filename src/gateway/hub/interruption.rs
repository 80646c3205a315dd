use std::collections::HashMap;

use super::{Hub, Receipt};
use crate::{event::JobEvent, id::JobId, timestamp::Timestamp};

/// Why a session catches up that was kept from it by a resync.
const RESYNC: &str = "resync";

/// What is known of interruptions of the feed.
#[derive(Default)]
pub struct Interruptions {
    /// How many there were.
    count: u64,
    /// The one that is not made good.
    open: Option<Interruption>,
    /// Jobs with events that wait until it is found in history where the job begins, or may have begun since: how many
    /// events, and since when.
    placing: HashMap<JobId, (usize, Timestamp)>,
    /// When the newest event was accepted that the feed has brought.
    heard: Timestamp,
    /// An event that was found in history and that the feed is about to bring, after all that is older.
    awaited: Option<JobEvent>,
}

/// The time from which on something may be missing, until all of it has been fetched.
#[derive(Default)]
struct Interruption {
    /// When it began; `None` until the feed is back.
    since: Option<Timestamp>,
}

/// What has to be done before the feed is whole again: every job of every room that was active since then goes
/// through [`Hub::adopt`] where it has no live edge, and its newest event through [`Hub::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resync {
    /// When the earliest interruption began that is not made good.
    pub since: Timestamp,
    /// When the newest event of all was accepted before the search began: of what is newer some may still be on its way
    /// by the feed. To be set by who searches.
    pub newest: Timestamp,
    /// The interruption that it follows on: after another one there will be another resync.
    interruption: u64,
}

impl Interruptions {
    /// What becomes of an event whose job has no live edge; `None` if it is the job's first for this node. For an event
    /// that is [`Receipt::Unplaced`], [`Hub::place`] will be called.
    pub fn meet(&mut self, job: &JobId) -> Option<Receipt> {
        let placing = self.placing.get(job).map(|(_, since)| *since);
        let since = match (&self.open, placing) {
            (None, None) => return None,
            (Some(Interruption { since: None }), None) => return Some(Receipt::Done),
            (Some(Interruption { since: Some(since) }), _) => *since,
            (_, Some(since)) => since,
        };
        let (count, known) = self.placing.entry(job.clone()).or_insert((0, since));
        *count += 1;
        *known = since.min(*known);
        Some(Receipt::Unplaced { since: *known })
    }

    /// Whether what was missed is being fetched, job by job: nobody who comes back by time may be given any of it
    /// before all of it is known.
    pub fn are_mending(&self) -> bool {
        let resyncing = self.open.as_ref().is_some_and(|interruption| interruption.since.is_some());
        resyncing || !self.placing.is_empty() || self.awaited.is_some()
    }

    /// Whether nothing is missing, and nothing waits for its place.
    pub fn are_none(&self) -> bool {
        self.open.is_none() && !self.are_mending()
    }

    /// Notes an event that the feed is about to bring.
    pub fn await_feed(&mut self, event: &JobEvent) {
        let latest = self.awaited.as_ref().map_or(self.heard, JobEvent::timestamp);
        if event.timestamp() > latest {
            self.awaited = Some(event.clone());
        }
    }
}

impl Hub {
    /// Notes that from now on the feed may leave something out.
    pub fn interrupt(&mut self) {
        self.interruptions.count += 1;
        self.interruptions.awaited = None;
        self.interruptions.open.get_or_insert_default();
        // The store may come back without some of it: history is what counts then.
        self.recent.clear();
    }

    /// Notes that the feed leaves nothing out any more, and did since the given time at the earliest.
    pub fn restore(&mut self, since: Timestamp) -> Resync {
        // What still waits for its place may not be taken for delivered.
        let placing = self.interruptions.placing.values().map(|(_, since)| *since);
        let since = placing.fold(since, Timestamp::min);
        let known = self.interruptions.open.get_or_insert_default();
        let since = known.since.map_or(since, |known| known.min(since));
        known.since = Some(since);
        Resync { since, newest: Timestamp::default(), interruption: self.interruptions.count }
    }

    /// Whether a resync is still worth the effort: after another interruption another one does all of it.
    pub fn needs(&self, resync: Resync) -> bool {
        resync.interruption == self.interruptions.count && !self.is_whole()
    }

    /// Notes that a resync is complete. Says whether with it the feed is whole again.
    pub fn complete(&mut self, resync: Resync) -> bool {
        let whole = self.needs(resync);
        if whole {
            self.interruptions.open = None;
            self.release();
        }
        whole
    }

    /// Notes that an event of a job has found its place that had none.
    pub(super) fn placed(&mut self, job: &JobId) {
        let placing = &mut self.interruptions.placing;
        let Some((count, _)) = placing.get_mut(job) else { return };
        *count -= 1;
        if *count == 0 {
            placing.remove(job);
            self.release();
        }
    }

    /// Notes that the feed has brought an event of this time.
    pub(super) fn heard(&mut self, time: Timestamp) {
        let Interruptions { heard, awaited, .. } = &mut self.interruptions;
        *heard = time.max(*heard);
        if awaited.take_if(|event| event.timestamp() <= *heard).is_some() {
            self.release();
        }
    }

    /// Notes that nobody is in a room of the job any more.
    pub(super) fn await_no_more(&mut self, job: &JobId) {
        if self.interruptions.awaited.take_if(|event| event.job() == job).is_some() {
            self.release();
        }
    }

    /// Whether nothing is missing of what the feed has brought so far.
    pub fn is_whole(&self) -> bool {
        self.interruptions.open.is_none()
    }

    /// Wakes those who had to wait for the end of a resync.
    fn release(&mut self) {
        if !self.interruptions.are_mending() {
            let waiting =
                self.sessions.iter().filter(|(_, member)| member.is_ordered() && member.jobs_behind() > 0);
            self.woken.extend(waiting.map(|(key, _)| (key, RESYNC)));
        }
    }
}
