//! The wire: Socket.IO 5 over Engine.IO 4 over WebSocket, as much of it as a watcher needs, and a job event as a
//! watcher reads it.

use std::{collections::BTreeMap, fmt, hash::Hasher, str::FromStr, time::Duration};

use serde::Deserialize;
use serde_json::{json, value::RawValue};

/// What the server sends.
#[derive(Debug)]
pub enum Packet<'a> {
    /// The connection is open; for how long it may be silent.
    Open {
        silence: Duration,
    },
    Ping,
    /// The namespace is joined.
    Joined,
    /// It is not, or not any more.
    Left,
    /// The answer to the request of that number.
    Ack(usize, Answer),
    /// A job event, and where it stands in the shared rooms that brought it.
    Event(&'a str, Positions),
    Gap(Gap, Positions),
    Other,
}

/// The answer to `subscribe:jobs`.
#[derive(Debug, Deserialize)]
pub struct Answer {
    pub success: bool,
    pub recovered: Option<bool>,
    /// For a shared room where the subscription begins.
    pub position: Option<Position>,
    pub replaying: Option<u64>,
    /// For a job's room its newest event.
    latest: Option<Box<RawValue>>,
}

/// A place in the log of a shared room: a time in milliseconds, and a number within it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Position(u64, u64);

/// Places in shared rooms, by the rooms' names.
pub type Positions = BTreeMap<String, Position>;

impl Position {
    /// Before everything.
    pub const START: Position = Position(0, 0);

    /// Right before everything that was accepted at that time (Unix, in milliseconds) or later.
    pub fn before(millis: u64) -> Self {
        Position(millis, 0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('-').and_then(|(time, number)| Some((time.parse().ok()?, number.parse().ok()?)));
        parts.map(|(time, number)| Position(time, number)).ok_or_else(|| format!("{text:?} is no position"))
    }
}

impl TryFrom<String> for Position {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Numbers that the server says cannot be had.
#[derive(Debug, Deserialize)]
pub struct Gap {
    #[serde(rename = "jobId")]
    pub job: String,
    pub from: u64,
    pub to: u64,
}

#[derive(Deserialize)]
struct Handshake {
    #[serde(rename = "pingInterval")]
    ping_interval: u64,
    #[serde(rename = "pingTimeout")]
    ping_timeout: u64,
}

/// A job event, read no further than a watcher needs.
#[derive(Debug, Deserialize)]
pub struct JobEvent<'a> {
    #[serde(rename = "jobId")]
    pub job: &'a str,
    pub seq: u64,
    data: Option<&'a str>,
    message: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
}

/// What a publisher puts into an event: its own number, and when it was sent, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub serial: u64,
    pub sent: u64,
}

impl Stamp {
    /// The stamp as text, made longer by so many characters.
    pub fn text(self, padding: usize) -> String {
        format!("{} {} {}", self.serial, self.sent, "x".repeat(padding))
    }
}

impl JobEvent<'_> {
    pub fn read(text: &str) -> Option<JobEvent<'_>> {
        serde_json::from_str(text).ok()
    }

    pub fn stamp(&self) -> Option<Stamp> {
        let text = self.message.or(self.data).or(self.result).or(self.error)?;
        let mut words = text.split(' ');
        Some(Stamp { serial: words.next()?.parse().ok()?, sent: words.next()?.parse().ok()? })
    }
}

impl Answer {
    /// The number of the job's newest event; 0 where it has none.
    pub fn newest(&self) -> u64 {
        let latest = self.latest.as_ref().and_then(|latest| JobEvent::read(latest.get()));
        latest.map_or(0, |event| event.seq)
    }
}

/// Tells contents apart: the same bytes have the same digest.
pub fn digest(text: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Joins the namespace, under a name of the client's own and with a token if it has them.
pub fn join(client_id: Option<&str>, token: Option<&str>) -> String {
    let members = [("clientId", client_id), ("token", token)];
    let members = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
    format!("40/jobs,{}", json!(BTreeMap::from_iter(members)))
}

pub const PONG: &str = "3";

/// Asks for a room: request number and payload.
pub fn subscribe(request: usize, payload: &serde_json::Value) -> String {
    format!("42/jobs,{request}{}", json!(["subscribe:jobs", payload]))
}

/// Reads a packet; `None` where it is none of Socket.IO's.
pub fn read(text: &str) -> Option<Packet<'_>> {
    match text.as_bytes() {
        [b'0', ..] => {
            let handshake: Handshake = serde_json::from_str(&text[1..]).ok()?;
            let silence = Duration::from_millis(handshake.ping_interval + handshake.ping_timeout);
            Some(Packet::Open { silence })
        }
        [b'1', ..] => Some(Packet::Left),
        [b'2', ..] => Some(Packet::Ping),
        [b'4', kind, rest @ ..] if rest.starts_with(b"/jobs,") => message(*kind, &text[8..]),
        [b'4', ..] => Some(Packet::Other),
        _ => None,
    }
}

fn message(kind: u8, rest: &str) -> Option<Packet<'_>> {
    match kind {
        b'0' => Some(Packet::Joined),
        b'1' | b'4' => Some(Packet::Left),
        b'2' => event(rest),
        b'3' => {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (answer,): (Answer,) = serde_json::from_str(&rest[digits..]).ok()?;
            Some(Packet::Ack(rest[..digits].parse().ok()?, answer))
        }
        _ => Some(Packet::Other),
    }
}

fn event(rest: &str) -> Option<Packet<'_>> {
    let arguments: Vec<&RawValue> = serde_json::from_str(rest).ok()?;
    let [name, event, rest @ ..] = arguments.as_slice() else { return Some(Packet::Other) };
    let name: &str = serde_json::from_str(name.get()).ok()?;
    let positions = match rest {
        [] => Positions::default(),
        [positions, ..] if name.starts_with("job:") => serde_json::from_str(positions.get()).ok()?,
        _ => return Some(Packet::Other),
    };
    match name {
        "job:gap" => Some(Packet::Gap(serde_json::from_str(event.get()).ok()?, positions)),
        "job:update" | "job:progress" | "job:completed" | "job:error" | "job:cancelled" => {
            Some(Packet::Event(event.get(), positions))
        }
        _ => Some(Packet::Other),
    }
}
