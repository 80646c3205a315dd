//! When which connection is pinged.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::socketio::PING_INTERVAL;

/// A connection's next ping.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    due: Instant,
    /// The connection's key, which may be another one's by then.
    pub key: usize,
    /// Tells whether it is.
    pub serial: u64,
}

/// All pings to come. All have the same interval, so the first one planned is the first one due.
#[derive(Debug, Default)]
pub struct Heartbeat(VecDeque<Beat>);

impl Heartbeat {
    /// Plans a connection's next ping.
    pub fn plan(&mut self, key: usize, serial: u64) {
        self.0.push_back(Beat { due: Instant::now() + PING_INTERVAL, key, serial });
    }

    /// The next one that is due.
    pub fn next_due(&mut self, now: Instant) -> Option<Beat> {
        self.0.pop_front_if(|beat| beat.due <= now)
    }

    /// How long it is until there is one.
    pub fn pause(&self) -> Option<Duration> {
        self.0.front().map(|beat| beat.due.saturating_duration_since(Instant::now()))
    }
}
