//! Publishing: events of one job step by step in their order, those of different jobs side by side; and in a cluster,
//! then, the rooms whose indexes and channels are on other servers.

use std::collections::VecDeque;

use indexmap::IndexMap;
use redis::Value;

use super::{
    PIPELINE, Redis,
    call::Call,
    link::{self, Reply},
};
use crate::{
    event::{JobEvent, Owner, rooms},
    id::JobId,
    room::Room,
    store::{Accepted, Append, AppendError, Entry, MAX_ACTIVE_JOBS, StoreError, Window},
};

/// How many events of one job the server accepts in one step, in which it serves nobody else.
const STEP: usize = 64;

impl Redis {
    /// Accepts events: those of one job step by step in their order, those of different jobs side by side.
    pub async fn append(&self, appends: Vec<Append>) -> Vec<Result<Accepted, AppendError>> {
        let mut jobs: IndexMap<&JobId, VecDeque<usize>> = IndexMap::new();
        for (place, append) in appends.iter().enumerate() {
            jobs.entry(append.draft.job()).or_default().push_back(place);
        }
        let mut waiting: Vec<VecDeque<usize>> = jobs.into_values().collect();
        let mut outcomes: Vec<Option<Result<Accepted, AppendError>>> = appends.iter().map(|_| None).collect();
        while !waiting.is_empty() {
            let next = |places: &mut VecDeque<usize>| places.drain(..places.len().min(STEP)).collect();
            let steps: Vec<Vec<usize>> = waiting.iter_mut().map(next).collect();
            let answers = self.accept(&appends, &steps).await;
            for ((places, rest), answer) in steps.iter().zip(&mut waiting).zip(answers) {
                match answer {
                    Ok(answers) => {
                        places
                            .iter()
                            .zip(answers)
                            .for_each(|(place, answer)| outcomes[*place] = Some(answer));
                    }
                    // What comes after must not overtake it.
                    Err(error) => places.iter().copied().chain(rest.drain(..)).for_each(|place| {
                        outcomes[place] = Some(Err(error.clone().into()));
                    }),
                }
            }
            waiting.retain(|places| !places.is_empty());
        }
        let unanswered = || Err(StoreError("redis: unexpected answer".to_owned()).into());
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
    }

    /// Accepts one step of each of several jobs.
    async fn accept(
        &self,
        appends: &[Append],
        steps: &[Vec<usize>],
    ) -> Vec<Result<Vec<Result<Accepted, AppendError>>, StoreError>> {
        let drafts = |places: &Vec<usize>| places.iter().map(|place| &appends[*place]).collect::<Vec<_>>();
        let steps: Vec<Vec<&Append>> = steps.iter().map(drafts).collect();
        let mut answers = Vec::with_capacity(steps.len());
        for steps in steps.chunks(PIPELINE) {
            let calls = steps.iter().map(|step| self.publish_call(step)).collect();
            for (step, reply) in steps.iter().zip(self.link.send(calls).await) {
                answers.push(reply.and_then(|reply| self.answers(step, reply)));
            }
        }
        if self.link.servers().is_cluster() {
            let stored = steps.iter().zip(&answers);
            let stored: Vec<_> =
                stored.filter_map(|(step, answers)| Some((step, answers.as_ref().ok()?))).collect();
            if let Err(error) = self.reach_rooms(&stored).await {
                // They are in history, but not everybody has been told: only a repetition makes that good.
                answers
                    .iter_mut()
                    .filter(|answers| answers.is_ok())
                    .for_each(|answers| *answers = Err(error.clone()));
            }
        }
        let outcomes = |answers: Vec<Answer>| answers.into_iter().map(Answer::outcome).collect();
        answers.into_iter().map(|answers| answers.map(outcomes)).collect()
    }

    /// The answers to one step, unless too few replicas have them yet.
    fn answers(&self, step: &[&Append], reply: Reply) -> Result<Vec<Answer>, StoreError> {
        let answers = Answer::read_all(reply.value, step.len())?;
        if reply.replicated { Ok(answers) } else { Err(link::not_replicated()) }
    }

