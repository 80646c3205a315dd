//! The packets that a socket is sent, in two forms: written by socketioxide, or as WebSocket frames that bypass it and
//! are shared by all sockets that get the same.

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
use crate::{event::JobEvent, net::text_frame, notice::Notice, position::RoomSet, store::Arrival};

/// A packet for a socket.
#[derive(Debug, Clone, Copy)]
pub enum Packet<'a> {
    /// An event with its argument. The positions follow it: where a job event stands in the shared rooms that bring it.
    /// The name has no character that JSON escapes.
    Event { name: &'a str, argument: &'a RawValue, positions: Option<&'a RawValue> },
    /// The acknowledgement of a client's message.
    Ack { socket: &'a Arc<Socket<LocalAdapter>>, id: i64, answer: &'a RawValue },
}

impl Packet<'_> {
    /// A lower bound of the packet's size on the wire.
    pub fn size(&self) -> usize {
        let (Packet::Event { argument: json, .. } | Packet::Ack { answer: json, .. }) = self;
        json.get().len()
    }

    /// The packet as a frame: Engine.IO's `4` for a message, Socket.IO's `2` or `3` for an event or an acknowledgement,
    /// the namespace, and an array.
    pub fn frame(&self) -> Bytes {
        match self {
            Packet::Event { name, argument, positions } => text_frame(&[
                b"42",
                NAMESPACE.as_bytes(),
                b",[\"",
                name.as_bytes(),
                b"\",",
                argument.get().as_bytes(),
                if positions.is_some() { b"," } else { b"" },
                positions.map_or("", RawValue::get).as_bytes(),
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

    /// Sends the packet by socketioxide.
    pub fn emit(&self, socket: &SocketRef) -> Result<(), SendError> {
        match self {
            Packet::Event { name, argument, positions: None } => socket.emit(name, argument),
            Packet::Event { name, argument, positions: Some(positions) } => {
                socket.emit(name, &(argument, positions))
            }
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

/// A cache of the most recent frames, for each set of rooms that may bring an event. An event that goes to many sockets
/// is encoded once.
#[derive(Debug, Default)]
pub struct FrameCache {
    events: Mutex<[Option<CachedFrames>; RoomSet::COUNT]>,
    notice: Mutex<Option<(Notice, Bytes)>>,
}

#[derive(Debug)]
struct CachedFrames {
    first: JobEvent,
    last: JobEvent,
    count: usize,
    frames: Bytes,
}

impl CachedFrames {
    fn is_of(&self, arrivals: &[Arrival]) -> bool {
        let same =
            |arrival: Option<&Arrival>, cached| arrival.is_some_and(|arrival| arrival.event.is_same(cached));
        self.count == arrivals.len()
            && same(arrivals.first(), &self.first)
            && same(arrivals.last(), &self.last)
    }
}

impl FrameCache {
    /// The frame of a notice.
    pub fn of_notice(&self, notice: &Notice) -> Bytes {
        let mut cached = self.notice.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |cached: &&(Notice, Bytes)| Arc::ptr_eq(&cached.0.data, &notice.data);
        if let Some((_, frame)) = cached.as_ref().filter(same) {
            return frame.clone();
        }
        let packet = Packet::Event { name: notice.name.as_str(), argument: &notice.data, positions: None };
        let frame = packet.frame();
        *cached = Some((notice.clone(), frame.clone()));
        frame
    }

    /// The frames of job events that these rooms deliver together. Two calls with the same rooms, count, first and last
    /// event share their frames, because both are parts of one log.
    pub fn of(&self, arrivals: &[Arrival], rooms: RoomSet) -> Bytes {
        let mut cached = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut cached[rooms.index()];
        if let Some(cached) = slot.as_ref().filter(|cached| cached.is_of(arrivals)) {
            return cached.frames.clone();
        }
        let frame = |Arrival { event, positions }: &Arrival| {
            let positions = positions.to_json(event, rooms);
            let (name, argument) = (event.kind().name(), event.json());
            Packet::Event { name, argument, positions: positions.as_deref() }.frame()
        };
        let frames: Bytes = match arrivals {
            [arrival] => frame(arrival),
            arrivals => arrivals.iter().map(frame).collect::<Vec<_>>().concat().into(),
        };
        *slot = arrivals.first().zip(arrivals.last()).map(|(first, last)| CachedFrames {
            first: first.event.clone(),
            last: last.event.clone(),
            count: arrivals.len(),
            frames: frames.clone(),
        });
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        position::{Position, Positions},
        room::Room,
    };

    #[test]
    fn a_frame_is_what_socketioxide_would_write() {
        let argument = RawValue::from_string(r#"{"a":1}"#.to_owned()).unwrap();
        let frame = Packet::Event { name: "job:gap", argument: &argument, positions: None }.frame();
        assert_eq!(&frame[..2], [0x81, 27]);
        assert_eq!(&frame[2..], br#"42/jobs,["job:gap",{"a":1}]"#);
    }

    #[test]
    fn one_event_has_one_frame() {
        let json = r#"{"event":"job:update","jobId":"j","status":"s","data":null,"timestamp":"2023-11-14T22:13:20.123Z","seq":7}"#;
        let arrival = |json: String| {
            let positions = Positions::in_room(&Room::AllJobs, Position::of_entry(5, 1));
            Arrival { event: JobEvent::parse(json).unwrap(), positions: Positions { job: true, ..positions } }
        };
        let (frames, by_job) = (FrameCache::default(), RoomSet::of(&Room::Job("j".parse().unwrap())));
        let by_both = by_job.with(RoomSet::of(&Room::AllJobs));
        let alone = [arrival(json.to_owned())];
        let (first, second) = (frames.of(&alone, by_job), frames.of(&alone.clone(), by_job));
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert!(first.ends_with(br#""seq":7}]"#));
        assert!(frames.of(&alone, by_both).ends_with(br#""seq":7},{"all-jobs":"5-1"}]"#));
        assert_eq!(first.as_ptr(), frames.of(&alone, by_job).as_ptr());
        let other = arrival(json.replace("\"j\"", "\"k\""));
        let both = [alone[0].clone(), other.clone()];
        assert_eq!(frames.of(&both, by_job), [first, frames.of(&[other], by_job)].concat());
    }
}
