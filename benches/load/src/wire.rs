//! What goes over a watcher's WebSocket: frames (RFC 6455) and the packets of Engine.IO 4 and Socket.IO 5 in them.
//!
//! Everything is read in place. A delivery is looked at no more than the measurement needs: whose it is, its
//! number, and when its publisher sent it.

use std::fmt;

use serde::Deserialize;

use crate::digits::{decimal, leading_number};
use crate::names::Names;

/// The first bytes of the event that every subject delivers, up to the job's id.
const EVENT_HEAD: &[u8] = br#"42/jobs,["job:progress",{"event":"job:progress","jobId":""#;
/// What comes between the job's id and the progress.
const AFTER_ID: &[u8] = br#"","status":"in_progress","progress":"#;
const MESSAGE: &[u8] = br#","message":""#;
const SEQ: &[u8] = br#""seq":"#;
/// What stands between an event and its places in shared rooms.
const SECOND: &[u8] = b"},{";
const GAP_HEAD: &[u8] = br#"42/jobs,["job:gap","#;

/// What a server sent that this client cannot go on after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// One frame of a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An Engine.IO packet.
    Text(&'a [u8]),
    /// A WebSocket ping with what the pong has to repeat.
    Ping(&'a [u8]),
    /// The server says goodbye.
    Close,
    /// Nothing to act on.
    Other,
}

/// The first frame in `bytes` and its length on the wire; `None` while it is not there as a whole.
pub fn frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0x80 == 0 {
        return Err(Malformed("a fragmented message"));
    }
    if first & 0x70 != 0 {
        return Err(Malformed("an extension that was not asked for"));
    }
    if second & 0x80 != 0 {
        return Err(Malformed("a masked frame of a server"));
    }
    let Some((head, length)) = payload_length(bytes, second) else { return Ok(None) };
    let end = head.checked_add(length).ok_or(Malformed("a frame of an impossible length"))?;
    let Some(payload) = bytes.get(head..end) else { return Ok(None) };
    let frame = match first & 0x0f {
        0x1 => Frame::Text(payload),
        0x8 => Frame::Close,
        0x9 => Frame::Ping(payload),
        _ => Frame::Other,
    };
    Ok(Some((frame, end)))
}

fn payload_length(bytes: &[u8], second: u8) -> Option<(usize, usize)> {
    match second & 0x7f {
        126 => Some((4, u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into())),
        127 => {
            let length = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            Some((10, usize::try_from(length).unwrap_or(usize::MAX)))
        }
        short => Some((2, short.into())),
    }
}

/// Appends a client's text frame.
pub fn put_text(out: &mut Vec<u8>, payload: &[u8]) {
    put_frame(out, 0x1, payload);
}

/// Appends a client's answer to a WebSocket ping.
pub fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_frame(out, 0xa, payload);
}

/// Appends a client's goodbye.
pub fn put_close(out: &mut Vec<u8>) {
    put_frame(out, 0x8, &1000_u16.to_be_bytes());
}

fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        medium @ 126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = fastrand::u32(..).to_be_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A packet of a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The Engine.IO session is open.
    Open,
    /// A heartbeat that wants its answer.
    Ping,
    /// The namespace let us in.
    Joined,
    /// The namespace did not let us in, or put us out.
    Refused,
    /// The server ends the session.
    Closed,
    /// The answer to the one event that was sent with an acknowledgement: its arguments.
    Answer(&'a [u8]),
    /// An event of a job of this run.
    Delivery(Delivery),
    /// The server says that numbers of a job are no longer kept.
    Gap {
        /// The first missing number.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// Somebody else's event, or nothing to act on.
    Other,
}

/// All that is read of a delivered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The job's index in this run.
    pub job: u32,
    /// The event's number.
    pub seq: u64,
    /// When its publisher sent it, in microseconds of [`crate::latency::micros`].
    pub sent: u64,
    /// Where it stands in the shared room that brought it.
    pub position: Option<Position>,
}

