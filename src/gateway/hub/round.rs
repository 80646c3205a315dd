use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::{
    event::{JobEvent, Seq},
    id::JobId,
    timestamp::Timestamp,
};

/// How many bytes of events wait in a round before they are handed over, beside the ones whose turn it is.
const READY_BYTES: usize = 256 * 1024;

/// How many events of all jobs are read ahead, so that each job has its part of them, and of one job at the most.
const READY_EVENTS: (usize, usize) = (1024, 100);

/// How many jobs are asked for at once.
const WANTED_AT_ONCE: usize = 16;

/// What a session lacks at one moment, of all its jobs, on its way to it by time.
#[derive(Default)]
pub struct Round {
    /// What the session's rooms and replays were when it began.
    pub epoch: u64,
    parts: Vec<Part>,
    /// The places of the parts that are not done, each with a time that none of its events is older than.
    due: BinaryHeap<Reverse<(Timestamp, usize)>>,
    bytes: usize,
}

/// What a session lacks of one job.
struct Part {
    job: JobId,
    /// The last number that was handed over.
    at: Seq,
    /// The last number of the round.
    target: Seq,
    ready: VecDeque<JobEvent>,
    /// What no event still to come is older than.
    time: Timestamp,
    /// Whether it is the very time of the next one.
    timed: bool,
    /// The last number of those that history has lost; told at once, for nobody knows of what time they were.
    lost: Seq,
}

/// A part of history that a round needs to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub job: JobId,
    pub after: Seq,
    /// How many events are of use.
    pub limit: usize,
    place: usize,
}

/// What comes next in a round.
pub enum Next {
    /// An event, after the last number of its job that was handed over.
    Event { after: Seq, event: JobEvent },
    /// Numbers of a job that cannot be had.
    Lost { job: JobId, after: Seq, to: Seq },
    /// Something has to be supplied first: the history of the job whose turn it is.
    Lacking(Want),
}

impl Round {
    /// A round of jobs, each with the last number that the session got and the last one that it is due.
    pub fn new(epoch: u64, jobs: impl Iterator<Item = (JobId, Seq, Seq)>) -> Self {
        let part = |(job, at, target)| Part {
            job,
            at,
            target,
            ready: VecDeque::new(),
            time: Timestamp::default(),
            timed: false,
            lost: 0,
        };
        let parts: Vec<_> = jobs.map(part).collect();
        let due = (0..parts.len()).map(|place| Reverse((Timestamp::default(), place))).collect();
        Self { epoch, parts, due, bytes: 0 }
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.due.is_empty()
    }

    /// Gives it up.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// What comes next; `None` when it is over.
    pub fn next(&mut self) -> Option<Next> {
        let place = self.first()?;
        let part = &self.parts[place];
        let (job, after) = (&part.job, part.at);
        Some(match part.ready.front() {
            _ if part.lost > after => Next::Lost { job: job.clone(), after, to: part.lost },
            Some(event) => Next::Event { after, event: event.clone() },
            None => Next::Lacking(self.want(place)),
        })
    }

    /// The place of the part whose turn it is, by all that is known.
    fn first(&mut self) -> Option<usize> {
        while let Some(Reverse((time, place))) = self.due.peek().copied() {
            let known = self.parts[place].time;
            if known <= time {
                return Some(place);
            }
            self.due.pop();
            self.due.push(Reverse((known, place)));
        }
        None
    }

    /// Notes that what came next was handed over, up to this number.
    pub fn advance(&mut self, seq: Seq) {
        let Some(place) = self.first() else { return };
        self.due.pop();
        let part = &mut self.parts[place];
        part.at = seq;
        if let Some(event) = part.ready.pop_front_if(|event| event.seq() <= seq) {
            self.bytes -= size(&event);
            part.time = part.time.max(event.timestamp());
        }
        if let Some(event) = part.ready.front() {
            part.time = part.time.max(event.timestamp());
        }
        part.timed = !part.ready.is_empty();
        if part.at < part.target {
            self.due.push(Reverse((part.time, place)));
        }
    }

    fn want(&self, place: usize) -> Want {
        let Part { ref job, at, target, .. } = self.parts[place];
        let lacking = usize::try_from(target - at).unwrap_or(usize::MAX);
        let share = (READY_EVENTS.0 / self.parts.len()).clamp(1, READY_EVENTS.1);
        Want { job: job.clone(), after: at, limit: lacking.min(share), place }
    }

    /// What has to be supplied before anything else can be handed over; empty if something can.
    pub fn wanted(&mut self) -> Vec<Want> {
        let mut passed = Vec::new();
        while passed.len() < WANTED_AT_ONCE
            && let Some(place) = self.first()
            && self.parts[place].ready.is_empty()
            && self.parts[place].lost <= self.parts[place].at
        {
            passed.extend(self.due.pop());
        }
        let wanted = passed.iter().map(|Reverse((_, place))| self.want(*place)).collect();
        self.due.extend(passed);
        wanted
    }

    /// All that is lacking at the moment, whoever's turn it is.
    pub fn lacking(&self) -> Vec<Want> {
        (0..self.parts.len()).map(|place| self.want(place)).collect()
    }

    /// Takes what was wanted, oldest first; an empty page says that history has none of it.
    pub fn supply(&mut self, want: &Want, page: Vec<JobEvent>) {
        let Some(part) = self.parts.get_mut(want.place) else { return };
        if part.at != want.after || !part.ready.is_empty() || part.lost > part.at {
            return;
        }
        let known = std::mem::replace(&mut part.timed, true);
        let target = part.target;
        let mut page =
            page.into_iter().filter(|event| (want.after + 1..=target).contains(&event.seq())).peekable();
        let first = page.peek().map(|event| (event.seq(), event.timestamp()));
        part.lost = first.map_or(target, |(seq, _)| seq - 1);
        // The one whose turn it is has its place in any case; of others the time will do.
        while let Some(event) =
            page.next_if(|event| known && part.ready.is_empty() || self.bytes + size(event) <= READY_BYTES)
        {
            self.bytes += size(&event);
            part.ready.push_back(event);
        }
        if let Some((_, time)) = first
            && part.lost <= part.at
        {
            part.time = part.time.max(time);
        }
    }
}

fn size(event: &JobEvent) -> usize {
    event.json().get().len()
}
