//! The jobs that were written last, so that the writer need not read them again for their next events.

use std::collections::HashMap;

use super::records::JobRecord;
use crate::id::JobId;

/// How many jobs at least are known; never more than twice as many.
const JOBS: usize = 8192;

/// What is on disk of the jobs that were noted last, in two generations, of which the older is dropped when the
/// younger is full.
#[derive(Debug, Default)]
pub struct Known {
    young: HashMap<JobId, JobRecord>,
    old: HashMap<JobId, JobRecord>,
}

impl Known {
    /// The record of a job that is known.
    pub fn get(&self, job: &JobId) -> Option<&JobRecord> {
        self.young.get(job).or_else(|| self.old.get(job))
    }

    /// Notes what is on disk of a job; `None` where that is nothing.
    pub fn note(&mut self, job: JobId, record: Option<JobRecord>) {
        let Some(record) = record else {
            self.young.remove(&job);
            self.old.remove(&job);
            return;
        };
        if self.young.len() >= JOBS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(job, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Owner, timestamp::Timestamp};

    #[test]
    fn knows_the_last_ones_and_no_more_than_fit() {
        let mut known = Known::default();
        let job = |number: usize| -> JobId { format!("job-{number}").parse().unwrap() };
        let record = |seq| Some(JobRecord::new(1, 1, seq, Timestamp::default(), false, &Owner::default()));
        for number in 0..JOBS + 10 {
            known.note(job(number), record(1));
        }
        known.note(job(0), record(2));
        known.note(job(1), None);
        assert_eq!(known.get(&job(0)).map(|record| record.seq), Some(2));
        assert_eq!(known.get(&job(1)), None);
        assert_eq!(known.get(&job(2)).map(|record| record.seq), Some(1));
        for number in 0..2 * JOBS {
            known.note(job(JOBS + number), record(1));
        }
        assert_eq!(known.get(&job(0)), None);
        assert!(known.young.len() + known.old.len() <= 2 * JOBS);
    }
}
