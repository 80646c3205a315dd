//! Joining a room without missing or repeating anything: cover, note, snapshot, answer, start.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use indexmap::IndexSet;
use serde::Serialize;

use super::{
    Gateway, Session, catch_up,
    hub::{JoinId, Starting},
};
use crate::{
    event::{JobEvent, Seq},
    id::{JobId, TenantId, UserId},
    refusal::{Code, Refusal},
    room::Room,
    store::{Bounds, Entry, MAX_ACTIVE_JOBS, StoreError, Window},
    timestamp::Timestamp,
};

/// How many of a room's jobs its snapshot names.
const MAX_LATEST: usize = 100;

/// How long a session waits for its turn to join, where the store is slow or gone.
const TURN_PATIENCE: Duration = Duration::from_secs(30);

/// How many histories a resuming session reads at once.
const RESUME_READS: usize = 16;

/// Where to resume a job from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobResume {
    /// After this number; 0 asks for all there ever was.
    Since(Seq),
    /// With the so many newest that are retained.
    Newest(usize),
}

/// What a watcher asks for: a room, and from where on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// One job.
    Job(JobId, Option<JobResume>),
    /// The jobs of a user, those active since then replayed from then.
    User(UserId, Option<Timestamp>),
    /// The jobs of a tenant, likewise.
    Tenant(TenantId, Option<Timestamp>),
    /// All jobs, likewise.
    AllJobs(Option<Timestamp>),
}

impl Subscription {
    /// The room that is asked for.
    pub fn room(&self) -> Room {
        match self {
            Subscription::Job(job, _) => Room::Job(job.clone()),
            Subscription::User(user, _) => Room::User(user.clone()),
            Subscription::Tenant(tenant, _) => Room::Tenant(tenant.clone()),
            Subscription::AllJobs(_) => Room::AllJobs,
        }
    }
}

/// What is new in a room, as of joining it.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Latest {
    /// The job's newest event, if it has one.
    Job(Option<Entry>),
    /// The newest event of each recently active job, newest first.
    Jobs(Vec<Entry>),
}

/// What is about to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Whether nothing between is missing.
    pub recovered: bool,
    /// How many events are about to be replayed.
    pub replaying: usize,
}

/// A room that is joined but for the last step. Deliveries begin with [`Joined::start`], after the answer has
/// been sent; dropping it gives the joining up.
#[must_use = "nothing is delivered before `start`"]
#[derive(Debug)]
pub struct Joined<'a> {
    /// The room.
    pub room: Room,
    /// What is new in it.
    pub latest: Latest,
    /// What is about to be replayed, if that was asked for.
    pub resumed: Option<Resumed>,
    starting: Vec<Starting>,
    joining: Joining<'a>,
}

impl Joined<'_> {
    /// Delivers from here on: first what is replayed, then what is live.
    pub fn start(self) {
        self.joining.start(self.starting);
    }
}

/// Undoes what joining did, unless it was completed.
#[derive(Debug)]
struct Joining<'a> {
    session: &'a Session,
    room: Room,
    id: JoinId,
    done: bool,
}

impl<'a> Joining<'a> {
    fn begin(session: &'a Session, room: &Room) -> Result<Self, Refusal> {
        let limit = session.gateway.0.options.rooms_per_client;
        let begun = session.gateway.hub(|hub| {
            let room_left = hub.is_in(session.key, room) || hub.room_count(session.key) < limit;
            if room_left { Ok(hub.begin_join(session.key, room)) } else { Err(limit) }
        });
        match begun {
            Ok(Some(id)) => {
                session.enter(room);
                Ok(Self { session, room: room.clone(), id, done: false })
            }
            Ok(None) => Err(Refusal::new(Code::Unavailable, "the session has ended")),
            Err(limit) => {
                let message = format!("a client may be in at most {limit} rooms; leave one first");
                Err(Refusal::new(Code::LimitReached, message))
            }
        }
    }

    fn start(mut self, jobs: Vec<Starting>) {
        let newly = self.session.gateway.hub(|hub| hub.start(self.session.key, self.id, jobs));
        self.done = newly;
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        // Also where the session was in the room before: then this cover and this count were one too many.
        if !self.done {
            self.session.gateway.hub(|hub| hub.cancel_join(self.session.key, self.id));
            self.session.forget(&self.room);
        }
    }
}

/// What joining found in the store.
struct Snapshot {
    latest: Latest,
    resumed: Option<Resumed>,
    starting: Vec<Starting>,
}

