//! Joining a room without missing or repeating anything: cover it, read where its log ends, answer, start.

use std::time::Duration;

use serde::Serialize;

use super::{
    Answer, Gateway, Place, Session, fill,
    hub::{Admitted, Start},
    permits::owner_of,
};
use crate::{
    access::Identity,
    error::{ApiError, ErrorCode},
    event::Seq,
    id::{JobId, TenantId, UserId},
    position::Position,
    room::Room,
    store::{Bounds, Entry, LogRange, StoreError, Window},
    timestamp::Timestamp,
};

/// How many of a room's jobs its snapshot names.
const MAX_LATEST: usize = 100;

/// How long a session waits for its turn to join, where the store is slow or gone.
const TURN_PATIENCE: Duration = Duration::from_secs(30);

/// How many events may come while a session joins, so that the newest before them are still found.
const JOINING_SLACK: usize = 16;

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
    /// The jobs of a user; with a position, all that came after it first.
    User(UserId, Option<Position>),
    /// The jobs of a tenant, likewise.
    Tenant(TenantId, Option<Position>),
    /// All jobs, likewise.
    AllJobs(Option<Position>),
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
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Latest {
    /// The job's newest event, if it has one.
    Job(Option<Entry>),
    /// The newest event of each recently active job, newest first, as many as an answer has.
    Jobs(Answer),
}

impl Latest {
    /// Whether there were others, for which there was no place.
    pub fn has_more(&self) -> bool {
        matches!(self, Latest::Jobs(Answer { more: true, .. }))
    }
}

/// What is about to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Whether nothing between is missing.
    pub recovered: bool,
    /// How many events are about to be replayed.
    pub replaying: usize,
}

/// What a room's log and snapshot say to somebody who joins.
struct Snapshot {
    latest: Latest,
    resumed: Option<Resumed>,
    start: Start,
    admitted: Admitted,
}

/// A room that is joined but for the last step. Deliveries begin with [`Joined::start`], after the answer has
/// been sent; dropping it gives the joining up.
#[must_use = "nothing is delivered before `start`"]
pub struct Joined<'a> {
    /// The room.
    pub room: Room,
    /// What is new in it.
    pub latest: Latest,
    /// What is about to be replayed, if that was asked for.
    pub resumed: Option<Resumed>,
    start: Start,
    admitted: Admitted,
    joining: Joining<'a>,
}

impl Joined<'_> {
    /// Where the subscription begins in the log of a shared room.
    pub fn position(&self) -> Option<Position> {
        (!matches!(self.room, Room::Job(_))).then_some(self.start.after)
    }

    /// Takes what is new out, so that it need not be held until deliveries begin.
    pub fn take_latest(&mut self) -> Latest {
        std::mem::replace(&mut self.latest, Latest::Job(None))
    }

    /// Delivers from here on: first what is replayed, then what is live.
    pub fn start(mut self) {
        let Joining { session, ref room, .. } = self.joining;
        // A session that was in the room when it began to join it may have left it since.
        let place = self.joining.place.take().or_else(|| session.add_room());
        let newly = session.gateway.hub(|hub| hub.start(session.key, room, self.start, self.admitted));
        if let (Some(place), true) = (place, newly) {
            // Until the session leaves the room.
            place.keep();
        }
        (self.joining.begun, self.joining.newly) = (false, newly);
        fill::start(&session.gateway);
    }
}

/// Undoes what joining did, unless it was completed.
struct Joining<'a> {
    session: &'a Session,
    room: Room,
    /// Whether the hub waits for the end of it.
    begun: bool,
    /// Whether the session is in the room because of it.
    newly: bool,
    /// The room's place among those of the session's user. `None` where the session is in the room already.
    place: Option<Place<UserId>>,
}

impl<'a> Joining<'a> {
    fn begin(session: &'a Session, room: &Room) -> Result<Self, ApiError> {
        let gateway = &session.gateway;
        let limit = gateway.0.options.rooms_per_client;
        let (is_in, begun) = gateway.hub(|hub| {
            let is_in = hub.is_in(session.key, room);
            let room_left = is_in || hub.room_count(session.key) < limit;
            (is_in, room_left.then(|| hub.begin_join(session.key, room)))
        });
        match begun {
            Some(true) => {}
            Some(false) => return Err(ApiError::new(ErrorCode::Unavailable, "the session has ended")),
            None => {
                let message = format!(
                    "a client may be in at most {limit} rooms (limits.rooms_per_client); leave one first"
                );
                return Err(gateway.limited("rooms_per_client", message));
            }
        }
        let place = match is_in {
            true => None,
            false => session.take_room().inspect_err(|_| {
                gateway.hub(|hub| hub.cancel_join(session.key, room));
            })?,
        };
        session.enter(room);
        Ok(Self { session, room: room.clone(), begun: true, newly: false, place })
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        if self.begun {
            self.session.gateway.hub(|hub| hub.cancel_join(self.session.key, &self.room));
        }
        // Also where the session was in the room before: then this cover and this count were one too many.
        if !self.newly {
            self.session.forget(&self.room);
        }
    }
}

