//! What the embedded store keeps, and under which keys. The first byte of a key names its table. Identifiers and rooms
//! have no byte below two, so a zero ends each of them. Numbers are big-endian, so that keys sort by them.

use std::ops::Range;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    access::Subject,
    event::{IdempotencyKey, Owner, Seq, rooms},
    id::{JobId, TenantId, UserId},
    position::Position,
    room::Room,
    store::StoreError,
    timestamp::Timestamp,
};

/// Job and number → event.
const EVENT: u8 = b'e';
/// Job → [`JobRecord`].
const JOB: u8 = b'j';
/// Job and idempotency key → [`KeyRecord`].
const KEY: u8 = b'k';
/// Room and position → [`LogEntry`].
const LOG: u8 = b'l';
/// Room, first number of a job and job → nothing.
const MEMBER: u8 = b'm';
/// Room → [`RoomRecord`].
const ROOM: u8 = b'r';
/// Subject → [`Revocation`].
const REVOCATION: u8 = b'v';
/// Time and another key → nothing: when to look whether that has expired.
const EXPIRY: u8 = b'x';

/// What is known of a job beside its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The newest event's number.
    pub seq: Seq,
    /// The number of the first event that the job ever had.
    pub first: Seq,
    /// The oldest event that is kept.
    pub oldest: Seq,
    /// The newest event's time.
    pub at: Timestamp,
    /// When to look whether it has expired.
    pub due: Timestamp,
    /// Whether the newest state is a finished one.
    pub finished: bool,
    pub user: Option<UserId>,
    pub tenant: Option<TenantId>,
}

impl JobRecord {
    pub fn owner(&self) -> Owner {
        Owner { user: self.user.clone(), tenant: self.tenant.clone() }
    }
}

/// What is known of a room beside its log. It is written when the log begins and when it is trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRecord {
    /// Milliseconds and number of the last place that was trimmed.
    start: (u64, u64),
    /// The index of the first entry after that.
    pub first: u64,
    /// When to look which entries have expired.
    pub due: Timestamp,
}

impl RoomRecord {
    pub fn new(due: Timestamp) -> Self {
        Self { start: (0, 0), first: 1, due }
    }

    /// The last place that was trimmed.
    pub fn start(&self) -> Position {
        Position::of_entry(self.start.0, self.start.1)
    }

    pub fn trim(&mut self, last: Position, entries: u64) {
        self.start = (last.millis(), last.number());
        self.first += entries;
    }
}

/// The first answer to a call that had an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub fingerprint: String,
    pub seq: Seq,
    pub timestamp: Timestamp,
    pub expires: Timestamp,
}

pub fn revocation_key(subject: &Subject) -> Vec<u8> {
    [&[REVOCATION][..], &write(subject)].concat()
}

/// The keys of all revocations.
pub fn revocations() -> Range<Vec<u8>> {
    vec![REVOCATION]..vec![REVOCATION + 1]
}

pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError(format!("it holds an unreadable record: {error}")))
}

pub fn write<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records can always be written")
}

/// An entry in the log of a shared room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Counts the entries of the room, so that it is known how many there are.
    pub index: u64,
    pub seq: Seq,
    pub job: JobId,
}

impl LogEntry {
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let parts = || {
            let job = std::str::from_utf8(bytes.get(16..)?).ok()?.parse().ok()?;
            Some(Self { index: number(bytes, 0)?, seq: number(bytes, 8)?, job })
        };
        parts().ok_or_else(|| StoreError("it holds an unreadable log".to_owned()))
    }

    pub fn write(&self) -> Vec<u8> {
        [&self.index.to_be_bytes(), &self.seq.to_be_bytes(), self.job.as_str().as_bytes()].concat()
    }
}

fn number(bytes: &[u8], from: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(from..from + 8)?.try_into().ok()?))
}

fn key(table: u8, text: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(text.len() + 18);
    key.push(table);
    key.extend_from_slice(text.as_bytes());
    key.push(0);
    key
}

/// All keys that begin with a key that ends in a zero.
fn below(start: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = start.clone();
    end.pop();
    end.push(1);
    start..end
}

