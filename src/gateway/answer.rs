//! Reading as much as one answer may have, for so many answers at once that the node can hold them.

use serde::Serialize;

use super::Gateway;
use crate::{
    budget::{OverBudget, Purpose, Reservation},
    error::{ApiError, ErrorCode},
    id::JobId,
    store::{Entry, Window},
};

/// How many bytes of events or snapshots one answer has, if they are more than one.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// How many large answers are read at once. The others wait.
pub const ANSWERS_READ_AT_ONCE: usize = 16;

/// How many entries the first page has, and how many times as many the next one.
const FIRST_PAGE: usize = 16;
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
    fn begin(gateway: &Gateway) -> Result<Self, ApiError> {
        let held = gateway.budget().reserve(Purpose::Answer, MAX_ANSWER as u64);
        let too_full = |error: OverBudget| ApiError::new(ErrorCode::LimitReached, error.to_string());
        Ok(Self { entries: Vec::new(), more: false, held: held.map_err(too_full)? })
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::size).sum()
    }

    /// Takes entries for as long as there is place. Says whether there was for all of them.
    fn take(&mut self, entries: impl IntoIterator<Item = Entry>) -> bool {
        let mut bytes = self.bytes();
        for entry in entries {
            bytes += entry.size();
            if bytes > MAX_ANSWER && !self.entries.is_empty() {
                self.more = true;
                return false;
            }
            self.entries.push(entry);
        }
        true
    }

    fn finish(mut self) -> Self {
        self.entries.shrink_to_fit();
        self.held.set(self.bytes() as u64);
        self
    }

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
    /// [`ErrorCode::LimitReached`] if the node holds too much; an [`ApiError`] if the store does not answer.
    pub async fn history_answer(
        &self,
        job: &JobId,
        limit: Option<usize>,
        since: Option<u64>,
    ) -> Result<Answer, ApiError> {
        let limit = limit.unwrap_or(usize::MAX).min(self.0.history_cap);
        // Never closed: it lives as long as the gateway.
        let _turn = self.0.answers.acquire().await;
        let answer = Answer::begin(self)?;
        let answer = match since {
            None => self.newest(answer, job, limit).await,
            Some(since) => self.after(answer, job, since, limit).await,
        };
        Ok(answer?.finish())
    }

    async fn newest(&self, mut answer: Answer, job: &JobId, limit: usize) -> Result<Answer, ApiError> {
        let mut page = FIRST_PAGE;
        loop {
            let wanted = page.min(limit);
            let entries = self.asked(self.0.store.history(job, Window::Newest(wanted)).await)?;
            let is_all = entries.len() < wanted || wanted == limit;
            answer.entries.clear();
            if !answer.take(entries.into_iter().rev()) || is_all {
                answer.entries.reverse();
                return Ok(answer);
            }
            page *= GROWTH;
        }
    }

    async fn after(
        &self,
        mut answer: Answer,
        job: &JobId,
        mut seq: u64,
        limit: usize,
    ) -> Result<Answer, ApiError> {
        let mut page = FIRST_PAGE;
        loop {
            let wanted = page.min(limit - answer.entries.len());
            let window = Window::After { seq, limit: wanted };
            let entries = self.asked(self.0.store.history(job, window).await)?;
            let last = entries.iter().filter_map(Entry::seq).max();
            let is_last = entries.len() < wanted || last.is_none() || wanted == 0;
            if !answer.take(entries) || is_last || answer.entries.len() >= limit {
                return Ok(answer);
            }
            seq = last.unwrap_or(seq);
            page *= GROWTH;
        }
    }

    /// As many of some jobs' snapshots as an answer has, in the order of the jobs.
    pub(super) async fn latest_answer(&self, jobs: &[JobId]) -> Result<Answer, ApiError> {
        let mut answer = Answer::begin(self)?;
        let (mut rest, mut page) = (jobs, FIRST_PAGE);
        while !rest.is_empty() {
            let (jobs, others) = rest.split_at(page.min(rest.len()));
            let entries = self.asked(self.0.store.latest(jobs).await)?;
            if !answer.take(entries) {
                break;
            }
            (rest, page) = (others, page * GROWTH);
        }
        Ok(answer.finish())
    }
}
