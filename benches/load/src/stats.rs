//! What all watchers of a run have met: deliveries, times, refusals.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::frontier::Frontier;
use crate::latency::Histogram;
use crate::names::Names;
use crate::over::Over;
use crate::room::Room;
use crate::tally::{Arrival, Tally};
use crate::wire::{Delivery, Position};

/// Shared by all sockets of a swarm.
pub struct Stats {
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
    /// Whether watchers that come back go on where they were.
    pub resuming: bool,
    /// Where each watcher is in its shared room.
    positions: Vec<Option<Position>>,
    /// How many `job:gap` notices came, and how many numbers they named.
    pub gaps: u64,
    pub gap_numbers: u64,
    /// Connections that ended without being asked to, by what ended them: on the way in, and after it.
    pub refused: BTreeMap<&'static str, u64>,
    pub cut: BTreeMap<&'static str, u64>,
    frontier: Option<Frontier>,
}

impl Stats {
    /// Nothing yet, for jobs of these names.
    pub fn new(names: Names) -> Self {
        Self {
            names,
            tally: Tally::default(),
            latency: Histogram::default(),
            serving: Histogram::default(),
            last_delivery: 0,
            watching: 0,
            resuming: false,
            positions: Vec::new(),
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

    /// Adds a watcher of these jobs; the first one added is number 0.
    pub fn add_watcher(&mut self, jobs: Range<u32>) {
        self.tally.add_watcher(jobs);
        self.positions.push(None);
    }

    /// Where a watcher goes on, as JSON: after a number in a job's room, after a position in others.
    pub fn resume(&self, watcher: usize, room: Room) -> Option<String> {
        match room {
            _ if !self.resuming => None,
            Room::Job(_) => Some(self.tally.newest(watcher).to_string()),
            _ => self.positions[watcher].map(|position| format!("\"{position}\"")),
        }
    }

    /// Counts that a watcher's subscription begins, in a shared room at that place.
    pub fn begin(&mut self, watcher: usize, position: Option<Position>) {
        self.positions[watcher] = position;
    }

    /// Counts a delivery that came `now`.
    pub fn delivery(&mut self, watcher: usize, delivery: Delivery, now: u64) -> Result<(), Over> {
        if delivery.position.is_some() {
            self.positions[watcher] = delivery.position;
        }
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

    /// Counts a notice of numbers that are no longer kept.
    pub fn gap(&mut self, from: u64, to: u64) {
        self.gaps += 1;
        self.gap_numbers += (to + 1).saturating_sub(from);
    }

    /// Counts that a watcher is subscribed and up to date, so many microseconds after it called connect.
    pub fn served(&mut self, micros: u64) {
        self.serving.record(micros);
    }
}
