//! What readers need of all rooms together, in memory: which jobs were active last, and up to where logs are written.

use std::collections::BTreeSet;

use super::{
    kv::{Kv, Order},
    records::{self, JobRecord},
};
use crate::{
    id::JobId,
    position::Position,
    room::Room,
    store::{MAX_ACTIVE_JOBS, StoreError},
    timestamp::Timestamp,
};

/// The jobs of all rooms by the time of their newest events, the most recent [`MAX_ACTIVE_JOBS`]. On disk each event
/// would move a key, and leave a tombstone that each look-up has to step over. It is made anew when the store opens.
#[derive(Debug, Default)]
pub struct Index {
    active: BTreeSet<(Timestamp, JobId)>,
    /// How many jobs there are, those among them that have expired and are not removed yet.
    jobs: usize,
    end: Position,
}

impl Index {
    /// Reads it from what is on disk, without the jobs whose last event was at `expired` or before.
    ///
    /// # Errors
    /// [`StoreError`] where a job cannot be read.
    pub fn read(kv: &Kv, expired: Timestamp) -> Result<Self, StoreError> {
        const PAGE: usize = 1000;
        let (mut index, mut last) = (Self::default(), None);
        let log = records::log_after(&Room::AllJobs, Position::START);
        let newest = kv.scan(log, Order::Descending, 1)?;
        let newest = newest.first().map_or(Position::START, |(key, _)| records::position_of_key(key));
        index.end = newest.max(Position::before(Timestamp::now()));
        loop {
            let found = kv.scan(records::jobs_after(last.as_ref()), Order::Ascending, PAGE)?;
            for (key, bytes) in &found {
                let (job, record) = (records::job_of_key(key), records::read::<JobRecord>(bytes)?);
                match job {
                    Some(job) if record.at > expired => index.moved(&job, None, Some(record.at)),
                    _ => index.jobs += 1,
                }
            }
            last = match found.last() {
                Some((key, _)) if found.len() == PAGE => records::job_of_key(key),
                _ => return Ok(index),
            };
        }
    }

    /// Follows a job whose newest event is another one, or that came or went.
    pub fn moved(&mut self, job: &JobId, before: Option<Timestamp>, after: Option<Timestamp>) {
        self.jobs = (self.jobs + usize::from(after.is_some())).saturating_sub(usize::from(before.is_some()));
        if let Some(at) = before {
            self.active.remove(&(at, job.clone()));
        }
        if let Some(at) = after {
            self.active.insert((at, job.clone()));
            if self.active.len() > MAX_ACTIVE_JOBS {
                self.active.pop_first();
            }
        }
    }

    /// The jobs that were active at `since` or later, most recent first.
    pub fn since(&self, since: Timestamp, limit: usize) -> Vec<JobId> {
        let jobs = self.active.iter().rev().take_while(|(at, _)| *at >= since);
        jobs.take(limit).map(|(_, job)| job.clone()).collect()
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// A recent place that no entry still to come is at or before.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Follows what has been committed.
    pub fn ends_at(&mut self, end: Position) {
        self.end = self.end.max(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_jobs_and_keeps_the_most_recent() {
        let at = |millis| Timestamp::from_millis(millis);
        let mut index = Index::default();
        for number in 0..MAX_ACTIVE_JOBS as u64 + 2 {
            index.moved(&format!("j{number}").parse().unwrap(), None, at(number));
        }
        let all = index.since(Timestamp::default(), usize::MAX);
        assert_eq!((all.len(), all.last().unwrap().as_str()), (MAX_ACTIVE_JOBS, "j2"));
        index.moved(&"j5".parse().unwrap(), at(5), at(20_000));
        index.moved(&all[0], at(MAX_ACTIVE_JOBS as u64 + 1), None);
        let last = index.since(at(MAX_ACTIVE_JOBS as u64 - 1).unwrap(), 9);
        let last: Vec<_> = last.iter().map(JobId::as_str).collect();
        assert_eq!(last, ["j5", "j10000", "j9999"]);
        assert_eq!(index.since(Timestamp::default(), 2).len(), 2);
        assert_eq!(index.jobs(), MAX_ACTIVE_JOBS + 1);
    }
}
