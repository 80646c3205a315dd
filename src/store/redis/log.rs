//! Reading: a job's history, the logs of rooms, and which jobs are active.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::{PIPELINE, Redis, message};
use crate::{
    event::{Gap, JobEvent, Seq},
    id::JobId,
    position::Position,
    redis::{Command, Error, FromRedisValue, Reply, Value, read},
    room::Room,
    store::{Bounds, Content, Entry, HistoryPart, LogEntry, LogPage, LogRange, StoreError, Window},
    timestamp::Timestamp,
};

/// The largest number that every program reads as it is. A larger one was written by another program.
pub const LARGEST: Seq = (1 << 53) - 2;

/// How many jobs' newest entries are read at first, where they may be large, and how many times as many then at the most.
const FIRST_READ: usize = 4;
const GROWTH: usize = 16;

/// How many entries of a log are counted at a time.
const COUNTED: usize = 1000;

/// How much older than what it is about the index of active jobs may be, in milliseconds (`room.lua`).
const INDEX_PAUSE: u64 = 1000;

/// An entry of a room's log: its id, and what it refers to.
pub type StreamEntry = (String, (String, String));

/// A part of a job's history.
struct Events {
    /// The number of the last event at or before the one that was asked for; 0 where history holds none.
    earlier: Seq,
    newest: Seq,
    /// How many come after the number that was asked for.
    newer: usize,
    /// How many entries were read, of whatever program.
    found: usize,
    events: Vec<JobEvent>,
}

/// An entry of a history; `None` where it is not JSON. What has a number that not every program reads is foreign.
pub fn entry(bytes: Vec<u8>) -> Option<Entry> {
    let entry = Entry::parse(String::from_utf8(bytes).ok()?)?;
    Some(match entry {
        Entry::Event(event) if event.seq() > LARGEST => Entry::Foreign(event.json().to_owned()),
        entry => entry,
    })
}

fn seq_of(entry: Option<Entry>) -> Option<Seq> {
    entry.and_then(Entry::event).map(|event| event.seq())
}

/// What an entry of a room's log refers to.
pub fn reference((_, (_, text)): &StreamEntry) -> Option<(Seq, JobId)> {
    let (seq, job) = text.split_once(' ')?;
    let seq = seq.parse().ok().filter(|seq| *seq <= LARGEST)?;
    Some((seq, job.parse().ok()?))
}

fn time((seconds, micros): (u64, u64)) -> Timestamp {
    Timestamp::from_millis(seconds * 1000 + micros / 1000).unwrap_or_default()
}

impl Redis {
    pub async fn history(&self, job: &JobId, window: Window) -> Result<Vec<Entry>, StoreError> {
        match window {
            Window::Newest(0) => Ok(Vec::new()),
            Window::Newest(limit) => {
                let range =
                    Command::on("LRANGE", &self.keys.history(job)).arg(0).arg(limit.cast_signed() - 1);
                let newest_first: Vec<Vec<u8>> = self.client.ask(range).await?;
                Ok(newest_first.into_iter().rev().filter_map(entry).collect())
            }
            Window::After { seq, limit } => {
                Ok(self.events_after(job, seq, limit).await?.into_iter().map(Entry::Event).collect())
            }
        }
    }

    pub async fn history_part(
        &self,
        job: &JobId,
        window: Window,
        bytes: usize,
    ) -> Result<HistoryPart, StoreError> {
        match window {
            Window::Newest(0) => Ok(HistoryPart::default()),
            Window::Newest(limit) => self.newest_part(job, limit, bytes).await,
            Window::After { seq, limit } => self.part_after(job, seq, limit, bytes).await,
        }
    }