    /// Tells the rooms other than the jobs' own, whose indexes and channels are in other slots of a cluster.
    async fn reach_rooms(&self, stored: &[(&Vec<&Append>, &Vec<Answer>)]) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        for (step, answers) in stored {
            let mut events: Vec<JobEvent> = Vec::with_capacity(step.len());
            for (append, answer) in step.iter().zip(*answers) {
                match answer {
                    Answer::Accepted(position, owner) if !position.repeated => {
                        events.push(append.draft.accept(owner, position.timestamp, position.seq));
                    }
                    // The first call may have ended before it got here.
                    Answer::Accepted(position, _) => {
                        let window = Window::After { seq: position.seq - 1, limit: 1 };
                        let found = self.history(append.draft.job(), window).await?.into_iter();
                        events.extend(
                            found.filter_map(Entry::event).filter(|event| event.seq() == position.seq),
                        );
                    }
                    Answer::Refused(_) => {}
                }
            }
            calls.extend(self.reach_calls(&events));
        }
        self.link.ask_all::<Value>(calls).await.map(|_| ())
    }

    /// Calls that tell the rooms of one job's events.
    fn reach_calls(&self, events: &[JobEvent]) -> Vec<Call> {
        let Some(newest) = events.last() else { return Vec::new() };
        let others = rooms(newest.job(), newest.owner()).filter(|room| !matches!(room, Room::Job(_)));
        let call = |room: Room| {
            let call = self.reach.call(&[&self.keys.active(&room)]);
            let call = call.arg(self.keys.channel(&room)).arg(newest.job().as_str());
            let call = call.arg(newest.timestamp().millis()).arg(self.retention()).arg(MAX_ACTIVE_JOBS);
            events.iter().fold(call, |call, event| call.arg(event.json().get())).durable()
        };
        others.map(call).collect()
    }

    fn publish_call(&self, step: &[&Append]) -> Call {
        let job = step[0].draft.job();
        let (history, state) = (self.keys.history(job), self.keys.state(job));
        // In a cluster the rooms have slots of their own.
        let (indexes, channels) = match self.link.servers().is_cluster() {
            true => (String::new(), String::new()),
            false => (self.keys.indexes(), self.keys.channels()),
        };
        let call = self.publish.call(&[&history, &state]).arg(&state);
        let call = call.arg(self.keys.channel(&Room::Job(job.clone()))).arg(indexes).arg(channels);
        let call = call.arg(job.as_str()).arg(0);
        let call = step.iter().fold(call, |call, append| with_draft(call, append)).durable();
        match step.iter().all(|append| append.key.is_some()) {
            true => call,
            false => call.once(),
        }
    }
}

/// Adds what `publish.lua` wants to know of an event.
fn with_draft(call: Call, append: &Append) -> Call {
    let Append { draft, key, .. } = append;
    let (owner, kind) = (draft.owner(), draft.kind());
    let call = call
        .arg(draft.head())
        .arg(owner.user.as_ref().map_or("", |id| id.as_str()))
        .arg(owner.tenant.as_ref().map_or("", |id| id.as_str()))
        .arg(if kind.needs_open_job() { "needs_open" } else { "" })
        .arg(u8::from(kind.is_terminal()));
    match key {
        Some(key) => call.arg(key.as_str()).arg(draft.fingerprint()),
        None => call.arg("").arg(""),
    }
}

/// What `publish.lua` answers for one event.
enum Answer {
    /// Where it stands, and whose it is.
    Accepted(Accepted, Owner),
    Refused(AppendError),
}

impl Answer {
    fn read_all(answer: Value, count: usize) -> Result<Vec<Self>, StoreError> {
        let answers: Vec<String> = redis::from_redis_value(answer)?;
        let read: Option<Vec<Self>> = answers.iter().map(|answer| Self::read(answer)).collect();
        let unexpected = || StoreError(format!("redis: unexpected answer {answers:?}"));
        read.filter(|read| read.len() == count).ok_or_else(unexpected)
    }

    fn read(answer: &str) -> Option<Self> {
        let words: Vec<&str> = answer.split(' ').collect();
        Some(match words.as_slice() {
            [word @ ("ok" | "repeated"), seq, timestamp, user, tenant] => {
                let (seq, timestamp) = (seq.parse().ok()?, timestamp.parse().ok()?);
                let owner = Owner { user: user.parse().ok(), tenant: tenant.parse().ok() };
                Self::Accepted(Accepted { seq, timestamp, repeated: *word == "repeated" }, owner)
            }
            ["finished"] => Self::Refused(AppendError::JobFinished),
            ["owner"] => Self::Refused(AppendError::OwnerMismatch),
            ["conflict"] => Self::Refused(AppendError::IdempotencyConflict),
            _ => return None,
        })
    }

    fn outcome(self) -> Result<Accepted, AppendError> {
        match self {
            Self::Accepted(position, _) => Ok(position),
            Self::Refused(error) => Err(error),
        }
    }
}
