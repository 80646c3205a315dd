//! Job events: what the store has accepted, and the drafts that publishers send.

mod draft;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use draft::{Draft, IdempotencyKey, InvalidDraft};

use crate::{
    id::{JobId, TenantId, UserId},
    room::Room,
    timestamp::Timestamp,
};

/// The four kinds of job events, by the names that cross the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// The job changed: a status in the publisher's own words.
    #[serde(rename = "job:update")]
    Update,
    /// The job made progress.
    #[serde(rename = "job:progress")]
    Progress,
    /// The job succeeded.
    #[serde(rename = "job:completed")]
    Completed,
    /// The job failed.
    #[serde(rename = "job:error")]
    Error,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [EventKind; 4] =
        [EventKind::Update, EventKind::Progress, EventKind::Completed, EventKind::Error];

    /// The event's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Update => "job:update",
            EventKind::Progress => "job:progress",
            EventKind::Completed => "job:completed",
            EventKind::Error => "job:error",
        }
    }

    /// Whether it finishes the job.
    pub fn is_terminal(self) -> bool {
        matches!(self, EventKind::Completed | EventKind::Error)
    }

    /// Whether a finished job refuses it. Only an update reopens a job.
    pub fn needs_open_job(self) -> bool {
        self != EventKind::Update
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event's number within its job: strictly increasing, by one while the job's history lives.
pub type Seq = u64;

/// The owner of a job, as far as its events have named one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: Option<UserId>,
    /// The tenant.
    pub tenant: Option<TenantId>,
}

impl Owner {
    /// Whether it names neither a user nor a tenant.
    pub fn is_nobody(&self) -> bool {
        self.user.is_none() && self.tenant.is_none()
    }

    /// The owner after an event that names `named`: known parts stay, unknown parts are added. `None` if the two
    /// contradict each other (contract: `owner_mismatch`).
    pub fn merged(&self, named: &Owner) -> Option<Owner> {
        fn sticky<T: Clone + PartialEq>(known: &Option<T>, named: &Option<T>) -> Option<Option<T>> {
            match (known, named) {
                (Some(known), Some(named)) if known != named => None,
                (Some(id), _) | (None, Some(id)) => Some(Some(id.clone())),
                (None, None) => Some(None),
            }
        }
        Some(Owner { user: sticky(&self.user, &named.user)?, tenant: sticky(&self.tenant, &named.tenant)? })
    }
}

/// An event that the store has accepted.
///
/// Its JSON is written once, when it is accepted, and then shared. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct JobEvent(Arc<Accepted>);

#[derive(Debug)]
struct Accepted {
    kind: EventKind,
    job: JobId,
    seq: Seq,
    timestamp: Timestamp,
    owner: Owner,
    json: Box<RawValue>,
}

/// The members of an event that the gateway reads.
#[derive(Deserialize)]
struct Envelope {
    event: EventKind,
    #[serde(rename = "jobId")]
    job: JobId,
    seq: Seq,
    timestamp: Timestamp,
    // Not a flattened `Owner`: flattening would buffer the payload, which may be large, deep or beyond f64.
    #[serde(rename = "userId", default)]
    user: Option<UserId>,
    #[serde(rename = "tenantId", default)]
    tenant: Option<TenantId>,
}

impl JobEvent {
    /// Parses the JSON of an accepted event, as stored in history or sent on the feed.
    ///
    /// # Errors
    /// A member is missing or of the wrong form. Another program may have written it.
    pub fn parse(json: String) -> Result<Self, serde_json::Error> {
        let Envelope { event: kind, job, seq, timestamp, user, tenant } = serde_json::from_str(&json)?;
        Self::from_parts(kind, job, Owner { user, tenant }, timestamp, seq, json)
    }

    /// An event from its JSON, and from the members that this JSON has.
    ///
    /// # Errors
    /// `json` is not valid JSON.
    fn from_parts(
        kind: EventKind,
        job: JobId,
        owner: Owner,
        timestamp: Timestamp,
        seq: Seq,
        json: String,
    ) -> Result<Self, serde_json::Error> {
        let json = RawValue::from_string(json)?;
        Ok(Self(Arc::new(Accepted { kind, job, seq, timestamp, owner, json })))
    }

    /// Its job.
    pub fn job(&self) -> &JobId {
        &self.0.job
    }

    /// Its kind.
    pub fn kind(&self) -> EventKind {
        self.0.kind
    }

    /// Its number within the job.
    pub fn seq(&self) -> Seq {
        self.0.seq
    }

    /// When the gateway accepted it.
    pub fn timestamp(&self) -> Timestamp {
        self.0.timestamp
    }

    /// The job's owner.
    pub fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// Whether both are clones of the same event.
    pub fn is_same(&self, other: &JobEvent) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The event, byte for byte as every client gets it.
    pub fn json(&self) -> &RawValue {
        &self.0.json
    }

    /// Its rooms: the job's, those of the known owner, and `all-jobs`.
    pub fn rooms(&self) -> impl Iterator<Item = Room> + '_ {
        rooms(self.job(), self.owner())
    }
}

/// The rooms of a job's events.
pub fn rooms<'a>(job: &'a JobId, owner: &'a Owner) -> impl Iterator<Item = Room> + 'a {
    [
        Some(Room::Job(job.clone())),
        owner.user.clone().map(Room::User),
        owner.tenant.clone().map(Room::Tenant),
        Some(Room::AllJobs),
    ]
    .into_iter()
    .flatten()
}

/// The numbers of a job's events that are no longer in history. Both are inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The job.
    #[serde(rename = "jobId")]
    pub job: JobId,
    /// The first missing number.
    pub from: Seq,
    /// The last missing number.
    pub to: Seq,
}

impl Serialize for JobEvent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_sticky() {
        let owner = |user: Option<&str>, tenant: Option<&str>| Owner {
            user: user.map(|id| id.parse().unwrap()),
            tenant: tenant.map(|id| id.parse().unwrap()),
        };
        let known = owner(Some("u"), None);
        assert_eq!(known.merged(&owner(None, None)), Some(known.clone()));
        assert_eq!(known.merged(&owner(None, Some("t"))), Some(owner(Some("u"), Some("t"))));
        assert_eq!(known.merged(&owner(Some("v"), None)), None);
    }

    #[test]
    fn an_event_knows_its_rooms() {
        let json = r#"{"event":"job:update","jobId":"j","status":"s","data":null,"userId":"u","timestamp":"2023-11-14T22:13:20.123Z","seq":7}"#;
        let event = JobEvent::parse(json.to_owned()).unwrap();
        let rooms: Vec<_> = event.rooms().map(|room| room.to_string()).collect();
        assert_eq!(rooms, ["job:j", "user:u", "all-jobs"]);
        assert_eq!(event.json().get(), json);
        assert_eq!((event.seq(), event.timestamp().millis()), (7, 1_700_000_000_123));
    }

    #[test]
    fn what_others_wrote_is_no_event() {
        for json in
            [r#"{"event":"job:update","jobId":"j"}"#, "{}", "[]", "x", r#"{"event":"x","jobId":"j","seq":1}"#]
        {
            assert!(JobEvent::parse(json.to_owned()).is_err(), "{json}");
        }
    }
}