/// A place in a shared room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    millis: u64,
    number: u64,
}

impl Position {
    /// `None` for what is no position.
    fn read(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        Some(Self { millis: decimal(&text[..dash])?, number: decimal(&text[dash + 1..])? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// What the text of a frame says.
pub fn packet<'a>(text: &'a [u8], names: &Names) -> Packet<'a> {
    match text {
        [b'4', b'2', ..] => delivery(text, names).map_or_else(|| gap(text), Packet::Delivery),
        [b'2', ..] => Packet::Ping,
        [b'0', ..] => Packet::Open,
        [b'1', ..] => Packet::Closed,
        [b'4', b'0', ..] => Packet::Joined,
        [b'4', b'1' | b'4', ..] => Packet::Refused,
        [b'4', b'3', rest @ ..] => match rest.iter().position(|byte| *byte == b'[') {
            Some(start) => Packet::Answer(&rest[start..]),
            None => Packet::Other,
        },
        _ => Packet::Other,
    }
}

fn delivery(text: &[u8], names: &Names) -> Option<Delivery> {
    let rest = text.strip_prefix(EVENT_HEAD)?;
    let (job, rest) = names.strip_job(rest)?;
    let rest = rest.strip_prefix(AFTER_ID)?;
    let progress = rest.iter().position(|byte| *byte == b',')?;
    let (sent, _) = leading_number(rest[progress..].strip_prefix(MESSAGE)?)?;
    let text = text.strip_suffix(b"}]")?;
    if let Some(seq) = trailing_number(text) {
        return Some(Delivery { job, seq, sent, position: None });
    }
    // A shared room's place follows the event.
    let end = text.windows(SECOND.len()).rposition(|window| window == SECOND)?;
    let position = last_position(&text[end..]);
    Some(Delivery { job, seq: trailing_number(&text[..end])?, sent, position })
}

/// The place in the last room that is named.
fn last_position(places: &[u8]) -> Option<Position> {
    let text = places.strip_suffix(b"\"")?;
    let start = text.iter().rposition(|byte| *byte == b'"')?;
    Position::read(&text[start + 1..])
}

#[derive(Deserialize)]
struct GapNotice {
    from: u64,
    to: u64,
}

fn gap(text: &[u8]) -> Packet<'static> {
    let notice = text.strip_prefix(GAP_HEAD).and_then(|rest| {
        // In a shared room its place follows.
        serde_json::Deserializer::from_slice(rest).into_iter().next()?.ok()
    });
    match notice {
        Some(GapNotice { from, to }) => Packet::Gap { from, to },
        None => Packet::Other,
    }
}

/// A successful answer to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// How many events are about to be replayed.
    pub replaying: u64,
    /// Where the subscription to a shared room begins.
    pub position: Option<Position>,
}

/// Reads the answer to a subscription, if that succeeded.
pub fn subscribed(answer: &[u8]) -> Option<Subscribed> {
    #[derive(Deserialize)]
    struct Told<'a> {
        success: bool,
        #[serde(default)]
        replaying: u64,
        position: Option<&'a str>,
    }
    let [Told { success, replaying, position }] = serde_json::from_slice(answer).ok()?;
    let position = position.and_then(|text| Position::read(text.as_bytes()));
    success.then_some(Subscribed { replaying, position })
}

/// The numbers that an answer to a publisher names, in its order.
pub fn numbers(answer: &[u8]) -> impl Iterator<Item = u64> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        let at = rest.windows(SEQ.len()).position(|window| window == SEQ)?;
        let (number, after) = leading_number(&rest[at + SEQ.len()..])?;
        rest = after;
        Some(number)
    })
}

fn trailing_number(text: &[u8]) -> Option<u64> {
    let start = text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
    let (rest, digits) = text.split_at(start);
    if rest.ends_with(SEQ) { decimal(digits) } else { None }
}

#[cfg(test)]
mod tests;
