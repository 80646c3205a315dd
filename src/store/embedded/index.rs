//! Which jobs of a room were active when. It lives in memory: on disk every event would move an entry, and leave
//! behind a grave that each look-up has to step over. It is made anew when the store opens.

use std::collections::{BTreeSet, HashMap};

use super::{
    kv::{Kv, Order},
    records::{self, JobRecord},
};
use crate::{
    event::{Owner, rooms},
    id::JobId,
    room::Room,
    store::{MAX_ACTIVE_JOBS, StoreError},
    timestamp::Timestamp,
};

/// Where a job stands: whose it is, and when it was last active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub owner: Owner,
    pub at: Timestamp,
}

/// A job that moved in the index, came or went.
#[derive(Debug, Clone)]
pub struct Change {
    pub job: JobId,
    pub before: Option<Standing>,
    pub after: Option<Standing>,
}

/// The active jobs of each room but the jobs' own, by time; of each room the most recent [`MAX_ACTIVE_JOBS`].
#[derive(Debug, Default)]
pub struct ActiveJobs {
    rooms: HashMap<Room, BTreeSet<(Timestamp, JobId)>>,
}

impl ActiveJobs {
    /// Reads it from what is on disk, without the jobs whose last event was at `expired` or before.
    ///
    /// # Errors
    /// [`StoreError`] where a job cannot be read.
    pub fn read(kv: &Kv, expired: Timestamp) -> Result<Self, StoreError> {
        const PAGE: usize = 1000;
        let (mut active, mut last) = (Self::default(), None);
        loop {
            let found = kv.scan(records::jobs_after(last.as_ref()), Order::Ascending, PAGE)?;
            for (key, bytes) in &found {
                let (job, record) = (records::job_of_key(key), JobRecord::read(bytes)?);
                if let Some(job) = job.filter(|_| record.at > expired) {
                    active.apply(&Change { job, before: None, after: Some(record.standing()) });
                }
            }
            last = match found.last() {
                Some((key, _)) if found.len() == PAGE => records::job_of_key(key),
                _ => return Ok(active),
            };
        }
    }

    /// Follows a change.
    pub fn apply(&mut self, change: &Change) {
        let Change { job, before, after } = change;
        if before == after {
            return;
        }
        if let Some(Standing { owner, at }) = before {
            for room in shared_rooms(job, owner) {
                if let Some(jobs) = self.rooms.get_mut(&room) {
                    jobs.remove(&(*at, job.clone()));
                    if jobs.is_empty() {
                        self.rooms.remove(&room);
                    }
                }
            }
        }
        if let Some(Standing { owner, at }) = after {
            for room in shared_rooms(job, owner) {
                let jobs = self.rooms.entry(room).or_default();
                jobs.insert((*at, job.clone()));
                if jobs.len() > MAX_ACTIVE_JOBS {
                    jobs.pop_first();
                }
            }
        }
    }

    /// The jobs of a room that were active at `since` or later, most recent first.
    pub fn since(&self, room: &Room, since: Timestamp, limit: usize) -> Vec<JobId> {
        let jobs = self.rooms.get(room).into_iter().flatten().rev();
        jobs.take_while(|(at, _)| *at >= since).take(limit).map(|(_, job)| job.clone()).collect()
    }
}

fn shared_rooms<'a>(job: &'a JobId, owner: &'a Owner) -> impl Iterator<Item = Room> + 'a {
    rooms(job, owner).filter(|room| !matches!(room, Room::Job(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(at: u64, user: Option<&str>) -> Option<Standing> {
        let owner = Owner { user: user.map(|id| id.parse().unwrap()), tenant: None };
        Some(Standing { owner, at: Timestamp::from_millis(at).unwrap() })
    }

    #[test]
    fn follows_jobs_and_forgets_empty_rooms() {
        let mut index = ActiveJobs::default();
        let mut apply = |job: &str, before, after| {
            index.apply(&Change { job: job.parse().unwrap(), before, after });
            let of = |room: &Room, since| {
                let jobs = index.since(room, Timestamp::from_millis(since).unwrap(), 9);
                jobs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            };
            (
                of(&Room::AllJobs, 0),
                of(&Room::AllJobs, 2),
                of(&Room::User("u".parse().unwrap()), 0),
                index.rooms.len(),
            )
        };
        let told = |all: &str, late: &str, user: &str, rooms| {
            (all.to_owned(), late.to_owned(), user.to_owned(), rooms)
        };
        assert_eq!(apply("a", None, standing(1, None)), told("a", "", "", 1));
        assert_eq!(apply("b", None, standing(2, Some("u"))), told("b a", "b", "b", 2));
        assert_eq!(apply("a", standing(1, None), standing(3, Some("u"))), told("a b", "a b", "a b", 2));
        assert_eq!(apply("a", standing(3, Some("u")), None), told("b", "b", "b", 2));
        assert_eq!(apply("b", standing(2, Some("u")), None), told("", "", "", 0));
    }

    #[test]
    fn keeps_the_most_recent() {
        let mut index = ActiveJobs::default();
        for number in 0..MAX_ACTIVE_JOBS + 2 {
            let after = standing(number as u64, None);
            index.apply(&Change { job: format!("j{number}").parse().unwrap(), before: None, after });
        }
        let jobs = index.since(&Room::AllJobs, Timestamp::default(), usize::MAX);
        assert_eq!((jobs.len(), jobs.last().unwrap().as_str()), (MAX_ACTIVE_JOBS, "j2"));
    }
}
