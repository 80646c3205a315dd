//! Which server holds which keys: all of them, or in a cluster each its slots (Redis Cluster specification).

use std::{ops::RangeInclusive, sync::Arc};

use crc::{CRC_16_XMODEM, Crc};
use redis::Value;

use super::server::Server;

/// How many slots there are.
const SLOTS: u16 = 16_384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// A place in a cluster. Keys of one slot are always on the same server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key or channel: that of its hash tag, if it has one.
    pub fn of(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
        Self(CRC.checksum(hashed.as_bytes()) % SLOTS)
    }
}

/// The servers, and which slots each of them holds.
#[derive(Debug, Clone, Default)]
pub struct SlotMap {
    ranges: Vec<(RangeInclusive<u16>, Arc<Server>)>,
}

impl SlotMap {
    /// One server holds everything.
    pub fn all_on(server: Arc<Server>) -> Self {
        Self { ranges: vec![(0..=SLOTS - 1, server)] }
    }

    /// As the servers of a cluster tell it.
    pub fn new(ranges: Vec<(RangeInclusive<u16>, Arc<Server>)>) -> Self {
        Self { ranges }
    }

    /// The server that holds a slot; `None` while a cluster has none for it.
    pub fn server_of(&self, slot: Slot) -> Option<&Arc<Server>> {
        self.ranges.iter().find(|(range, _)| range.contains(&slot.0)).map(|(_, server)| server)
    }

    /// All servers that hold slots.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for (_, server) in &self.ranges {
            if !servers.iter().any(|other| Arc::ptr_eq(other, server)) {
                servers.push(server.clone());
            }
        }
        servers
    }

    /// Whether a server holds slots.
    pub fn holds_any(&self, server: &Arc<Server>) -> bool {
        self.ranges.iter().any(|(_, holder)| Arc::ptr_eq(holder, server))
    }

    /// Whether a server holds a slot.
    pub fn holds(&self, server: &Arc<Server>, slot: Slot) -> bool {
        self.server_of(slot).is_some_and(|holder| Arc::ptr_eq(holder, server))
    }
}

impl PartialEq for SlotMap {
    fn eq(&self, other: &Self) -> bool {
        let same = |((range, server), (other_range, other)): (&(_, Arc<Server>), &(_, Arc<Server>))| {
            range == other_range && Arc::ptr_eq(server, other)
        };
        self.ranges.len() == other.ranges.len() && self.ranges.iter().zip(&other.ranges).all(same)
    }
}

/// A part of a cluster, as `CLUSTER SLOTS` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub range: RangeInclusive<u16>,
    /// The master's host; `None` where it is the one that was asked.
    pub host: Option<String>,
    pub port: u16,
}

/// Reads the answer of `CLUSTER SLOTS`; what is not understood is left out.
pub fn shards(answer: Value) -> Vec<Shard> {
    let Value::Array(shards) = answer else { return Vec::new() };
    shards.into_iter().filter_map(shard).collect()
}

fn shard(value: Value) -> Option<Shard> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let (first, last) = (number(parts.next()?)?, number(parts.next()?)?);
    let Value::Array(master) = parts.next()? else { return None };
    let mut master = master.into_iter();
    let host: Option<String> = redis::from_redis_value(master.next()?).ok()?;
    let port = number(master.next()?)?;
    Some(Shard { range: first..=last, host: host.filter(|host| !host.is_empty() && host != "?"), port })
}

fn number(value: Value) -> Option<u16> {
    match value {
        Value::Int(number) => number.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The example of the specification, and what a server answers to CLUSTER KEYSLOT.
        assert_eq!(Slot::of("123456789"), Slot(0x31C3));
        assert_eq!(Slot::of("foo"), Slot(12_182));
        assert_eq!(Slot::of("a{foo}b"), Slot::of("foo"));
        assert_eq!(Slot::of("foo{}{bar}"), Slot(8363));
        assert_eq!(Slot::of("foo{{bar}}"), Slot::of("{bar"));
    }

    #[test]
    fn shards_are_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let answer = Value::Array(vec![
            Value::Array(vec![Value::Int(0), Value::Int(9), node(text("h"), 1), node(text("replica"), 2)]),
            Value::Array(vec![Value::Int(10), Value::Int(16_383), node(Value::Nil, 3)]),
            Value::Array(vec![Value::Int(10)]),
        ]);
        let expected = [
            Shard { range: 0..=9, host: Some("h".to_owned()), port: 1 },
            Shard { range: 10..=16_383, host: None, port: 3 },
        ];
        assert_eq!(shards(answer), expected);
    }
}
