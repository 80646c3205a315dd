//! What all watchers of a run have met: deliveries, times, refusals.

use std::collections::BTreeMap;

use crate::frontier::Frontier;
use crate::latency::Histogram;
use crate::names::Names;
use crate::socket::Over;
use crate::tally::{Arrival, Tally};
use crate::wire::Delivery;

/// Shared by all sockets of a swarm.
pub struct Books {
    pub names: Names,
    pub tally: Tally,
    /// From the publisher's call to the watcher.
    pub latency: Histogram,
    /// From the call to connect until subscribed and up to date.
    pub serving: Histogram,
    /// When the last delivery came, in microseconds.
    pub last_delivery: u64,
    /// How many watchers are subscribed right now.
    pub watching: usize,
    /// Whether watchers that come back name the newest number that they have.
    pub resuming: bool,
    /// How many `job:gap` notices came, and how many numbers they named.
    pub gaps: u64,
    pub gap_numbers: u64,
    /// Connections that ended without being asked to, by what ended them: on the way in, and after it.
    pub refused: BTreeMap<&'static str, u64>,
    pub cut: BTreeMap<&'static str, u64>,
    frontier: Option<Frontier>,
}

impl Books {
    /// Empty books for jobs of these names.
    pub fn new(names: Names) -> Self {
        Self {
            names,
            tally: Tally::default(),
            latency: Histogram::default(),
            serving: Histogram::default(),
            last_delivery: 0,
            watching: 0,
            resuming: false,
            gaps: 0,
            gap_numbers: 0,
            refused: BTreeMap::new(),
            cut: BTreeMap::new(),
            frontier: None,
        }
    }

    /// From now on reports what all watchers of the one job have.
    pub fn follow(&mut self, frontier: Frontier) {
        self.frontier = Some(frontier);
    }

    /// Tells the publisher what all watchers have, if that is followed and has grown.
    pub fn tell_publisher(&mut self) -> std::io::Result<()> {
        self.frontier.as_mut().map_or(Ok(()), Frontier::tell)
    }

    /// The newest number that a watcher has, if it may ask to go on after it.
    pub fn newest(&self, watcher: usize) -> Option<u64> {
        self.resuming.then(|| self.tally.newest(watcher))
    }

    /// Books a delivery that came `now`.
    pub fn delivery(&mut self, watcher: usize, delivery: Delivery, now: u64) -> Result<(), Over> {
        match self.tally.record(watcher, delivery.job, delivery.seq) {
            Arrival::Next { after } => {
                if let Some(frontier) = &mut self.frontier {
                    frontier.reach(after, delivery.seq);
                }
            }
            Arrival::Late => {}
            Arrival::Repeated => return Ok(()),
            Arrival::Stray => return Err(Over("an event of a job that was not asked for")),
        }
        self.latency.record(now.saturating_sub(delivery.sent));
        self.last_delivery = now;
        Ok(())
    }

    /// Books a notice of numbers that are no longer kept.
    pub fn gap(&mut self, from: u64, to: u64) {
        self.gaps += 1;
        self.gap_numbers += (to + 1).saturating_sub(from);
    }

    /// Books that a watcher is subscribed and up to date, so many microseconds after it called connect.
    pub fn served(&mut self, micros: u64) {
        self.serving.record(micros);
    }
}
