//! What a socket is sent, in the two forms that it takes: written by socketioxide, or as a frame that is written beside
//! it and shared by all sockets that get the same.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use serde_json::value::RawValue;
use socketioxide::{
    SendError,
    adapter::LocalAdapter,
    extract::{AckSender, SocketRef},
    handler::{FromMessageParts, Value},
    socket::Socket,
};

use super::NAMESPACE;
use crate::{connection::text_frame, event::JobEvent};

/// Something for a socket.
#[derive(Debug, Clone, Copy)]
pub enum Packet<'a> {
    /// An event with one argument. Its name has no character that JSON escapes.
    Event { name: &'a str, argument: &'a RawValue },
    /// The answer to a message of the client's.
    Ack { socket: &'a Arc<Socket<LocalAdapter>>, id: i64, answer: &'a RawValue },
}

impl Packet<'_> {
    /// At least so many bytes it is on the wire.
    pub fn size(&self) -> usize {
        let (Packet::Event { argument: json, .. } | Packet::Ack { answer: json, .. }) = self;
        json.get().len()
    }

    /// The packet as a frame: Engine.IO's `4` for a message, Socket.IO's `2` or `3` for an event or an answer, the
    /// namespace, and an array.
    pub fn frame(&self) -> Bytes {
        match self {
            Packet::Event { name, argument } => text_frame(&[
                b"42",
                NAMESPACE.as_bytes(),
                b",[\"",
                name.as_bytes(),
                b"\",",
                argument.get().as_bytes(),
                b"]",
            ]),
            Packet::Ack { id, answer, .. } => text_frame(&[
                b"43",
                NAMESPACE.as_bytes(),
                b",",
                id.to_string().as_bytes(),
                b"[",
                answer.get().as_bytes(),
                b"]",
            ]),
        }
    }

    /// Has socketioxide send it.
    pub fn emit(&self, socket: &SocketRef) -> Result<(), SendError> {
        match self {
            Packet::Event { name, argument } => socket.emit(name, argument),
            Packet::Ack { socket, id, answer } => {
                let mut nothing = Value::Str("".into(), None);
                match AckSender::from_message_parts(socket, &mut nothing, &Some(*id)) {
                    Ok(ack) => ack.send(answer),
                    Err(never) => match never {},
                }
            }
        }
    }
}

/// The frames that were made last, of whatever goes to many sockets one after the other: made once, shared by all.
#[derive(Debug, Default)]
pub struct Frames(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    first: JobEvent,
    last: JobEvent,
    count: usize,
    frames: Bytes,
}

impl Made {
    fn is_of(&self, events: &[JobEvent]) -> bool {
        let same = |event: Option<&JobEvent>, made| event.is_some_and(|event| event.is_same(made));
        self.count == events.len() && same(events.first(), &self.first) && same(events.last(), &self.last)
    }
}

impl Frames {
    /// The frames of job events that are delivered together, one after the other. Whoever shares the first and the last
    /// of so many events with the call before shares them all: both are parts of one feed.
    pub fn of(&self, events: &[JobEvent]) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = last.as_ref().filter(|made| made.is_of(events)) {
            return made.frames.clone();
        }
        let frame =
            |event: &JobEvent| Packet::Event { name: event.kind().name(), argument: event.json() }.frame();
        let frames: Bytes = match events {
            [event] => frame(event),
            events => events.iter().map(frame).collect::<Vec<_>>().concat().into(),
        };
        *last = events.first().zip(events.last()).map(|(first, last)| Made {
            first: first.clone(),
            last: last.clone(),
            count: events.len(),
            frames: frames.clone(),
        });
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_socketioxide_would_write() {
        let argument = RawValue::from_string(r#"{"a":1}"#.to_owned()).unwrap();
        let frame = Packet::Event { name: "job:gap", argument: &argument }.frame();
        assert_eq!(&frame[..2], [0x81, 27]);
        assert_eq!(&frame[2..], br#"42/jobs,["job:gap",{"a":1}]"#);
    }

    #[test]
    fn one_event_has_one_frame() {
        let json = r#"{"event":"job:update","jobId":"j","status":"s","data":null,"timestamp":"2023-11-14T22:13:20.123Z","seq":7}"#;
        let event = JobEvent::parse(json.to_owned()).unwrap();
        let frames = Frames::default();
        let alone = [event];
        let (first, second) = (frames.of(&alone), frames.of(&alone.clone()));
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert!(first.ends_with(br#""seq":7}]"#));
        let other = JobEvent::parse(json.replace("\"j\"", "\"k\"")).unwrap();
        let both = [alone[0].clone(), other.clone()];
        assert_eq!(frames.of(&both), [first, frames.of(&[other])].concat());
    }
}
