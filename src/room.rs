//! Rooms: clients subscribe to them, and events are delivered to them.

use std::{fmt, str::FromStr};

use crate::id::{InvalidId, JobId, TenantId, UserId};

/// A set of jobs to subscribe to. Written `job:<id>`, `user:<id>`, `tenant:<id>` or `all-jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Room {
    /// One job.
    Job(JobId),
    /// Every job of a user.
    User(UserId),
    /// Every job of a tenant.
    Tenant(TenantId),
    /// Every job.
    AllJobs,
}

/// Why a text is not a room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoom {
    /// The text has none of the four forms.
    #[error("a room is job:<id>, user:<id>, tenant:<id> or all-jobs")]
    Form,
    /// The part after the colon is not an identifier.
    #[error("the room's id {0}")]
    Id(#[from] InvalidId),
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Room::Job(id) => write!(f, "job:{id}"),
            Room::User(id) => write!(f, "user:{id}"),
            Room::Tenant(id) => write!(f, "tenant:{id}"),
            Room::AllJobs => f.write_str("all-jobs"),
        }
    }
}

impl FromStr for Room {
    type Err = InvalidRoom;

    fn from_str(text: &str) -> Result<Self, InvalidRoom> {
        match text.split_once(':') {
            Some(("job", id)) => Ok(Room::Job(id.parse()?)),
            Some(("user", id)) => Ok(Room::User(id.parse()?)),
            Some(("tenant", id)) => Ok(Room::Tenant(id.parse()?)),
            None if text == "all-jobs" => Ok(Room::AllJobs),
            _ => Err(InvalidRoom::Form),
        }
    }
}

impl serde::Serialize for Room {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_other_forms() {
        for text in ["", "all", "job", "job:", "queue:1", "job:a b", "all-jobs:1"] {
            assert!(text.parse::<Room>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(kind in 0..4, id in "[A-Za-z0-9_.:@-]{1,128}") {
            let room = match kind {
                0 => Room::Job(id.parse().unwrap()),
                1 => Room::User(id.parse().unwrap()),
                2 => Room::Tenant(id.parse().unwrap()),
                _ => Room::AllJobs,
            };
            prop_assert_eq!(room.to_string().parse(), Ok(room));
        }
    }
}
