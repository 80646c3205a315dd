//! What the embedded store keeps, and under which keys. The first byte of a key names its table; identifiers
//! have no zero byte, so one ends each of them, and numbers are big-endian, so that keys sort by them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    event::{IdempotencyKey, Owner, Seq},
    id::{JobId, TenantId, UserId},
    room::Room,
    store::StoreError,
    timestamp::Timestamp,
};

const EVENT: u8 = b'e';
const JOB: u8 = b'j';
const ACTIVE: u8 = b'a';
const KEY: u8 = b'k';
const KEY_EXPIRY: u8 = b'x';

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
    /// Whether the newest state is a finished one.
    pub finished: bool,
    user: Option<UserId>,
    tenant: Option<TenantId>,
}

impl JobRecord {
    pub fn new(first: Seq, oldest: Seq, seq: Seq, at: Timestamp, finished: bool, owner: &Owner) -> Self {
        Self { seq, first, oldest, at, finished, user: owner.user.clone(), tenant: owner.tenant.clone() }
    }

    pub fn owner(&self) -> Owner {
        Owner { user: self.user.clone(), tenant: self.tenant.clone() }
    }

    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        read(bytes)
    }

    pub fn write(&self) -> Vec<u8> {
        write(self)
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

impl KeyRecord {
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        read(bytes)
    }

    pub fn write(&self) -> Vec<u8> {
        write(self)
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError(format!("it holds an unreadable record: {error}")))
}

fn write<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records can always be written")
}

fn key(table: u8, text: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(text.len() + 18);
    key.push(table);
    key.extend_from_slice(text.as_bytes());
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

/// Sorts an idempotency key by the time at which it ends.
pub fn expiry_key(expires: Timestamp, idempotency_key: &[u8]) -> Vec<u8> {
    [&[KEY_EXPIRY], expires.millis().to_be_bytes().as_slice(), idempotency_key].concat()
}

/// The expiry keys of all idempotency keys that end at `now` or before.
pub fn expired_keys(now: Timestamp) -> std::ops::Range<Vec<u8>> {
    vec![KEY_EXPIRY]..expiry_key(now, &[u8::MAX])
}

/// The idempotency key that an expiry key stands for.
pub fn key_of_expiry(expiry: &[u8]) -> Vec<u8> {
    expiry[9..].to_vec()
}

pub fn active_key(room: &Room, at: Timestamp, job: &JobId) -> Vec<u8> {
    let mut key = active_from(room, at);
    key.extend_from_slice(job.as_str().as_bytes());
    key
}

/// Where the jobs of a room begin that were active at `at` or later.
pub fn active_from(room: &Room, at: Timestamp) -> Vec<u8> {
    let mut key = key(ACTIVE, &room.to_string());
    key.extend_from_slice(&at.millis().to_be_bytes());
    key
}

/// Where the jobs of a room end.
pub fn active_end(room: &Room) -> Vec<u8> {
    let mut key = key(ACTIVE, &room.to_string());
    key.extend_from_slice(&[u8::MAX; 8]);
    key
}

/// The job that an active key stands for.
pub fn active_job(room: &Room, key: &[u8]) -> Option<JobId> {
    let start = active_from(room, Timestamp::default()).len();
    std::str::from_utf8(key.get(start..)?).ok()?.parse().ok()
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
        fn active_keys_read_back(millis in 0u64..1 << 47, job in "[a-z:.]{1,9}", user in "[a-z:.]{1,9}") {
            let (job, room) = (job.parse().unwrap(), Room::User(user.parse().unwrap()));
            let at = Timestamp::from_millis(millis).unwrap();
            let key = active_key(&room, at, &job);
            prop_assert!((active_from(&room, at)..active_end(&room)).contains(&key));
            prop_assert_eq!(active_job(&room, &key), Some(job));
        }
    }
}
