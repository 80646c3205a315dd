//! What the embedded store keeps, and under which keys. The first byte of a key names its table; identifiers
//! have no zero byte, so one ends each of them, and numbers are big-endian, so that keys sort by them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::index::Standing;
use crate::{
    event::{IdempotencyKey, Owner, Seq},
    id::{JobId, TenantId, UserId},
    store::StoreError,
    timestamp::Timestamp,
};

const EVENT: u8 = b'e';
const JOB: u8 = b'j';
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

    /// Where the job stands in the index of active jobs.
    pub fn standing(&self) -> Standing {
        Standing { owner: self.owner(), at: self.at }
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

/// The keys of all jobs after the one named.
pub fn jobs_after(job: Option<&JobId>) -> std::ops::Range<Vec<u8>> {
    // A key that ends in a one comes right after the one that ends in a zero.
    let start = job.map_or(vec![JOB], |job| [&[JOB], job.as_str().as_bytes(), &[1]].concat());
    start..vec![JOB + 1]
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
    }
}