impl Session {
    /// Joins a room. What happens from now on is not lost: it is delivered after [`Joined::start`].
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] where the session's pass does not reach so far, [`ErrorCode::LimitReached`] beyond
    /// `limits.rooms_per_client` or `limits.rooms_per_user`, [`ErrorCode::Unavailable`] when the store does not answer; the
    /// session is then in no room that it was not in before.
    pub async fn join(&self, subscription: &Subscription) -> Result<Joined<'_>, ApiError> {
        let room = subscription.room();
        let by = &self.pass()?.identity;
        by.check_room(&room)?;
        // In a storm of reconnects the deadlines of the store count from a session's turn on.
        let Ok(_turn) = tokio::time::timeout(TURN_PATIENCE, self.gateway.0.joins.acquire()).await else {
            return Err(ApiError::new(ErrorCode::Unavailable, "too many are joining; try again"));
        };
        let joining = Joining::begin(self, &room)?;
        let prepare = async {
            self.gateway.0.store.cover(&room).await?;
            let snapshot = self.gateway.snapshot(by, subscription).await?;
            self.gateway.records_published().await?;
            Ok::<_, ApiError>(snapshot)
        };
        let Snapshot { latest, resumed, start, admitted } =
            prepare.await.map_err(|error| self.gateway.refused(error))?;
        if start.asked {
            self.gateway.hub(|hub| hub.begin_answer(self.key));
        }
        Ok(Joined { room, latest, resumed, start, admitted, joining })
    }
}

impl Gateway {
    async fn snapshot(&self, by: &Identity, subscription: &Subscription) -> Result<Snapshot, ApiError> {
        match subscription {
            Subscription::Job(job, resume) => self.job_snapshot(by, job, *resume).await,
            Subscription::User(_, since) | Subscription::Tenant(_, since) | Subscription::AllJobs(since) => {
                self.room_snapshot(&subscription.room(), *since).await
            }
        }
    }

    async fn job_snapshot(
        &self,
        by: &Identity,
        job: &JobId,
        resume: Option<JobResume>,
    ) -> Result<Snapshot, ApiError> {
        let store = &self.0.store;
        let (latest, bounds) = match resume {
            Some(JobResume::Since(since)) => store.head(job, since).await?,
            Some(JobResume::Newest(_)) => store.head(job, 0).await?,
            None => (store.latest(std::slice::from_ref(job)).await?.pop(), None),
        };
        let admitted = self.admit(by, job, latest.as_ref().map(owner_of))?;
        let newest = latest.clone().and_then(Entry::event);
        let (end, at) = newest.map_or_else(Default::default, |event| (event.seq(), event.timestamp()));
        let (mut after, mut resumed) = (end, None);
        if let Some(resume) = resume {
            let found;
            (after, found) = self.resume_job(job, resume, bounds, end).await?;
            resumed = Some(found);
        }
        let (after, end) = (Position::of_seq(after), Position::of_seq(end));
        let start = Start { after, end, at, asked: resume.is_some() };
        Ok(Snapshot { latest: Latest::Job(latest), resumed, start, admitted })
    }

    /// After which number a job is replayed up to its end, and what to tell of it. History may be further than the end by
    /// now, but what comes after counts as live.
    async fn resume_job(
        &self,
        job: &JobId,
        resume: JobResume,
        bounds: Option<Bounds>,
        end: Seq,
    ) -> Result<(Seq, Resumed), StoreError> {
        let Some(Bounds { first, oldest, newest, newer, holds }) = bounds.filter(|_| end > 0) else {
            let recovered = matches!(resume, JobResume::Since(0) | JobResume::Newest(_));
            return Ok((end, Resumed { recovered, replaying: 0 }));
        };
        let younger = usize::try_from(newest - end).unwrap_or(usize::MAX);
        let replaying = newer.saturating_sub(younger);
        Ok(match resume {
            JobResume::Since(0) => (first - 1, Resumed { recovered: oldest == first, replaying }),
            JobResume::Since(since) if since <= newest.max(end) => {
                (since.min(end), Resumed { recovered: holds, replaying })
            }
            JobResume::Since(_) => {
                let replaying = self.0.store.head(job, 0).await?.1.map_or(0, |bounds| bounds.newer);
                (first - 1, Resumed { recovered: false, replaying: replaying.saturating_sub(younger) })
            }
            JobResume::Newest(count) => {
                let replaying = replaying.min(count);
                (self.before_newest(job, replaying, end).await?, Resumed { recovered: true, replaying })
            }
        })
    }

    /// The number right before the so many newest events of a job up to its end.
    async fn before_newest(&self, job: &JobId, count: usize, end: Seq) -> Result<Seq, StoreError> {
        let limit = count.saturating_add(JOINING_SLACK).min(self.0.history_cap);
        let events = self.0.store.history(job, Window::Newest(limit)).await?.into_iter();
        let numbers: Vec<Seq> =
            events.filter_map(Entry::event).map(|event| event.seq()).filter(|seq| *seq <= end).collect();
        let first = numbers.len().checked_sub(count).and_then(|place| numbers.get(place));
        Ok(first.map_or(end, |first| first - 1))
    }

    async fn room_snapshot(&self, room: &Room, since: Option<Position>) -> Result<Snapshot, ApiError> {
        let store = &self.0.store;
        // Never closed: it lives as long as the gateway.
        let _turn = self.0.answers.acquire().await;
        // The end first: what comes after it is delivered, also where the snapshot knows of it already.
        let LogRange { start, end } = store.log_range(room).await?;
        let jobs = store.active(room, Timestamp::default(), MAX_LATEST).await?;
        let latest = Latest::Jobs(self.latest_answer(&jobs).await?);
        let at = Timestamp::from_millis(end.millis()).unwrap_or_default();
        let (mut after, mut resumed) = (end, None);
        if let Some(since) = since {
            // An entry beyond the end was in a tail that the log has lost.
            let known = since.number() == 0 || since <= end;
            after = if known { since.min(end) } else { start };
            let replaying = store.count(room, after, end).await?;
            resumed = Some(Resumed { recovered: known && since >= start, replaying });
        }
        let start = Start { after, end, at, asked: since.is_some() };
        Ok(Snapshot { latest, resumed, start, admitted: Admitted::Always })
    }
}