impl Session {
    /// Joins a room. What happens from now on is not lost: it is delivered after [`Joined::start`].
    ///
    /// # Errors
    /// [`Code::LimitReached`] beyond `limits.rooms_per_client`, [`Code::Unavailable`] when the store does not
    /// answer; the session is then in no room that it was not in before.
    pub async fn join(&self, subscription: &Subscription) -> Result<Joined<'_>, Refusal> {
        let room = subscription.room();
        // In a storm of reconnects the deadlines of the store count from a session's turn on.
        let Ok(_turn) = tokio::time::timeout(TURN_PATIENCE, self.gateway.0.joins.acquire()).await else {
            return Err(Refusal::new(Code::Unavailable, "too many are joining; try again"));
        };
        let joining = Joining::begin(self, &room)?;
        let prepare = async {
            self.gateway.0.store.cover(&room).await?;
            let snapshot = self.gateway.snapshot(subscription).await?;
            self.gateway.records_published().await?;
            Ok(snapshot)
        };
        let Snapshot { latest, resumed, starting } = self.gateway.asked(prepare.await)?;
        Ok(Joined { room, latest, resumed, starting, joining })
    }
}

impl Gateway {
    async fn snapshot(&self, subscription: &Subscription) -> Result<Snapshot, StoreError> {
        match subscription {
            Subscription::Job(job, resume) => self.job_snapshot(job, *resume).await,
            Subscription::User(_, since) | Subscription::Tenant(_, since) | Subscription::AllJobs(since) => {
                self.room_snapshot(&subscription.room(), *since).await
            }
        }
    }

    async fn job_snapshot(&self, job: &JobId, resume: Option<JobResume>) -> Result<Snapshot, StoreError> {
        let store = &self.0.store;
        let (latest, bounds) = match resume {
            Some(_) => store.head(job, None).await?,
            None => (store.latest(std::slice::from_ref(job)).await?.pop(), None),
        };
        let told = latest.clone().and_then(Entry::event).map(|event| event.seq());
        let plan = resume.map(|resume| plan(resume, bounds, told));
        let event = latest.clone().and_then(Entry::event);
        let after = plan.and_then(|(after, _)| after);
        let starting = event.map(|latest| Starting { latest, after });
        Ok(Snapshot {
            latest: Latest::Job(latest),
            resumed: plan.map(|(_, resumed)| resumed),
            starting: starting.into_iter().collect(),
        })
    }

    async fn room_snapshot(&self, room: &Room, since: Option<Timestamp>) -> Result<Snapshot, StoreError> {
        let store = &self.0.store;
        let recent = store.active(room, Timestamp::default(), MAX_LATEST).await?;
        let latest = store.latest(&recent).await?;
        let mut starting: Vec<Starting> = latest
            .iter()
            .cloned()
            .filter_map(|entry| Some(Starting { latest: entry.event()?, after: None }))
            .collect();
        let mut resumed = None;
        if let Some(since) = since {
            // The jobs are read one after the other. What is accepted meanwhile comes by the feed: to be given some of
            // it now would be to get newer events of one job before older ones of another.
            let newest = starting.iter().map(|job| job.latest.timestamp()).max();
            let jobs: IndexSet<JobId> =
                store.active(room, since, MAX_ACTIVE_JOBS).await?.into_iter().collect();
            let mut sum = Resumed { recovered: jobs.len() < MAX_ACTIVE_JOBS, replaying: 0 };
            let mut parts =
                stream::iter(jobs).map(|job| self.resume_from(job, since, newest)).buffered(RESUME_READS);
            while let Some(part) = parts.try_next().await? {
                let Some((resuming, part)) = part else { continue };
                sum = Resumed {
                    recovered: sum.recovered && part.recovered,
                    replaying: sum.replaying + part.replaying,
                };
                starting.retain(|other| other.latest.job() != resuming.latest.job());
                starting.push(resuming);
            }
            resumed = Some(sum);
        }
        Ok(Snapshot { latest: Latest::Jobs(latest), resumed, starting })
    }

