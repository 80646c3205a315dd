//! Socket.IO in the namespace `/jobs`, over Engine.IO 4: the packets that are sent and understood.

use std::{fmt, io::Write, time::Duration};

use serde::Deserialize;

use crate::event::is_id;

/// How long after a connection's opening, and then after each ping, it is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);

/// A ping, whole.
pub const PING: &str = "2";

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// It is alive.
    Pong,
    /// It enters the namespace.
    Connect,
    /// It joins a room and awaits an answer of this number.
    Subscribe { ack: &'a str, room: RoomName<'a> },
    /// It goes.
    Close,
    /// Something that is not spoken here.
    Unknown,
}

/// A room, as a client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomName<'a> {
    Job(&'a str),
    User(&'a str),
    AllJobs,
}

impl fmt::Display for RoomName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoomName::Job(id) => write!(f, "job:{id}"),
            RoomName::User(id) => write!(f, "user:{id}"),
            RoomName::AllJobs => f.write_str("all-jobs"),
        }
    }
}

/// An event's name and its first argument.
#[derive(Deserialize)]
struct Event<'a>(&'a str, #[serde(borrow, default)] Option<Subscription<'a>>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subscription<'a> {
    #[serde(rename = "jobId")]
    job: Option<&'a str>,
    #[serde(rename = "userId")]
    user: Option<&'a str>,
}

impl<'a> Packet<'a> {
    /// Reads one packet.
    pub fn read(text: &'a str) -> Self {
        match text {
            "1" => Packet::Close,
            "3" => Packet::Pong,
            _ if text.starts_with("40/jobs,") => Packet::Connect,
            _ => text.strip_prefix("42/jobs,").and_then(Self::read_event).unwrap_or(Packet::Unknown),
        }
    }

    fn read_event(text: &'a str) -> Option<Self> {
        let (ack, arguments) = text.split_at(text.find('[')?);
        let Event(name, payload) = serde_json::from_str(arguments).ok()?;
        let Subscription { job, user } = payload.unwrap_or_default();
        let room = match (job, user) {
            (Some(job), _) => RoomName::Job(job),
            (None, Some(user)) => RoomName::User(user),
            (None, None) => RoomName::AllJobs,
        };
        let is_valid = job.is_none_or(is_id) && user.is_none_or(is_id);
        let is_number = ack.bytes().all(|byte| byte.is_ascii_digit());
        (name == "subscribe:jobs" && is_valid && is_number).then_some(Packet::Subscribe { ack, room })
    }
}

/// Writes the packet that opens a connection.
pub fn write_open(serial: u64, out: &mut Vec<u8>) {
    let interval = PING_INTERVAL.as_millis();
    write!(
        out,
        r#"0{{"sid":"{serial}","upgrades":[],"pingInterval":{interval},"pingTimeout":{interval},"maxPayload":131072}}"#
    )
    .expect("a Vec takes all");
}

/// Writes the answer to who enters the namespace.
pub fn write_connected(serial: u64, out: &mut Vec<u8>) {
    write!(out, r#"40/jobs,{{"sid":"{serial}"}}"#).expect("a Vec takes all");
}

/// Writes the answer to who joins a room.
pub fn write_subscribed(ack: &str, room: RoomName<'_>, out: &mut Vec<u8>) {
    write!(
        out,
        r#"43/jobs,{ack}[{{"success":true,"room":"{room}","message":"subscribed to {room}","latest":null}}]"#
    )
    .expect("a Vec takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_packets() {
        let subscribe = |ack, room| Packet::Subscribe { ack, room };
        let cases = [
            ("1", Packet::Close),
            ("3", Packet::Pong),
            ("40/jobs,", Packet::Connect),
            (r#"40/jobs,{"token":"x"}"#, Packet::Connect),
            (r#"42/jobs,7["subscribe:jobs",{"jobId":"j"}]"#, subscribe("7", RoomName::Job("j"))),
            (r#"42/jobs,7["subscribe:jobs",{"userId":"u"}]"#, subscribe("7", RoomName::User("u"))),
            (r#"42/jobs,10["subscribe:jobs",{"jobId":null}]"#, subscribe("10", RoomName::AllJobs)),
            (r#"42/jobs,["subscribe:jobs",{"since":1}]"#, subscribe("", RoomName::AllJobs)),
            (r#"42/jobs,8["subscribe:jobs"]"#, subscribe("8", RoomName::AllJobs)),
            (r#"42/jobs,9["subscribe:jobs",null]"#, subscribe("9", RoomName::AllJobs)),
            ("40", Packet::Unknown),
            (r#"42/jobs,7["subscribe:jobs",{"jobId":"a b"}]"#, Packet::Unknown),
            (r#"42/jobs,x["subscribe:jobs",{}]"#, Packet::Unknown),
            (r#"42/jobs,7["history:jobs",{"jobId":"j"}]"#, Packet::Unknown),
            ("", Packet::Unknown),
        ];
        for (text, packet) in cases {
            assert_eq!(Packet::read(text), packet, "{text}");
        }
    }
}
