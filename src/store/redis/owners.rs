//! Whose the jobs are that were published to last: a script is told the keys of their rooms before it is called.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{event::Owner, id::JobId};

/// How many jobs are remembered at least.
const REMEMBERED: usize = 4096;

/// The owners of jobs. What it says may be out of date.
#[derive(Debug, Default)]
pub struct Owners(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<JobId, Owner>,
    old: HashMap<JobId, Owner>,
}

impl Owners {
    /// Who owned a job when it was published to last.
    pub fn of(&self, job: &JobId) -> Owner {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.get(job).or_else(|| generations.old.get(job)).cloned().unwrap_or_default()
    }

    /// Remembers an owner.
    pub fn learn(&self, job: &JobId, owner: &Owner) {
        let Generations { young, old } = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *owner == Owner::default() {
            young.remove(job);
            old.remove(job);
        } else if young.get(job) != Some(owner) {
            if young.len() >= REMEMBERED {
                *old = std::mem::take(young);
            }
            young.insert(job.clone(), owner.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered() {
        let owners = Owners::default();
        let job = |number: usize| format!("j{number}").parse::<JobId>().unwrap();
        let owner = Owner { user: "u".parse().ok(), tenant: None };
        (0..3 * REMEMBERED).for_each(|number| owners.learn(&job(number), &owner));
        assert_eq!((owners.of(&job(2 * REMEMBERED)), owners.of(&job(0))), (owner, Owner::default()));
        owners.learn(&job(2 * REMEMBERED), &Owner::default());
        assert_eq!(owners.of(&job(2 * REMEMBERED)), Owner::default());
    }
}