/// The next key in order.
fn next(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

pub fn job_key(job: &JobId) -> Vec<u8> {
    key(JOB, job.as_str())
}

pub fn event_key(job: &JobId, seq: Seq) -> Vec<u8> {
    let mut key = key(EVENT, job.as_str());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

pub fn idempotency_key(job: &JobId, name: &IdempotencyKey) -> Vec<u8> {
    let mut key = key(KEY, job.as_str());
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

pub fn room_key(room: &Room) -> Vec<u8> {
    key(ROOM, &room.to_string())
}

pub fn log_key(room: &Room, position: Position) -> Vec<u8> {
    let mut key = key(LOG, &room.to_string());
    key.extend_from_slice(&position.millis().to_be_bytes());
    key.extend_from_slice(&position.number().to_be_bytes());
    key
}

/// The entries of a room after a place.
pub fn log_after(room: &Room, after: Position) -> Range<Vec<u8>> {
    next(log_key(room, after))..below(key(LOG, &room.to_string())).end
}

/// The entries of a room after a place and up to another.
pub fn log_between(room: &Room, after: Position, until: Position) -> Range<Vec<u8>> {
    next(log_key(room, after))..next(log_key(room, until))
}

/// The place that a key of a log stands for.
pub fn position_of_key(key: &[u8]) -> Position {
    let places = key.len().checked_sub(16).map(|start| (number(key, start), number(key, start + 8)));
    match places {
        Some((Some(millis), Some(number))) => Position::of_entry(millis, number),
        _ => Position::START,
    }
}

/// Says that a job, whose first number is given, belongs to a room.
pub fn member_key(room: &Room, first: Seq, job: &JobId) -> Vec<u8> {
    let mut key = key(MEMBER, &room.to_string());
    key.extend_from_slice(&first.to_be_bytes());
    key.extend_from_slice(job.as_str().as_bytes());
    key
}

/// The jobs of a room by their first numbers.
pub fn members(room: &Room) -> Range<Vec<u8>> {
    below(key(MEMBER, &room.to_string()))
}

pub fn job_of_member(room: &Room, key: &[u8]) -> Option<JobId> {
    std::str::from_utf8(key.get(room.to_string().len() + 10..)?).ok()?.parse().ok()
}

/// The rooms that have a list of their jobs on disk, where a job has this owner.
pub fn owner_rooms<'a>(job: &'a JobId, owner: &'a Owner) -> impl Iterator<Item = Room> + 'a {
    rooms(job, owner).filter(|room| matches!(room, Room::User(_) | Room::Tenant(_)))
}

/// Says when to look whether what stands under another key has expired.
pub fn expiry_key(due: Timestamp, target: &[u8]) -> Vec<u8> {
    [&[EXPIRY], due.millis().to_be_bytes().as_slice(), target].concat()
}

/// What is due at `now` or before, after a key that was looked at.
pub fn due(after: Option<&[u8]>, now: Timestamp) -> Range<Vec<u8>> {
    after.map_or(vec![EXPIRY], |key| next(key.to_vec()))..expiry_key(now, &[u8::MAX])
}

/// What an expiry key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    Key(Vec<u8>),
    Job(JobId),
    Room(Room),
}

/// When to look, and at what.
pub fn expiry_of_key(key: &[u8]) -> Option<(Timestamp, Expiry)> {
    let target = key.get(9..)?;
    let name = || std::str::from_utf8(target.get(1..target.len().checked_sub(1)?)?).ok();
    let expiry = match *target.first()? {
        KEY => Expiry::Key(target.to_vec()),
        JOB => Expiry::Job(name()?.parse().ok()?),
        ROOM => Expiry::Room(name()?.parse().ok()?),
        _ => return None,
    };
    Some((Timestamp::from_millis(number(key, 1)?)?, expiry))
}

/// The keys of all jobs after the one named.
pub fn jobs_after(job: Option<&JobId>) -> Range<Vec<u8>> {
    job.map_or(vec![JOB], |job| next(job_key(job)))..vec![JOB + 1]
}

/// The job that a job's key stands for.
pub fn job_of_key(key: &[u8]) -> Option<JobId> {
    std::str::from_utf8(key.get(1..key.len().checked_sub(1)?)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_by_number_within_their_job(a: u64, b: u64, job in "[a-z:.]{1,9}", other in "[a-z:.]{1,9}") {
            let (job, other): (JobId, JobId) = (job.parse().unwrap(), other.parse().unwrap());
            prop_assert_eq!(event_key(&job, a).cmp(&event_key(&job, b)), a.cmp(&b));
            let range = event_key(&job, 0)..event_key(&job, Seq::MAX);
            prop_assert_eq!(range.contains(&event_key(&other, a.min(Seq::MAX - 1))), job == other);
        }

        #[test]
        fn job_keys_read_back_in_order(a in "[a-z:.]{1,9}", b in "[a-z:.]{1,9}") {
            let (a, b): (JobId, JobId) = (a.parse().unwrap(), b.parse().unwrap());
            prop_assert_eq!(job_of_key(&job_key(&a)), Some(a.clone()));
            prop_assert_eq!(jobs_after(Some(&a)).contains(&job_key(&b)), job_key(&b) > job_key(&a));
            prop_assert!(jobs_after(None).contains(&job_key(&a)));
        }

        #[test]
        fn log_keys_sort_by_position_within_their_room(
            a: (u64, u64), b: (u64, u64), user in "[a-z:.]{1,9}", other in "[a-z:.]{1,9}"
        ) {
            let [at, after] = [a, b].map(|(millis, number)| Position::of_entry(millis, number));
            let [room, other] = [user, other].map(|user| Room::User(user.parse().unwrap()));
            let key = log_key(&room, at);
            prop_assert_eq!(position_of_key(&key), at);
            prop_assert_eq!(log_after(&room, after).contains(&key), at > after);
            prop_assert_eq!(log_between(&room, Position::START, after).contains(&key), at > Position::START && at <= after);
            prop_assert_eq!(log_after(&other, Position::START).contains(&key), room == other && at > Position::START);
        }

        #[test]
        fn entries_members_and_expiries_read_back(index: u64, seq: u64, millis in 0u64..253_402_300_799_999, id in "[a-z:.]{1,9}") {
            let job: JobId = id.parse().unwrap();
            let entry = LogEntry { index, seq, job: job.clone() };
            prop_assert_eq!(LogEntry::read(&entry.write()), Ok(entry));
            let room = Room::Tenant(id.parse().unwrap());
            let member = member_key(&room, seq, &job);
            prop_assert!(members(&room).contains(&member));
            prop_assert_eq!(job_of_member(&room, &member), Some(job.clone()));
            let due_at = Timestamp::from_millis(millis).unwrap();
            let name = idempotency_key(&job, &"k".parse().unwrap());
            for (target, expiry) in
                [(job_key(&job), Expiry::Job(job)), (room_key(&room), Expiry::Room(room)), (name.clone(), Expiry::Key(name))]
            {
                let key = expiry_key(due_at, &target);
                prop_assert_eq!(expiry_of_key(&key), Some((due_at, expiry)));
                prop_assert!(due(None, due_at).contains(&key) && !due(Some(&key), due_at).contains(&key));
            }
        }
    }
}
