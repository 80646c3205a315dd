use std::time::Instant;

use super::{Hub, SessionKey};
use crate::{id::ClientId, room::Room};

/// How many of a session's rooms its standing names.
const ROOMS_TOLD: usize = 3;

/// The hub in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Sessions.
    pub sessions: usize,
    /// Rooms with a session.
    pub rooms: usize,
    /// Jobs with a live edge.
    pub edges: usize,
    /// Sessions that are behind.
    pub behind: usize,
    /// Since when the one is behind that has been for the longest time.
    pub behind_since: Option<Instant>,
    /// Bytes that wait in all outboxes.
    pub waiting: u64,
    /// Bytes that wait in the outbox that holds the most.
    pub most_waiting: u64,
}

/// One session as an operator wants to know it.
#[derive(Debug)]
pub struct Standing {
    /// Who it is, if it has a record.
    pub client: Option<ClientId>,
    /// Some of its rooms.
    pub rooms: Vec<Room>,
    /// Since when it is behind.
    pub behind_since: Option<Instant>,
    /// On how many jobs.
    pub jobs_behind: usize,
    /// How many notices wait for it.
    pub notices: usize,
    /// How many bytes wait in its outbox.
    pub waiting: u64,
}

impl Hub {
    /// How a session stands.
    pub fn standing(&self, key: SessionKey) -> Option<Standing> {
        let member = self.sessions.get(key)?;
        Some(Standing {
            client: member.client.clone(),
            rooms: member.live.iter().take(ROOMS_TOLD).cloned().collect(),
            behind_since: member.behind_since(),
            jobs_behind: member.jobs_behind(),
            notices: member.notices.len(),
            waiting: member.outlet.waiting(),
        })
    }

    /// Counts.
    pub fn census(&self) -> Census {
        let (rooms, edges) = (self.rooms.len(), self.edges.len());
        let mut census = Census { sessions: self.sessions.len(), rooms, edges, ..Census::default() };
        for member in self.sessions.values() {
            let since = member.behind_since();
            census.behind += usize::from(since.is_some());
            census.behind_since = census.behind_since.into_iter().chain(since).min();
            let waiting = member.outlet.waiting();
            census.waiting += waiting;
            census.most_waiting = census.most_waiting.max(waiting);
        }
        census
    }
}
