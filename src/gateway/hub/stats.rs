//! The hub in numbers.

use std::time::Instant;

use super::{Hub, SessionKey};
use crate::{id::ClientId, room::Room};

/// How many of a session's rooms its stats name.
const ROOMS_TOLD: usize = 3;

/// The whole hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Sessions.
    pub sessions: usize,
    /// Rooms with a session.
    pub rooms: usize,
    /// Sessions that are behind.
    pub behind: usize,
    /// Since when the one is behind that has been for the longest time.
    pub behind_since: Option<Instant>,
    /// Bytes that wait in all outboxes.
    pub waiting: u64,
    /// Bytes that wait in the outbox that holds the most.
    pub most_waiting: u64,
}

/// One session, as an operator wants to know it.
#[derive(Debug)]
pub struct SessionStats {
    /// Who it is, if it has a record.
    pub client: Option<ClientId>,
    /// Some of its rooms.
    pub rooms: Vec<Room>,
    /// Since when it is behind.
    pub behind_since: Option<Instant>,
    /// In how many rooms.
    pub rooms_behind: usize,
    /// How many notices wait for it.
    pub notices: usize,
    /// How many bytes wait in its outbox.
    pub waiting: u64,
}

impl Hub {
    /// What there is to say of a session.
    pub fn session_stats(&self, key: SessionKey) -> Option<SessionStats> {
        let session = self.sessions.get(key)?;
        Some(SessionStats {
            client: session.outlet.client().cloned(),
            rooms: session.rooms.iter().take(ROOMS_TOLD).cloned().collect(),
            behind_since: session.behind_since,
            rooms_behind: session.cursors.len(),
            notices: session.notices.len(),
            waiting: session.outlet.waiting(),
        })
    }

    /// Counts.
    pub fn stats(&self) -> HubStats {
        let mut stats =
            HubStats { sessions: self.sessions.len(), rooms: self.rooms.len(), ..HubStats::default() };
        for session in self.sessions.values() {
            stats.behind += usize::from(session.behind_since.is_some());
            stats.behind_since = stats.behind_since.into_iter().chain(session.behind_since).min();
            let waiting = session.outlet.waiting();
            stats.waiting += waiting;
            stats.most_waiting = stats.most_waiting.max(waiting);
        }
        stats
    }
}
