//! The numbers that publishers were given of late. Watchers may have seen them and be gone: a store that loses its
//! newest events must be told of them all the same, so that it gives none of them again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{event::Seq, id::JobId};

/// For how long at least a number is remembered, while there are few: longer than any store is behind its copies.
const MEMORY: Duration = Duration::from_secs(60);

/// How many jobs at least are remembered; never more than twice as many.
const JOBS: usize = 65_536;

/// The newest number of each job, in two generations, of which the older is dropped when the younger is full or old.
#[derive(Debug)]
pub struct Given(Mutex<Generations>);

#[derive(Debug)]
struct Generations {
    young: HashMap<JobId, Seq>,
    old: HashMap<JobId, Seq>,
    begun: Instant,
}

impl Default for Given {
    fn default() -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self(Mutex::new(Generations { young, old, begun: Instant::now() }))
    }
}

impl Given {
    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a number.
    pub fn note(&self, job: &JobId, seq: Seq) {
        let mut generations = self.generations();
        if generations.young.len() >= JOBS || generations.begun.elapsed() >= MEMORY {
            generations.old = std::mem::take(&mut generations.young);
            generations.begun = Instant::now();
        }
        match generations.young.get_mut(job) {
            Some(newest) => *newest = seq.max(*newest),
            None => _ = generations.young.insert(job.clone(), seq),
        }
    }

    /// The newest number of a job that is remembered.
    pub fn newest(&self, job: &JobId) -> Option<Seq> {
        let generations = self.generations();
        generations.young.get(job).max(generations.old.get(job)).copied()
    }

    /// All that is remembered.
    pub fn all(&self) -> Vec<(JobId, Seq)> {
        let generations = self.generations();
        let mut all = generations.old.clone();
        for (job, seq) in &generations.young {
            let newest = all.entry(job.clone()).or_insert(*seq);
            *newest = seq.max(newest).to_owned();
        }
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_newest_of_as_many_as_fit() {
        let given = Given::default();
        let job = |number: usize| -> JobId { format!("job-{number}").parse().unwrap() };
        for number in 0..JOBS + 10 {
            given.note(&job(number), 1);
        }
        given.note(&job(0), 7);
        given.note(&job(0), 5);
        assert_eq!(given.newest(&job(0)), Some(7));
        assert_eq!(given.newest(&job(1)), Some(1));
        assert_eq!(given.all().len(), JOBS + 10);
        assert!(given.all().contains(&(job(0), 7)));
        for number in 0..2 * JOBS {
            given.note(&job(JOBS + number), 1);
        }
        assert_eq!(given.newest(&job(1)), None);
        assert!(given.all().len() <= 2 * JOBS);
    }
}
