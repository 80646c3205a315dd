//! Reads of one moment.

use std::collections::HashMap;

use super::{
    kv::{Limit, Order, View},
    records::{self, JobRecord, LogEntry as Reference, RoomRecord},
};
use crate::{
    event::{Gap, JobEvent, Seq},
    id::JobId,
    position::Position,
    room::Room,
    store::{
        Bounds, Content, Entry, HistoryPart, LogEntry, LogPage, LogRange, MAX_ACTIVE_JOBS, StoreError, Window,
    },
    timestamp::Timestamp,
};

/// The store at one moment. What happened at `expired` or before is not there any more.
pub struct Reader<'a> {
    pub view: &'a View<'a>,
    pub expired: Timestamp,
    /// A recent place that no entry that is not in `view` is at or before.
    pub present: Position,
}

impl Reader<'_> {
    pub fn record(&self, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
        let bytes = self.view.get(&records::job_key(job))?;
        let record = bytes.map(|bytes| records::read::<JobRecord>(&bytes)).transpose()?;
        Ok(record.filter(|record| record.at > self.expired))
    }

    fn event(&self, job: &JobId, seq: Seq) -> Result<Option<JobEvent>, StoreError> {
        self.view.get(&records::event_key(job, seq))?.map(event).transpose()
    }

    /// The newest event of a job.
    pub fn newest(&self, job: &JobId) -> Result<Option<Entry>, StoreError> {
        let Some(record) = self.record(job)? else { return Ok(None) };
        Ok(self.event(job, record.seq)?.map(Entry::Event))
    }

    pub fn head(&self, job: &JobId, since: Seq) -> Result<Option<Bounds>, StoreError> {
        let Some(JobRecord { first, oldest, seq, .. }) = self.record(job)? else { return Ok(None) };
        let before = oldest - 1;
        // Numbers rise by one here.
        let newer = usize::try_from(seq.saturating_sub(since.max(before))).unwrap_or(usize::MAX);
        Ok(Some(Bounds { first, oldest, newest: seq, newer, holds: (before..=seq).contains(&since) }))
    }

    /// The newest events of the first jobs, as many as have so many bytes together; and of how many jobs.
    pub fn latest(&self, jobs: &[JobId], bytes: usize) -> Result<(Vec<Entry>, usize), StoreError> {
        let (mut entries, mut held) = (Vec::new(), 0usize);
        for (read, job) in jobs.iter().enumerate() {
            let Some(entry) = self.newest(job)? else { continue };
            held = held.saturating_add(entry.size());
            if held > bytes && !entries.is_empty() {
                return Ok((entries, read));
            }
            entries.push(entry);
        }
        Ok((entries, jobs.len()))
    }

    pub fn history(&self, job: &JobId, window: Window, bytes: usize) -> Result<HistoryPart, StoreError> {
        let Some(record) = self.record(job)? else { return Ok(HistoryPart::default()) };
        let (after, limit) = match window {
            // Numbers rise by one here.
            Window::Newest(limit) => (record.seq.saturating_sub(limit as Seq), limit),
            Window::After { seq, limit } => (seq, limit),
        };
        let from = record.oldest.max(after.saturating_add(1));
        let events = self.events(job, from, Limit { pairs: limit, bytes })?;
        let left = limit - events.len();
        let rest = events.last().map(JobEvent::seq).filter(|last| left > 0 && *last < record.seq);
        let rest = rest.map(|seq| Window::After { seq, limit: left });
        Ok(HistoryPart { entries: events.into_iter().map(Entry::Event).collect(), rest })
    }

    /// The oldest events of a job from a number on.
    fn events(&self, job: &JobId, from: Seq, limit: impl Into<Limit>) -> Result<Vec<JobEvent>, StoreError> {
        let range = records::event_key(job, from)..records::event_key(job, Seq::MAX);
        let found = self.view.scan(range, Order::Ascending, limit)?;
        found.into_iter().map(|(_, json)| event(json)).collect()
    }

    pub fn log(&self, room: &Room, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        match room {
            Room::Job(job) => self.job_log(job, after.seq(), limit),
            shared => self.shared_log(shared, after, limit),
        }
    }

    fn job_log(&self, job: &JobId, after: Seq, limit: usize) -> Result<LogPage, StoreError> {
        let Some(record) = self.record(job)? else {
            return Ok(LogPage { entries: Vec::new(), is_last: true, end: Position::START });
        };
        let mut entries = Vec::new();
        let from = record.first.max(after.saturating_add(1));
        if from < record.oldest {
            let to = record.oldest - 1;
            let content = Content::Lost(Gap { job: job.clone(), from, to });
            entries.push(LogEntry { position: Position::of_seq(to), content });
        }
        let found = self.events(job, from.max(record.oldest), limit.saturating_add(1))?;
        entries.extend(found.into_iter().map(|event| LogEntry {
            position: Position::of_seq(event.seq()),
            content: Content::Event(event),
        }));
        let is_last = entries.len() <= limit;
        entries.truncate(limit);
        Ok(LogPage { entries, is_last, end: Position::of_seq(record.seq) })
    }

    fn shared_log(&self, room: &Room, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        let LogRange { start, end } = self.range(room)?;
        let range = records::log_after(room, after.max(start));
        let mut found = self.view.scan(range, Order::Ascending, limit.saturating_add(1))?;
        let is_last = found.len() <= limit;
        found.truncate(limit);
        let entry = |(key, value): (Vec<u8>, Vec<u8>)| {
            let Reference { seq, job, .. } = Reference::read(&value)?;
            let content = match self.event(&job, seq)? {
                Some(event) => Content::Event(event),
                None => Content::Lost(Gap { job, from: seq, to: seq }),
            };
            Ok(LogEntry { position: records::position_of_key(&key), content })
        };
        Ok(LogPage {
            entries: found.into_iter().map(entry).collect::<Result<_, StoreError>>()?,
            is_last,
            end,
        })
    }

    pub fn range(&self, room: &Room) -> Result<LogRange, StoreError> {
        let record = self.view.get(&records::room_key(room))?;
        let record = record.map(|bytes| records::read::<RoomRecord>(&bytes)).transpose()?;
        let trimmed = record.map_or(Position::START, |record| record.start());
        let start = trimmed.max(Position::of_entry(self.expired.millis() + 1, 0));
        let newest = self.view.scan(records::log_after(room, start), Order::Descending, 1)?;
        let end = newest.first().map_or(self.present.max(start), |(key, _)| records::position_of_key(key));
        Ok(LogRange { start, end })
    }

    pub fn count(&self, room: &Room, after: Position, until: Position) -> Result<usize, StoreError> {
        const PAGE: usize = 1000;
        let mut after = after.max(self.range(room)?.start);
        let mut oldest: HashMap<JobId, Option<Seq>> = HashMap::new();
        let mut count = 0;
        loop {
            let range = records::log_between(room, after, until);
            let found = self.view.scan(range, Order::Ascending, PAGE)?;
            for (_, value) in &found {
                let Reference { seq, job, .. } = Reference::read(value)?;
                let oldest = match oldest.get(&job) {
                    Some(known) => *known,
                    None => {
                        let read = self.record(&job)?.map(|record| record.oldest);
                        oldest.insert(job, read);
                        read
                    }
                };
                count += usize::from(oldest.is_some_and(|oldest| oldest <= seq));
            }
            match found.last() {
                Some((key, _)) if found.len() == PAGE => after = records::position_of_key(key),
                _ => return Ok(count),
            }
        }
    }

    /// The jobs of a room that were active at `since` or later, most recent first. In the room of a user or a tenant:
    /// of the [`MAX_ACTIVE_JOBS`] that began last.
    pub fn active(&self, room: &Room, since: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        if let Room::Job(job) = room {
            let active = self.record(job)?.filter(|record| record.at >= since);
            return Ok(active.map(|_| job.clone()).into_iter().collect());
        }
        let mut active = Vec::new();
        for (key, _) in self.view.scan(records::members(room), Order::Descending, MAX_ACTIVE_JOBS)? {
            let Some(job) = records::job_of_member(room, &key) else { continue };
            if let Some(record) = self.record(&job)?.filter(|record| record.at >= since) {
                active.push((record.at, job));
            }
        }
        active.sort_unstable_by(|a, b| b.cmp(a));
        active.truncate(limit);
        Ok(active.into_iter().map(|(_, job)| job).collect())
    }
}

fn event(json: Vec<u8>) -> Result<JobEvent, StoreError> {
    let unreadable = |error: String| StoreError(format!("it holds an unreadable event: {error}"));
    let json = String::from_utf8(json).map_err(|error| unreadable(error.to_string()))?;
    JobEvent::parse(json).map_err(|error| unreadable(error.to_string()))
}
