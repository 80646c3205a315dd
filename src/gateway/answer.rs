//! Reading as much as one answer may have, for so many answers at once that the node can hold them.

use serde::Serialize;

use super::Gateway;
use crate::{
    access::Identity,
    budget::{Purpose, Reservation},
    error::ApiError,
    id::JobId,
    store::{Entry, Window},
};

/// How many bytes of events or snapshots one answer has, if they are more than one.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// How many large answers are read at once. The others wait.
pub const ANSWERS_READ_AT_ONCE: usize = 16;

/// How many of the newest entries are read at first, and how many times as many then.
const FIRST_READ: usize = 16;
const GROWTH: usize = 4;

/// The entries of an answer. Their bytes count as held until this is dropped.
#[derive(Debug)]
pub struct Answer {
    /// In the order that was asked for.
    pub entries: Vec<Entry>,
    /// Whether there were others, for which there was no place.
    pub more: bool,
    held: Reservation,
}

impl Answer {
    /// The bytes of the entries, which are still held when the entries have become part of an answer.
    pub fn into_held(self) -> Reservation {
        self.held
    }
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

impl Gateway {
    /// As much of a job's history as an answer has, oldest first: of the newest `limit` events the newest, or with
    /// `since` the oldest of the `limit` after that number.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Forbidden`] if `by` may not see the job, [`crate::ErrorCode::LimitReached`] if the node holds too
    /// much; an [`ApiError`] if the store does not answer.
    pub async fn history_answer(
        &self,
        by: &Identity,
        job: &JobId,
        limit: Option<usize>,
        since: Option<u64>,
    ) -> Result<Answer, ApiError> {
        self.check_job(by, job).await?;
        // Never closed: it lives as long as the gateway.
        let _turn = self.0.answers.acquire().await;
        self.answer(async || {
            if since.is_none() {
                return self.newest(job, limit.unwrap_or(usize::MAX).min(self.0.history_cap)).await;
            }
            let mut parts = self.history_parts(job, limit, since);
            let entries = parts.next(MAX_ANSWER).await?;
            Ok((entries, !parts.is_over()))
        })
        .await
    }

    /// The newest entries, oldest first, and whether there are others.
    async fn newest(&self, job: &JobId, limit: usize) -> Result<(Vec<Entry>, bool), ApiError> {
        let mut wanted = FIRST_READ.min(limit);
        loop {
            let mut entries = self.asked(self.0.store.history(job, Window::Newest(wanted)).await)?;
            let is_all = entries.len() < wanted || wanted == limit;
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                bytes += entry.size();
                bytes <= MAX_ANSWER
            };
            let fitting = entries.iter().rev().take_while(fits).count().max(1);
            if is_all || fitting < entries.len() {
                let others = entries.len().saturating_sub(fitting);
                entries.drain(..others);
                return Ok((entries, others > 0));
            }
            wanted = (wanted * GROWTH).min(limit);
        }
    }

    /// As many of some jobs' snapshots as an answer has, in the order of the jobs.
    pub(super) async fn latest_answer(&self, jobs: &[JobId]) -> Result<Answer, ApiError> {
        self.answer(async || {
            let (entries, read) = self.asked(self.0.store.latest_part(jobs, MAX_ANSWER).await)?;
            Ok((entries, read < jobs.len()))
        })
        .await
    }

    /// Reads an answer's entries once there is place for them, and says whether there are more.
    async fn answer(
        &self,
        read: impl AsyncFnOnce() -> Result<(Vec<Entry>, bool), ApiError>,
    ) -> Result<Answer, ApiError> {
        let mut held = self.budget().reserve(Purpose::Answer, MAX_ANSWER as u64)?;
        let (mut entries, more) = read().await?;
        entries.shrink_to_fit();
        held.set(entries.iter().map(Entry::size).sum::<usize>() as u64);
        Ok(Answer { entries, more, held })
    }
}
