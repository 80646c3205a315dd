//! What stores hold and bring. Others may write to the same Redis, and a disk may bring anything.

use std::collections::HashMap;

use jobcast::{
    ClientId, Entry, Notice, Position,
    internals::stores::{
        embedded::{
            Expiry, JobRecord, KeyRecord, LogEntry, RoomRecord, event_key, expiry_key, expiry_of_key,
            job_key, job_of_key, position_of_key, read, room_key, write,
        },
        redis::{LARGEST, Stored, arrival, entry, position, read_message, record, reference, rooms_of},
    },
};
use serde::{Serialize, de::DeserializeOwned};

use super::text;

/// What clients are told they can say again, and every program can read the numbers.
pub fn messages(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Some((positions, json)) = read_message(text) else { return };
    let told = [positions.user, positions.tenant, positions.all_jobs];
    for position in told.into_iter().flatten() {
        assert_eq!(position.to_string().parse(), Ok(position), "a client resumes by it");
    }
    let Some(arrival) = arrival(positions, json) else { return };
    assert_eq!(arrival.event.json().get(), json.trim_ascii());
    assert!(arrival.event.seq() <= LARGEST, "{}", arrival.event.seq());
    for (room, at) in positions.rooms(&arrival.event) {
        assert_eq!(positions.in_log_of(&room, &arrival.event), Some(at));
    }
}

/// An entry of a history is served as it is.
pub fn entries(bytes: &[u8]) {
    let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok();
    let Some(entry) = entry(bytes.to_vec()) else { return assert!(!is_json, "JSON is served as it is") };
    assert!(is_json && entry.json().as_bytes() == bytes.trim_ascii());
    assert!(entry.seq().is_none_or(|seq| seq <= LARGEST));
    if let Entry::Event(event) = entry {
        assert!(event.rooms().any(|room| room.to_string() == format!("job:{}", event.job())));
    }
}

/// What a room's log refers to, and the record of a client.
pub fn log_references(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Some((seq, job)) = reference(&(String::new(), (String::new(), text.to_owned()))) {
        let again = reference(&(String::new(), (String::new(), format!("{seq} {job}"))));
        assert_eq!(again, Some((seq, job)));
        assert!(seq <= LARGEST, "{seq}");
    }
    if let Some(position) = position(text) {
        assert_eq!(position.to_string().parse(), Ok(position), "a client resumes by it");
    }
    let id: ClientId = "c".parse().expect("it is an id");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let fields: HashMap<_, _> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    if let Some(record) = record(&id, fields, lines.clone()) {
        assert!(record.subscriptions.is_sorted() && record.client_id == id);
        assert!(record.subscriptions.iter().all(|room| lines.contains(&room.to_string())));
    }
}

/// A notice means the same on every node.
pub fn notices(bytes: &[u8]) {
    let Ok(notice) = serde_json::from_slice::<Notice>(bytes) else { return };
    let json = serde_json::to_string(&notice).expect("a notice can be written");
    let again: Notice = serde_json::from_str(&json).expect("what is written is read");
    assert_eq!((&again.audience, &again.name), (&notice.audience, &notice.name));
    assert_eq!((again.data.get(), again.timestamp), (notice.data.get(), notice.timestamp));
}

/// The script's answers are for as many events as were sent, or none.
pub fn publish_answers(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let answers: Vec<String> = text.split('\n').map(str::to_owned).collect();
    for count in [0, answers.len() - 1, answers.len()] {
        assert!(Stored::read(&answers, count).is_none() || count + 1 == answers.len());
    }
    if let Some(owner) = rooms_of(text) {
        let written = format!(
            "rooms {} {}",
            owner.user.as_ref().map_or("", |id| id.as_str()),
            owner.tenant.as_ref().map_or("", |id| id.as_str()),
        );
        assert_eq!(rooms_of(&written), Some(owner));
    }
}

/// Records and keys mean the same when they are written and read again.
pub fn records(bytes: &[u8]) {
    if let Ok(entry) = LogEntry::read(bytes) {
        assert_eq!(entry.write(), bytes);
    }
    again::<JobRecord>(bytes);
    again::<RoomRecord>(bytes);
    again::<KeyRecord>(bytes);
    if let Some((due, expiry)) = expiry_of_key(bytes) {
        let target = match &expiry {
            Expiry::Key(key) => key.clone(),
            Expiry::Job(job) => job_key(job),
            Expiry::Room(room) => room_key(room),
        };
        assert_eq!(expiry_of_key(&expiry_key(due, &target)), Some((due, expiry)));
    }
    if let Some(job) = job_of_key(bytes) {
        assert_eq!(job_of_key(&job_key(&job)).as_ref(), Some(&job));
        assert!(event_key(&job, 1) < event_key(&job, 2));
    }
    assert!(position_of_key(bytes) >= Position::START);
}

fn again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(record) = read::<T>(bytes) {
        assert_eq!(read::<T>(&write(&record)).as_ref(), Ok(&record));
    }
}
