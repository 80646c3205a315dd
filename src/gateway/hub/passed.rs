//! What a session in several rooms of a job has had of it, so that it gets each event by one room only.

use std::collections::HashMap;

use crate::{
    event::{JobEvent, Seq},
    id::JobId,
    room::Room,
};

/// How many jobs are remembered, and how many runs of one job.
const MAX_JOBS: usize = 4096;
const MAX_RUNS: usize = 16;

/// What the rooms of a session have brought of each job.
#[derive(Debug, Default)]
pub struct Passed(HashMap<JobId, Vec<Run>>);

/// A room has brought all that its log has of a job, from one number to another.
#[derive(Debug)]
struct Run {
    room: Room,
    first: Seq,
    last: Seq,
    /// Whether what the room brings next follows on it.
    goes_on: bool,
}

impl Passed {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that a room has brought an event, after all that its log has before it.
    pub fn note(&mut self, room: &Room, event: &JobEvent) {
        if self.0.len() >= MAX_JOBS && !self.0.contains_key(event.job()) {
            // The copies of older events have come long since.
            self.0.clear();
        }
        let (seq, runs) = (event.seq(), self.0.entry(event.job().clone()).or_default());
        match runs.iter_mut().find(|run| run.goes_on && run.room == *room) {
            Some(run) => run.last = run.last.max(seq),
            None => {
                if runs.len() >= MAX_RUNS {
                    runs.remove(0);
                }
                runs.push(Run { room: room.clone(), first: seq, last: seq, goes_on: true });
            }
        }
    }

    /// Notes that what a room brings next does not follow on what it has brought.
    pub fn end_runs(&mut self, room: &Room) {
        let runs = self.0.values_mut().flatten().filter(|run| run.room == *room);
        runs.for_each(|run| run.goes_on = false);
    }

    /// Whether an event was brought.
    pub fn has(&self, event: &JobEvent) -> bool {
        // A run says nothing of an event that its room does not have: the job's owner was not known then.
        let brought = |run: &&Run| (run.first..=run.last).contains(&event.seq());
        self.runs(event).filter(brought).any(|run| event.rooms().any(|room| room == run.room))
    }

    /// Whether the event right before this one of its job was brought.
    pub fn is_next(&self, event: &JobEvent) -> bool {
        event.seq().checked_sub(1).is_some_and(|before| self.runs(event).any(|run| run.last == before))
    }

    fn runs(&self, event: &JobEvent) -> impl Iterator<Item = &Run> {
        self.0.get(event.job()).into_iter().flatten()
    }
}