    async fn newest_part(&self, job: &JobId, limit: usize, bytes: usize) -> Result<HistoryPart, StoreError> {
        let call = self.history_newest.call(&[&self.keys.history(job)]).arg(limit).arg(bytes);
        let (left, newest_first): (i64, Vec<Vec<u8>>) = self.client.ask(call).await?;
        let entries: Vec<Entry> = newest_first.into_iter().rev().filter_map(entry).collect();
        match (usize::try_from(left), entries.last()) {
            (Ok(0), _) => Ok(HistoryPart { entries, rest: None }),
            (Ok(limit), Some(Entry::Event(last))) => {
                let seq = last.seq();
                Ok(HistoryPart { entries, rest: Some(Window::After { seq, limit }) })
            }
            // Another program wrote some of it, so that it can only be read as a whole.
            _ => {
                let entries = self.history(job, Window::Newest(limit)).await?;
                Ok(HistoryPart { entries, rest: None })
            }
        }
    }

    async fn part_after(
        &self,
        job: &JobId,
        seq: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<HistoryPart, StoreError> {
        let call = self.history_after.call(&[&self.keys.history(job)]).arg(seq).arg(limit).arg(bytes);
        let Events { newer, found, events, .. } = self.read_after(self.client.ask(call).await?, seq, limit);
        let left = newer.min(limit).saturating_sub(found);
        let rest = events.last().filter(|_| left > 0);
        let rest = rest.map(|last| Window::After { seq: last.seq(), limit: left });
        Ok(HistoryPart { entries: events.into_iter().map(Entry::Event).collect(), rest })
    }

    /// A call that reads the oldest events of a job after a number.
    fn after(&self, job: &JobId, seq: Seq, limit: usize) -> Command {
        self.history_after.call(&[&self.keys.history(job)]).arg(seq).arg(limit).arg(0)
    }

    /// The oldest events of a job after a number.
    pub(super) async fn events_after(
        &self,
        job: &JobId,
        seq: Seq,
        limit: usize,
    ) -> Result<Vec<JobEvent>, Error> {
        Ok(self.read_after(self.client.ask(self.after(job, seq, limit)).await?, seq, limit).events)
    }

    /// What `history_after.lua` answers.
    fn read_after(&self, answer: (Seq, Seq, usize, Vec<Vec<u8>>), seq: Seq, limit: usize) -> Events {
        let (earlier, newest, newer, newest_first) = answer;
        let found = newest_first.len();
        let events = newest_first.into_iter().rev().filter_map(entry).filter_map(Entry::event);
        let events = events.filter(|event| event.seq() > seq).take(limit).collect();
        Events { earlier, newest, newer, found, events }
    }

    pub async fn latest(&self, jobs: &[JobId]) -> Result<Vec<Entry>, StoreError> {
        Ok(self.newest(jobs).await?.into_iter().flatten().collect())
    }

    async fn newest(&self, jobs: &[JobId]) -> Result<Vec<Option<Entry>>, StoreError> {
        let newest = |job: &JobId| Command::on("LINDEX", &self.keys.history(job)).arg(0);
        let newest: Vec<Option<Vec<u8>>> = self.client.ask_all(jobs.iter().map(newest).collect()).await?;
        Ok(newest.into_iter().map(|bytes| bytes.and_then(entry)).collect())
    }

    pub async fn latest_part(&self, jobs: &[JobId], bytes: usize) -> Result<(Vec<Entry>, usize), StoreError> {
        let (mut entries, mut read, mut held, mut largest) = (Vec::new(), 0, 0, 0);
        // Nobody knows how large they are, but by those before.
        let mut fitting = FIRST_READ;
        while fitting > 0 && read < jobs.len() {
            let asked = &jobs[read..jobs.len().min(read + fitting)];
            for newest in self.newest(asked).await? {
                let size = newest.as_ref().map_or(0, Entry::size);
                if held + size > bytes && !entries.is_empty() {
                    return Ok((entries, read));
                }
                (held, largest, read) = (held + size, largest.max(size), read + 1);
                entries.extend(newest);
            }
            fitting = (bytes.saturating_sub(held) / largest.max(1)).min(asked.len() * GROWTH).min(PIPELINE);
        }
        Ok((entries, read))
    }

    pub async fn head(&self, job: &JobId, since: Seq) -> Result<(Option<Entry>, Option<Bounds>), StoreError> {
        let key = self.keys.history(job);
        let calls = vec![
            Command::on("LINDEX", &key).arg(0),
            Command::on("LINDEX", &key).arg(-1),
            self.first(job),
            self.after(job, since, 1),
        ];
        let mut replies = self.client.send(calls).await.into_iter();
        let latest = next::<Option<Vec<u8>>>(&mut replies)?.and_then(entry);
        let oldest = next::<Option<Vec<u8>>>(&mut replies)?.and_then(entry);
        let first: Option<Seq> = next(&mut replies)?;
        let Events { earlier, newest, newer, .. } = self.read_after(next(&mut replies)?, since, 1);
        if newest == 0 {
            return Ok((latest, None));
        }
        let oldest = match seq_of(oldest) {
            Some(oldest) => oldest,
            None => self.oldest_event(job).await?.unwrap_or(newest),
        };
        let first = first.unwrap_or(oldest).min(oldest);
        let holds = earlier == since && since > 0 || since.checked_add(1) == Some(oldest);
        Ok((latest, Some(Bounds { first, oldest, newest, newer, holds })))
    }

    /// The oldest event of a list that another program began.
    async fn oldest_event(&self, job: &JobId) -> Result<Option<Seq>, StoreError> {
        let entries = self.history(job, Window::Newest(self.history.max_events)).await?;
        Ok(entries.into_iter().find_map(Entry::event).map(|event| event.seq()))
    }

    pub async fn log(&self, room: &Room, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        match room {
            Room::Job(job) => self.job_log(job, after.seq(), limit.max(1)).await,
            shared => self.shared_log(shared, after, limit.max(1)).await,
        }
    }

    async fn job_log(&self, job: &JobId, seq: Seq, limit: usize) -> Result<LogPage, StoreError> {
        let answer = self.client.ask(self.after(job, seq, limit + 1)).await?;
        let Events { earlier, newest, mut events, .. } = self.read_after(answer, seq, limit + 1);
        let mut entries = Vec::with_capacity(events.len());
        if let Some(first) = events.first().map(JobEvent::seq)
            && earlier == 0
            && seq.checked_add(1) != Some(first)
        {
            let from = match seq {
                // Nothing is missing before the first number that there ever was.
                0 => self.client.ask::<Option<Seq>>(self.first(job)).await?.unwrap_or(1),
                seq => seq + 1,
            };
            if from < first {
                let lost = Gap { job: job.clone(), from, to: first - 1 };
                entries
                    .push(LogEntry { position: Position::of_seq(first - 1), content: Content::Lost(lost) });
            }
        }
        let room = limit - entries.len();
        let is_last = events.len() <= room;
        events.truncate(room);
        entries.extend(events.into_iter().map(|event| LogEntry {
            position: Position::of_seq(event.seq()),
            content: Content::Event(event),
        }));
        Ok(LogPage { entries, is_last, end: Position::of_seq(newest) })
    }

    fn first(&self, job: &JobId) -> Command {
        Command::on("HGET", &self.keys.state(job)).arg("first")
    }

    async fn shared_log(&self, room: &Room, after: Position, limit: usize) -> Result<LogPage, StoreError> {
        let key = self.keys.log(room);
        let calls = vec![
            Command::on("XREVRANGE", &key).arg("+").arg("-").arg("COUNT").arg(1),
            Command::new("TIME", &key),
            // Ids count from 0 and positions from 1: the id of the next entry looks as this position does.
            Command::on("XRANGE", &key).arg(after.to_string()).arg("+").arg("COUNT").arg(limit + 1),
        ];
        let mut replies = self.client.send(calls).await.into_iter();
        let newest: Vec<StreamEntry> = next(&mut replies)?;
        let now = Position::before(time(next(&mut replies)?));
        let mut found: Vec<StreamEntry> = next(&mut replies)?;
        let is_last = found.len() <= limit;
        found.truncate(limit);
        let last = match is_last {
            true => found.last().or(newest.first()),
            false => newest.first(),
        };
        let end = last.and_then(|(id, _)| message::position(id)).unwrap_or(now);
        Ok(LogPage { entries: self.bodies(found).await?, is_last, end })
    }

    /// Reads what entries of a room's log refer to.
    async fn bodies(&self, found: Vec<StreamEntry>) -> Result<Vec<LogEntry>, StoreError> {
        let places = found.iter().filter_map(|entry| Some((message::position(&entry.0)?, reference(entry)?)));
        let places: Vec<(Position, (Seq, JobId))> = places.collect();
        let mut jobs: IndexMap<&JobId, (Seq, Seq)> = IndexMap::new();
        for (_, (seq, job)) in &places {
            let (first, last) = jobs.entry(job).or_insert((*seq, *seq));
            (*first, *last) = ((*first).min(*seq), (*last).max(*seq));
        }
        let mut events: HashMap<(JobId, Seq), JobEvent> = HashMap::with_capacity(places.len());
        let jobs: Vec<_> = jobs.into_iter().collect();
        for jobs in jobs.chunks(PIPELINE) {
            let question = |(job, (first, last)): &(&JobId, (Seq, Seq))| {
                // What the log has of a job stands together in its history.
                let span = usize::try_from(last - first).unwrap_or(usize::MAX).saturating_add(1);
                (first.saturating_sub(1), span.min(self.history.max_events), self.keys.history(job))
            };
            let questions: Vec<_> = jobs.iter().map(question).collect();
            let calls = questions
                .iter()
                .map(|(seq, limit, key)| self.history_after.call(&[key]).arg(*seq).arg(*limit).arg(0));
            let answers = self.client.ask_all(calls.collect()).await?;
            for ((job, _), ((seq, limit, _), answer)) in jobs.iter().zip(questions.iter().zip(answers)) {
                let read = self.read_after(answer, *seq, *limit).events;
                events.extend(read.into_iter().map(|event| (((*job).clone(), event.seq()), event)));
            }
        }
        let content = |(position, (seq, job)): (Position, (Seq, JobId))| {
            let place = (job, seq);
            let content = match events.get(&place) {
                Some(event) => Content::Event(event.clone()),
                None => Content::Lost(Gap { job: place.0, from: seq, to: seq }),
            };
            LogEntry { position, content }
        };
        Ok(places.into_iter().map(content).collect())
    }

    pub async fn log_range(&self, room: &Room) -> Result<LogRange, StoreError> {
        let key = self.keys.log(room);
        let calls = vec![
            Command::new("TIME", &key),
            Command::on("EXISTS", &key),
            Command::new("XINFO", &key).arg("STREAM").arg(&key),
        ];
        let mut replies = self.client.send(calls).await.into_iter();
        let now = time(next(&mut replies)?);
        let never_trimmed = Position::before(now.before(self.history.retention));
        if !next::<bool>(&mut replies)? {
            return Ok(LogRange { start: never_trimmed, end: Position::before(now) });
        }
        let mut info: HashMap<String, Value> = next(&mut replies)?;
        let mut take = |name: &str| info.remove(name).unwrap_or(Value::Nil);
        let mut id = |name: &str| -> Option<Position> {
            let entry: Option<StreamEntry> = read(take(name)).ok()?;
            message::position(&entry?.0)
        };
        let (first, last) = (id("first-entry"), id("last-entry"));
        let trimmed = read::<u64>(take("entries-added"))? != read::<u64>(take("length"))?;
        let start = match first {
            Some(first) if trimmed => Position::of_entry(first.millis(), first.number() - 1),
            _ => never_trimmed,
        };
        Ok(LogRange { start, end: last.unwrap_or(Position::before(now)) })
    }

    pub async fn count(&self, room: &Room, after: Position, until: Position) -> Result<usize, StoreError> {
        if until <= after {
            return Ok(0);
        }
        let (key, mut from, end) = (self.keys.log(room), after.to_string(), format!("({until}"));
        let (mut oldest, mut count) = (HashMap::<JobId, Seq>::new(), 0);
        loop {
            let range = Command::on("XRANGE", &key).arg(&from).arg(&end).arg("COUNT").arg(COUNTED);
            let found: Vec<StreamEntry> = self.client.ask(range).await?;
            let references: Vec<_> = found.iter().filter_map(reference).collect();
            let mut new: Vec<JobId> = references.iter().map(|(_, job)| job.clone()).collect();
            new.sort_unstable();
            new.dedup();
            new.retain(|job| !oldest.contains_key(job));
            oldest.extend(self.oldest(new).await?);
            count += references
                .iter()
                .filter(|(seq, job)| oldest.get(job).is_some_and(|oldest| oldest <= seq))
                .count();
            match found.last() {
                Some((id, _)) if found.len() == COUNTED => from = format!("({id}"),
                _ => return Ok(count),
            }
        }
    }

    /// The oldest number that is retained of each job; more than any where nothing is.
    async fn oldest(&self, jobs: Vec<JobId>) -> Result<Vec<(JobId, Seq)>, StoreError> {
        let mut found = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(PIPELINE) {
            let calls =
                jobs.iter().map(|job| Command::on("LINDEX", &self.keys.history(job)).arg(-1)).collect();
            for (job, oldest) in jobs.iter().zip(self.client.ask_all::<Option<Vec<u8>>>(calls).await?) {
                let oldest = match oldest {
                    None => None,
                    Some(bytes) => match seq_of(entry(bytes)) {
                        None => self.oldest_event(job).await?,
                        known => known,
                    },
                };
                found.push((job.clone(), oldest.unwrap_or(Seq::MAX)));
            }
        }
        Ok(found)
    }

    pub async fn active(
        &self,
        room: &Room,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<JobId>, StoreError> {
        if let Room::Job(job) = room {
            let known: bool = self.client.ask(Command::on("EXISTS", &self.keys.history(job))).await?;
            return Ok(known.then(|| job.clone()).into_iter().collect());
        }
        let since = since.max(Timestamp::now().before(self.history.retention)).millis();
        let index = self.keys.active(room);
        // Whoever is among the newest by what the index says, or may be by what it does not say yet.
        let nth = Command::on("ZREVRANGE", &index).arg(limit.saturating_sub(1)).arg(limit.saturating_sub(1));
        let nth: Vec<(String, u64)> = self.client.ask(nth.arg("WITHSCORES")).await?;
        let least = nth.first().map_or(since, |(_, at)| since.max(*at)).saturating_sub(INDEX_PAUSE);
        let call = Command::on("ZREVRANGEBYSCORE", &index).arg("+inf").arg(least).arg("WITHSCORES");
        let found: Vec<(String, u64)> = self.client.ask(call).await?;
        let jobs: Vec<(JobId, u64)> =
            found.into_iter().filter_map(|(job, at)| Some((job.parse().ok()?, at))).collect();
        let mut times = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(PIPELINE) {
            let time = |(job, _): &(JobId, u64)| Command::on("HGET", &self.keys.state(job)).arg("at");
            times.extend(self.client.ask_all::<Option<u64>>(jobs.iter().map(time).collect()).await?);
        }
        let exact = jobs.into_iter().zip(times).map(|((job, at), exact)| (exact.unwrap_or(at), job));
        let mut exact: Vec<(u64, JobId)> = exact.filter(|(at, _)| *at >= since).collect();
        exact.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        exact.truncate(limit);
        Ok(exact.into_iter().map(|(_, job)| job).collect())
    }
}

fn next<T: FromRedisValue>(
    replies: &mut impl Iterator<Item = Result<Reply, Error>>,
) -> Result<T, StoreError> {
    let reply = replies.next().unwrap_or(Err(Error::Timeout))?;
    Ok(reply.read()?)
}
