//! Publishing: events of one job step by step in their order, those of different jobs side by side; and in a cluster,
//! then, the rooms whose logs and channels are on other servers.

use std::collections::VecDeque;

use indexmap::IndexMap;

use super::{PIPELINE, Redis, message};
use crate::{
    event::{JobEvent, Owner, Seq},
    id::JobId,
    redis::{Command, Error, Reply, Value},
    room::Room,
    store::{Accepted, Append, AppendError, StoreError},
};

/// How many events of one job the server accepts in one step, in which it serves nobody else.
const STEP: usize = 64;

/// How often an event is sent again because its job is of others than expected.
const ATTEMPTS: usize = 3;

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
        let mut stored = Vec::with_capacity(steps.len());
        for steps in steps.chunks(PIPELINE) {
            let calls = steps.iter().map(|step| self.publish_call(step, &self.likely_owner(step))).collect();
            for (step, reply) in steps.iter().zip(self.client.send(calls).await) {
                let answer = self.stored(step, reply).await;
                stored.push(answer.map_err(|error| self.note(error)));
            }
        }
        if self.client.is_cluster() {
            let told = steps.iter().zip(&stored);
            let told: Vec<_> =
                told.filter_map(|(step, stored)| Some((step, stored.as_ref().ok()?))).collect();
            if let Err(error) = self.log_in_rooms(&told).await {
                // They are in history, but not everybody has been told: only a repetition makes that good.
                let error = self.note(error);
                stored
                    .iter_mut()
                    .filter(|stored| stored.is_ok())
                    .for_each(|stored| *stored = Err(error.clone()));
            }
        }
        if stored.iter().any(Result::is_ok) {
            self.refusals.accepted();
        }
        let outcomes = |stored: Stored| stored.answers.into_iter().map(Answer::outcome).collect();
        stored.into_iter().map(|stored| stored.map(outcomes)).collect()
    }

    /// Notes that Redis refused something, if so.
    fn note(&self, error: Error) -> StoreError {
        let refused = error.is_refusal();
        let error = StoreError::from(error);
        if refused {
            self.refusals.refused(&error);
        }
        error
    }

    /// Whose the job of a step is, as far as can be told.
    fn likely_owner(&self, step: &[&Append]) -> Owner {
        if self.client.is_cluster() {
            return Owner::default();
        }
        let known = self.owners.of(step[0].draft.job());
        step.iter().map(|append| append.draft.owner()).fold(known, |known, named| Owner {
            user: known.user.or_else(|| named.user.clone()),
            tenant: known.tenant.or_else(|| named.tenant.clone()),
        })
    }

    /// What became of a step. Where the job was of others than expected it is sent again.
    async fn stored(&self, step: &[&Append], reply: Result<Reply, Error>) -> Result<Stored, Error> {
        let job = step[0].draft.job();
        let mut answer: Vec<String> = reply?.read()?;
        for _ in 0..ATTEMPTS {
            let Some(owner) = answer.first().and_then(|first| rooms_of(first)) else { break };
            self.owners.learn(job, &owner);
            answer = self.client.ask(self.publish_call(step, &owner)).await?;
        }
        let stored = Stored::read(&answer, step.len()).ok_or_else(|| Error::Answer(format!("{answer:?}")))?;
        if let (Some(owner), false) = (stored.owner(), self.client.is_cluster()) {
            self.owners.learn(job, owner);
        }
        Ok(stored)
    }

    /// Logs events in the shared rooms of a cluster, whose logs and channels are in other slots than their jobs.
    async fn log_in_rooms(&self, stored: &[(&Vec<&Append>, &Stored)]) -> Result<(), Error> {
        let mut logged = Vec::new();
        for (step, stored) in stored {
            let mut events: Vec<JobEvent> = Vec::with_capacity(step.len());
            for (append, answer) in step.iter().zip(&stored.answers) {
                match answer {
                    Answer::Accepted(accepted, owner) if !accepted.repeated => {
                        events.push(append.draft.accept(owner, accepted.timestamp, accepted.seq));
                    }
                    // The first call may have ended before it got here.
                    Answer::Accepted(accepted, _) => {
                        let before = accepted.seq.saturating_sub(1);
                        let again = self.events_after(append.draft.job(), before, 1).await?;
                        if again.first().is_some_and(|event| event.seq() == accepted.seq) {
                            logged.extend(in_rooms(again, before, accepted.timestamp.millis()));
                        }
                    }
                    Answer::Refused(_) => {}
                }
            }
            logged.extend(in_rooms(events, stored.before, stored.before_at));
        }
        let replies = self.client.send(logged.iter().map(|run| self.log_call(run)).collect()).await;
        for (run, reply) in logged.into_iter().zip(replies) {
            if let Some(last) = reply?.read::<Option<Seq>>()? {
                self.heal(run, last).await?;
            }
        }
        Ok(())
    }

    /// Logs what a room's log lacks of a job after a number.
    async fn heal(&self, run: Run, last: Seq) -> Result<(), Error> {
        let Some(job) = run.events.first().map(JobEvent::job) else { return Ok(()) };
        let mut events = self.events_after(job, last, self.history.max_events).await?;
        events.retain(|event| event.rooms().any(|room| room == run.room));
        for events in events.chunks(STEP) {
            let run = Run { room: run.room.clone(), events: events.to_vec(), before: 0, before_at: 0 };
            self.client.ask::<Value>(self.log_call(&run)).await?;
        }
        Ok(())
    }

    fn log_call(&self, run: &Run) -> Command {
        let Run { room, events, before, before_at } = run;
        let (log, logged, active) = (self.keys.log(room), self.keys.logged(room), self.keys.active(room));
        let job = events.first().map_or("", |event| event.job().as_str());
        let (before_id, after_id) = message::around_id(room);
        let call = self.room_log.call(&[&log, &logged, &active]).arg(job).arg(self.history.entries_of(room));
        let call = call.arg(*before).arg(*before_at).arg(before_id).arg(after_id);
        let event = |call: Command, event: &JobEvent| {
            call.arg(event.seq()).arg(event.timestamp().millis()).arg(event.json().get())
        };
        events.iter().fold(call, event).publishes().tells_run()
    }

    fn publish_call(&self, step: &[&Append], owner: &Owner) -> Command {
        let job = step[0].draft.job();
        let mut keys = vec![self.keys.history(job), self.keys.state(job)];
        if !self.client.is_cluster() {
            let (user, tenant) = (owner.user.clone().map(Room::User), owner.tenant.clone().map(Room::Tenant));
            keys.push(self.keys.run());
            for room in [Some(Room::AllJobs), user, tenant].into_iter().flatten() {
                keys.extend([self.keys.log(&room), self.keys.active(&room)]);
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let call = self.publish.call(&keys).arg(job.as_str());
        let call = with_draft(with_owner(call, owner), step).publishes().tells_run();
        match step.iter().all(|append| append.key.is_some()) {
            true => call,
            false => call.once(),
        }
    }
}

/// Events of one job that follow on one another in a room.
struct Run {
    room: Room,
    events: Vec<JobEvent>,
    /// The number before the first of them in the job's history, and its time; 0 where the room has nothing before.
    before: Seq,
    before_at: u64,
}

/// Events of one job, by the shared rooms that they reach.
fn in_rooms(events: Vec<JobEvent>, before: Seq, before_at: u64) -> Vec<Run> {
    let Some(newest) = events.last() else { return Vec::new() };
    let run = |room: Room| {
        let reach = |event: &&JobEvent| event.rooms().any(|other| other == room);
        let reached: Vec<JobEvent> = events.iter().filter(reach).cloned().collect();
        let (before, before_at) = if reached.len() == events.len() { (before, before_at) } else { (0, 0) };
        Run { room, events: reached, before, before_at }
    };
    newest.rooms().filter(|room| !matches!(room, Room::Job(_))).map(run).collect()
}

fn with_owner(call: Command, owner: &Owner) -> Command {
    call.arg(owner.user.as_ref().map_or("", |id| id.as_str()))
        .arg(owner.tenant.as_ref().map_or("", |id| id.as_str()))
}

/// Adds what `publish.lua` wants to know of events.
fn with_draft(call: Command, step: &[&Append]) -> Command {
    step.iter().fold(call, |call, Append { draft, key }| {
        let kind = draft.kind();
        let call = with_owner(call.arg(draft.head()), draft.owner())
            .arg(if kind.needs_open_job() { "needs_open" } else { "" })
            .arg(u8::from(kind.is_terminal()));
        match key {
            Some(key) => call.arg(key.as_str()).arg(draft.fingerprint()),
            None => call.arg("").arg(""),
        }
    })
}

/// Whose rooms `publish.lua` asks for, if that is its answer.
pub fn rooms_of(answer: &str) -> Option<Owner> {
    let (user, tenant) = answer.strip_prefix("rooms ")?.split_once(' ')?;
    Some(Owner { user: user.parse().ok(), tenant: tenant.parse().ok() })
}

/// What `publish.lua` answers for a step.
pub struct Stored {
    /// The number before the first event, and its time.
    before: Seq,
    before_at: u64,
    answers: Vec<Answer>,
}

impl Stored {
    /// Reads the answers to a step of `count` events; `None` where nobody here wrote them.
    pub fn read(answers: &[String], count: usize) -> Option<Self> {
        let (first, answers) = answers.split_first()?;
        let (before, before_at) = first.split_once(' ')?;
        let answers: Vec<Answer> =
            answers.iter().map(|answer| Answer::read(answer)).collect::<Option<_>>()?;
        let (before, before_at) = (before.parse().ok()?, before_at.parse().ok()?);
        (answers.len() == count).then_some(Self { before, before_at, answers })
    }

    fn owner(&self) -> Option<&Owner> {
        self.answers.iter().rev().find_map(|answer| match answer {
            Answer::Accepted(_, owner) => Some(owner),
            Answer::Refused(_) => None,
        })
    }
}

/// What it answers for one event.
enum Answer {
    /// Where it stands, and whose it is.
    Accepted(Accepted, Owner),
    Refused(AppendError),
}

impl Answer {
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