    /// Where a job has to be resumed, so that all of it since that time is replayed, until the newest one.
    async fn resume_from(
        &self,
        job: JobId,
        since: Timestamp,
        newest: Option<Timestamp>,
    ) -> Result<Option<(Starting, Resumed)>, StoreError> {
        let mut events = catch_up::read(self, &job, Window::Newest(self.0.history_cap)).await?;
        events.retain(|event| newest.is_none_or(|newest| event.timestamp() <= newest));
        let Some(place) = events.iter().position(|event| event.timestamp() >= since) else { return Ok(None) };
        let (first, newest) = (&events[place], &events[events.len() - 1]);
        // Where the number before is not there, the store has lost it, and it may have been of that time too.
        let mut after = events[..place].last().map_or(first.seq() - 1, JobEvent::seq);
        if place == 0 {
            // Older ones may have been of that time too: go back to the job's very first.
            let bounds = self.0.store.head(&job, None).await?.1;
            after = bounds.map_or(after, |bounds| (bounds.first - 1).min(after));
        }
        let resumed = Resumed { recovered: after == first.seq() - 1, replaying: events.len() - place };
        Ok(Some((Starting { latest: newest.clone(), after: Some(after) }, resumed)))
    }
}

/// From where a job is replayed, and what to tell of it, where `told` is the newest number that the watcher is
/// told of: history may be further by now, but what comes after counts as live.
fn plan(resume: JobResume, bounds: Option<Bounds>, told: Option<Seq>) -> (Option<Seq>, Resumed) {
    let (Some(Bounds { first, oldest, newest, .. }), Some(told)) = (bounds, told) else {
        let recovered = matches!(resume, JobResume::Since(0) | JobResume::Newest(_));
        return (None, Resumed { recovered, replaying: 0 });
    };
    let (after, recovered) = match resume {
        JobResume::Newest(count) => {
            let count = count.try_into().unwrap_or(Seq::MAX);
            (told.saturating_sub(count).max(oldest - 1).min(told), true)
        }
        JobResume::Since(0) => (first - 1, oldest == first),
        JobResume::Since(unknown) if unknown > newest.max(told) => (first - 1, false),
        JobResume::Since(seq) => (seq, seq + 1 >= oldest),
    };
    let replaying = told.saturating_sub(after.max(oldest - 1));
    (Some(after), Resumed { recovered, replaying: usize::try_from(replaying).unwrap_or(usize::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_a_resume() {
        let bounds = Some(Bounds { first: 100, oldest: 105, newest: 109, holds: false });
        let planned = |resume| {
            let (after, Resumed { recovered, replaying }) = plan(resume, bounds, Some(109));
            (after, recovered, replaying)
        };
        assert_eq!(planned(JobResume::Since(109)), (Some(109), true, 0));
        assert_eq!(planned(JobResume::Since(107)), (Some(107), true, 2));
        assert_eq!(planned(JobResume::Since(104)), (Some(104), true, 5));
        assert_eq!(planned(JobResume::Since(103)), (Some(103), false, 5));
        assert_eq!(planned(JobResume::Since(7)), (Some(7), false, 5));
        assert_eq!(planned(JobResume::Since(0)), (Some(99), false, 5));
        assert_eq!(planned(JobResume::Since(110)), (Some(99), false, 5));
        assert_eq!(planned(JobResume::Newest(2)), (Some(107), true, 2));
        assert_eq!(planned(JobResume::Newest(0)), (Some(109), true, 0));
        assert_eq!(planned(JobResume::Newest(50)), (Some(104), true, 5));
        let meanwhile = |resume| {
            let (after, Resumed { recovered, replaying }) = plan(resume, bounds, Some(107));
            (after, recovered, replaying)
        };
        assert_eq!(meanwhile(JobResume::Newest(0)), (Some(107), true, 0));
        assert_eq!(meanwhile(JobResume::Newest(1)), (Some(106), true, 1));
        assert_eq!(meanwhile(JobResume::Newest(50)), (Some(104), true, 3));
        assert_eq!(meanwhile(JobResume::Since(106)), (Some(106), true, 1));
        assert_eq!(meanwhile(JobResume::Since(109)), (Some(109), true, 0));
        assert_eq!(plan(JobResume::Since(0), bounds, None).0, None);
        let whole = Some(Bounds { first: 100, oldest: 100, newest: 109, holds: false });
        let everything = Resumed { recovered: true, replaying: 10 };
        assert_eq!(plan(JobResume::Since(0), whole, Some(109)), (Some(99), everything));
        let nothing = |recovered| (None, Resumed { recovered, replaying: 0 });
        assert_eq!(plan(JobResume::Since(0), None, None), nothing(true));
        assert_eq!(plan(JobResume::Since(5), None, None), nothing(false));
    }
}
