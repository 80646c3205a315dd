//! Guards: who is in a job's room because of the job's owner. They leave it, before anything more is delivered to them,
//! when the job turns out to be somebody else's (contract, section 9).

use indexmap::IndexSet;

use super::{Hub, SessionKey};
use crate::{
    access::{Ownership, Watching},
    event::Owner,
    gateway::outlet::Signal,
    id::{ClientId, JobId, UserId},
    room::Room,
    store::{Content, LogEntry},
};

/// Why a session may be in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Whatever happens there.
    Always,
    /// With the owner that the job had. `None` for a job that had no event.
    ByOwner(Option<Owner>),
}

/// Those in one job's room that were admitted by its owner.
#[derive(Debug, Default)]
pub struct Guard {
    members: IndexSet<SessionKey>,
    /// The owner by the newest event that is known. `None` before the first.
    owner: Option<Owner>,
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
    /// Notes why a session has come into a room. Where the job has got another owner meanwhile, that one decides.
    pub(super) fn guard(&mut self, key: SessionKey, room: &Room, admitted: Admitted) {
        let (Some(state), Room::Job(job)) = (self.rooms.get_mut(room), room) else { return };
        let Admitted::ByOwner(owner) = admitted else {
            if let Some(guard) = &mut state.guard {
                guard.members.swap_remove(&key);
            }
            return;
        };
        let guard = state.guard.get_or_insert_default();
        guard.members.insert(key);
        let known = guard.owner.clone();
        if let Some(owner) = &owner {
            self.admit(job, &newer(known.as_ref(), owner));
        }
        let known = self.guard_of(job).and_then(|guard| guard.owner.clone());
        if let Some(known) = known.filter(|known| owner.as_ref() != Some(known)) {
            self.judge(job, &known, &[key]);
        }
    }

    /// Has those leave a job's room who may not see an event that is about to be delivered there, the newest one of the
    /// job. It has the owner as far as that is known.
    pub(super) fn admit(&mut self, job: &JobId, owner: &Owner) {
        let Some(guard) = self.guard_of(job).filter(|guard| guard.owner.as_ref() != Some(owner)) else {
            return;
        };
        guard.owner = Some(owner.clone());
        let members: Vec<SessionKey> = guard.members.iter().copied().collect();
        self.judge(job, owner, &members);
    }

    /// The same for entries that were read of a job's log. They may be older than what is known.
    pub(super) fn admit_entries(&mut self, room: &Room, entries: &[LogEntry]) {
        let Room::Job(job) = room else { return };
        let Some(guard) = self.guard_of(job) else { return };
        let event = |entry: &LogEntry| match &entry.content {
            Content::Event(event) => Some(event.clone()),
            Content::Lost(_) => None,
        };
        let Some(event) = entries.iter().rev().find_map(event) else { return };
        let owner = newer(guard.owner.as_ref(), event.owner());
        self.admit(job, &owner);
    }

    fn guard_of(&mut self, job: &JobId) -> Option<&mut Guard> {
        let guard = self.rooms.get_mut(&Room::Job(job.clone()))?.guard.as_deref_mut()?;
        (!guard.members.is_empty()).then_some(guard)
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
        let Some(session) = self.sessions.get(key) else { return };
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

/// The owner of a job of which an older or newer event was found. What that one leaves out is known all the same; what
/// contradicts it was another job of that name.
fn newer(known: Option<&Owner>, found: &Owner) -> Owner {
    known.and_then(|known| known.merged(found)).unwrap_or_else(|| found.clone())
}

impl Guard {
    pub fn remove(&mut self, key: SessionKey) {
        self.members.swap_remove(&key);
    }
}
