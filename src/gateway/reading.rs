//! Reading: a job, its history, and lists of jobs. What may be long comes in parts, so that nobody has to hold all of it.

use super::{Gateway, permits::owner_of};
use crate::{
    access::Identity,
    error::ApiError,
    event::Seq,
    id::JobId,
    room::Room,
    store::{Entry, HistoryPart, Window},
    timestamp::Timestamp,
};

/// How many jobs a list of active jobs names at the most.
pub const MAX_JOBS_LISTED: usize = 1000;

/// Entries that are read part by part.
#[derive(Debug)]
pub struct Parts {
    gateway: Gateway,
    rest: Rest,
}

/// What has not been read yet.
#[derive(Debug)]
enum Rest {
    History(JobId, Option<Window>),
    /// The newest entries of these jobs, but for the first so many.
    Jobs(Vec<JobId>, usize),
}

impl Parts {
    /// Whether nothing is left to be read.
    pub fn is_over(&self) -> bool {
        match &self.rest {
            Rest::History(_, window) => window.is_none(),
            Rest::Jobs(jobs, read) => *read == jobs.len(),
        }
    }

    /// How many bytes it holds to know what comes next.
    pub fn size(&self) -> usize {
        match &self.rest {
            Rest::History(..) => 0,
            Rest::Jobs(jobs, _) => jobs.iter().map(|job| size_of::<JobId>() + job.as_str().len()).sum(),
        }
    }

    /// The next entries, of so many bytes together, but one at least; none at the end. A history repeats nothing and keeps
    /// its order, whatever is appended meanwhile. A list of jobs keeps the order that it had at first, and has each job's
    /// newest event as of this moment.
    ///
    /// # Errors
    /// A [`ApiError`] when the store does not answer. The same part may then be asked for again.
    pub async fn next(&mut self, bytes: usize) -> Result<Vec<Entry>, ApiError> {
        let store = &self.gateway.0.store;
        match &mut self.rest {
            Rest::History(job, rest) => {
                let Some(window) = *rest else { return Ok(Vec::new()) };
                let part = self.gateway.asked(store.history_part(job, window, bytes).await)?;
                let entries;
                HistoryPart { entries, rest: *rest } = part;
                Ok(entries)
            }
            Rest::Jobs(jobs, read) => {
                let part = self.gateway.asked(store.latest_part(&jobs[*read..], bytes).await)?;
                *read += part.1;
                Ok(part.0)
            }
        }
    }
}

impl Gateway {
    /// The newest `limit` events of a job (at most `history.max_events`), oldest first; with `since`, the
    /// oldest `limit` after that number.
    ///
    /// # Errors
    /// A [`ApiError`] when the store does not answer.
    pub async fn job_history(
        &self,
        job: &JobId,
        limit: Option<usize>,
        since: Option<Seq>,
    ) -> Result<Vec<Entry>, ApiError> {
        self.history_parts(job, limit, since).next(usize::MAX).await
    }

    /// As [`Gateway::job_history`] on somebody's behalf, part by part. Nothing of it is read yet.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Forbidden`] where they may not see the job; a [`ApiError`] when the store does not answer.
    pub(crate) async fn history_as(
        &self,
        by: &Identity,
        job: &JobId,
        limit: Option<usize>,
        since: Option<Seq>,
    ) -> Result<Parts, ApiError> {
        self.check_job(by, job).await?;
        Ok(self.history_parts(job, limit, since))
    }

    /// As [`Gateway::job_history`], part by part. Nothing is read yet.
    pub(super) fn history_parts(&self, job: &JobId, limit: Option<usize>, since: Option<Seq>) -> Parts {
        let limit = limit.unwrap_or(usize::MAX).min(self.0.history_cap);
        let window = since.map_or(Window::Newest(limit), |seq| Window::After { seq, limit });
        Parts { gateway: self.clone(), rest: Rest::History(job.clone(), Some(window)) }
    }

    /// The newest event of a job.
    ///
    /// # Errors
    /// A [`ApiError`] when the store does not answer.
    pub async fn job(&self, job: &JobId) -> Result<Option<Entry>, ApiError> {
        Ok(self.asked(self.0.store.latest(std::slice::from_ref(job)).await)?.pop())
    }

    /// As [`Gateway::job`], on somebody's behalf.
    ///
    /// # Errors
    /// As [`Gateway::job`]; [`crate::ErrorCode::Forbidden`] where they may not see the job.
    pub async fn job_as(&self, by: &Identity, job: &JobId) -> Result<Option<Entry>, ApiError> {
        let newest = self.job(job).await?;
        self.admit(by, job, newest.as_ref().map(owner_of))?;
        Ok(newest)
    }

    /// The newest event of each of the most recently active jobs of a room, most recent first.
    ///
    /// # Errors
    /// A [`ApiError`] when the store does not answer.
    pub async fn jobs(&self, room: &Room, limit: usize) -> Result<Vec<Entry>, ApiError> {
        self.jobs_parts(&Identity::Everybody, room, limit).await?.next(usize::MAX).await
    }

    /// As [`Gateway::jobs`] on somebody's behalf, part by part. Which jobs these are has been read by then.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Forbidden`] where they may not be in the room; a [`ApiError`] when the store does not answer.
    pub(crate) async fn jobs_parts(
        &self,
        by: &Identity,
        room: &Room,
        limit: usize,
    ) -> Result<Parts, ApiError> {
        self.check_room(by, room).await?;
        let limit = limit.min(MAX_JOBS_LISTED);
        let jobs = self.asked(self.0.store.active(room, Timestamp::default(), limit).await)?;
        Ok(Parts { gateway: self.clone(), rest: Rest::Jobs(jobs, 0) })
    }
}
