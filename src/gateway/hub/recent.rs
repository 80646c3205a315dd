use std::collections::{HashMap, VecDeque};

use crate::{
    event::{JobEvent, Seq},
    id::JobId,
};

/// The newest events that this node has delivered, for those who could not take them in that moment: most of what they
/// miss needs no reading then, so that they catch up faster than new events come.
pub struct Recent {
    jobs: HashMap<JobId, VecDeque<JobEvent>>,
    /// In the order in which they came; what is not in `jobs` any more is passed over.
    order: VecDeque<(JobId, Seq)>,
    bytes: usize,
    most: Most,
}

/// How much is remembered at the most.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub events: usize,
    pub bytes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self::new(Most { events: 4096, bytes: 4 << 20 })
    }
}

impl Recent {
    pub fn new(most: Most) -> Self {
        Self { jobs: HashMap::new(), order: VecDeque::new(), bytes: 0, most }
    }

    /// Remembers an event. What is remembered of a job has no hole: where this one does not follow, it is a beginning.
    pub fn push(&mut self, event: &JobEvent) {
        let (job, seq) = (event.job(), event.seq());
        if self.last(job).is_some_and(|last| last + 1 != seq) {
            self.forget(job);
        }
        self.jobs.entry(job.clone()).or_default().push_back(event.clone());
        self.order.push_back((job.clone(), seq));
        self.bytes += size(event);
        while self.order.len() > self.most.events || self.bytes > self.most.bytes {
            let Some((job, seq)) = self.order.pop_front() else { return };
            self.drop_oldest(&job, seq);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    fn last(&self, job: &JobId) -> Option<Seq> {
        Some(self.jobs.get(job)?.back()?.seq())
    }

    fn drop_oldest(&mut self, job: &JobId, seq: Seq) {
        let Some(events) = self.jobs.get_mut(job) else { return };
        if let Some(event) = events.pop_front_if(|event| event.seq() == seq) {
            self.bytes -= size(&event);
        }
        if events.is_empty() {
            self.jobs.remove(job);
        }
    }

    /// Forgets a job.
    pub fn forget(&mut self, job: &JobId) {
        let events = self.jobs.remove(job).unwrap_or_default();
        self.bytes -= events.iter().map(size).sum::<usize>();
    }

    /// The events of a job after a number, `limit` at the most; empty where the next one is not remembered.
    pub fn after(&self, job: &JobId, seq: Seq, limit: usize) -> Vec<JobEvent> {
        let Some(events) = self.jobs.get(job) else { return Vec::new() };
        let skipped = events.front().and_then(|first| (seq + 1).checked_sub(first.seq()));
        let skipped = skipped.and_then(|skipped| usize::try_from(skipped).ok()).unwrap_or(usize::MAX);
        events.iter().skip(skipped).take(limit).cloned().collect()
    }
}

fn size(event: &JobEvent) -> usize {
    event.json().get().len()
}
