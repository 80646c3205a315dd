//! Guards: who is in a job's room because of the job's owner. They leave it, before anything more is delivered to them,
//! when the job turns out to be somebody else's (contract, section 9).

use indexmap::IndexSet;

use super::{Hub, SessionKey};
use crate::{
    access::{Ownership, Watching},
    event::Owner,
    gateway::outlet::Signal,
    id::{ClientId, JobId, UserId},
    position::Position,
    room::Room,
    store::{Content, LogEntry},
};

/// Why a session may be in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Whatever happens there.
    Always,
    /// By the owner that the job had, and the place of its newest event. `None` for a job that had no event.
    ByOwner(Option<(Position, Owner)>),
}

/// Those in one job's room that were admitted by its owner.
#[derive(Debug, Default)]
pub struct Guard {
    members: IndexSet<SessionKey>,
    /// The newest event that is known, and the owner by it. `None` before the first.
    newest: Option<(Position, Owner)>,
}

/// A session that was put out of a room, and what it was counted as there.
#[derive(Debug, PartialEq, Eq)]
pub struct PutOut {
    /// The session's connection.
    pub connection: u64,
    /// The name of its record, if it has one.
    pub client: Option<ClientId>,
    /// Its user, if it has one.
    pub user: Option<UserId>,
    /// The room.
    pub room: Room,
}

impl Hub {
    /// Notes why a session has come into a room. Where more is known of the job by now, that decides.
    pub(super) fn guard(&mut self, key: SessionKey, room: &Room, admitted: Admitted) {
        let (Some(state), Room::Job(job)) = (self.rooms.get_mut(room), room) else { return };
        let Admitted::ByOwner(found) = admitted else {
            if let Some(guard) = &mut state.guard {
                guard.remove(key);
            }
            return;
        };
        state.guard.get_or_insert_default().members.insert(key);
        if let Some((at, owner)) = &found {
            self.admit(job, *at, owner);
        }
        let newest = self.guard_of(job).and_then(|guard| guard.newest.clone());
        let owner = found.map(|(_, owner)| owner);
        if let Some((_, known)) = newest.filter(|(_, known)| owner.as_ref() != Some(known)) {
            self.judge(job, &known, &[key]);
        }
    }

    /// Has those leave a job's room who may not see an event at a place of its log, before it is delivered. An event has the
    /// owner as far as that was known by then, so that of two events the newer one decides. What contradicts it is of another
    /// job of that name, and counts as newer wherever it is: a store that lost everything begins with lower numbers.
    pub(super) fn admit(&mut self, job: &JobId, at: Position, owner: &Owner) {
        let Some(guard) = self.guard_of(job) else { return };
        if let Some((known_at, known)) = &mut guard.newest {
            if at <= *known_at && known.merged(owner).is_some() {
                return;
            }
            if known == owner {
                *known_at = at;
                return;
            }
        }
        guard.newest = Some((at, owner.clone()));
        let members: Vec<SessionKey> = guard.members.iter().copied().collect();
        self.judge(job, owner, &members);
    }

    /// The same for entries that were read of a room's log, by the newest of them.
    pub(super) fn admit_entries(&mut self, room: &Room, entries: &[LogEntry]) {
        let Room::Job(job) = room else { return };
        if self.guard_of(job).is_none() {
            return;
        }
        let newest = entries.iter().rev().find_map(|entry| match &entry.content {
            Content::Event(event) => Some((entry.position, event.owner().clone())),
            Content::Lost(_) => None,
        });
        if let Some((at, owner)) = newest {
            self.admit(job, at, &owner);
        }
    }

    /// Forgets whose a job was whose log began anew.
    pub(super) fn forget_owner(&mut self, room: &Room) {
        if let Some(guard) = self.rooms.get_mut(room).and_then(|state| state.guard.as_deref_mut()) {
            guard.newest = None;
        }
    }

    fn guard_of(&mut self, job: &JobId) -> Option<&mut Guard> {
        self.rooms.get_mut(&Room::Job(job.clone()))?.guard.as_deref_mut()
    }

    fn judge(&mut self, job: &JobId, owner: &Owner, members: &[SessionKey]) {
        for key in members {
            let Some(session) = self.sessions.get(*key) else { continue };
            let watching = session.pass.identity.watching(job, Ownership::Known(owner), self.ownerless);
            if watching == Watching::Never {
                self.put_out(*key, &Room::Job(job.clone()));
            }
        }
    }

    /// Takes a session out of a room that it may not be in any more, and tells it.
    pub fn put_out(&mut self, key: SessionKey, room: &Room) {
        if !self.leave(key, room) {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.joining > 0 {
            session.put_out.push(room.clone());
        }
        let client = session.outlet.client().cloned();
        let user = session.pass.identity.user().cloned();
        self.put_out.push(PutOut { connection: session.connection, client, user, room: room.clone() });
        self.signal(key, Signal::PutOut(room.clone()));
    }

    /// Takes those that were put out of a room since the last call.
    pub fn take_put_out(&mut self) -> Vec<PutOut> {
        std::mem::take(&mut self.put_out)
    }
}

impl Guard {
    pub fn remove(&mut self, key: SessionKey) {
        self.members.swap_remove(&key);
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
