//! What waits to be written on a connection, and how far it has ended.

use std::{task::Waker, time::Instant};

use bytes::Bytes;

use crate::{budget::Reservation, net::write_queue::WriteQueue};

/// How many bytes of the library may wait before no more is read for it.
const MAX_LIBRARY: usize = 64 * 1024;

/// What waits to be written.
#[derive(Debug, Default)]
pub struct State {
    pub mode: Mode,
    pub queue: WriteQueue,
    /// How many bytes hyper wants to write, which the socket does not take.
    pub unwritten: usize,
    /// The bytes of this connection alone count against the budget while they wait.
    pub reservation: Option<Reservation>,
    pub stall: Option<Stall>,
    /// The reader, which waits until fewer bytes do.
    pub reader: Option<Waker>,
    /// Whether a task waits until the socket is writable.
    pub has_writer: bool,
    pub is_supervised: bool,
    pub end: End,
}

/// What the library writes.
#[derive(Debug, Default)]
pub enum Mode {
    /// HTTP.
    #[default]
    Http,
    /// Frames. Nobody else has asked to write.
    Frames,
    /// Frames. Those of the fan-out follow once the library writes the mark.
    Marked(Box<AwaitedMark>),
    /// Frames, and those of the fan-out between them.
    Shared,
}

#[derive(Debug)]
pub struct AwaitedMark {
    /// A frame that is not sent.
    pub mark: Bytes,
    pub since: Instant,
    /// What follows the mark.
    pub after: WriteQueue,
}

/// How far a connection has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    #[default]
    Open,
    /// The library has written a close frame, which no other may follow.
    Closing,
    /// The library has written its last byte.
    LastWritten,
    /// The library is gone. What waits is still written until then.
    Lingering(Instant),
    Closed,
}

/// The peer does not take all that is written.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    pub since: Instant,
    /// How many bytes had been written then.
    pub written: u64,
}

impl State {
    /// Bytes and frames that wait.
    pub fn pending(&self) -> (usize, usize) {
        let (bytes, frames) = match &self.mode {
            Mode::Marked(awaited) => (awaited.after.bytes(), awaited.after.frames()),
            _ => (0, 0),
        };
        (self.queue.bytes() + self.unwritten + bytes, self.queue.frames() + frames)
    }

    /// Whether the library has to wait before it reads on.
    pub fn holds_up_reading(&self) -> bool {
        match self.mode {
            Mode::Http => self.unwritten > 0,
            _ => self.queue.own_bytes() > MAX_LIBRARY,
        }
    }

    /// Whether nothing can go wrong any more without another write.
    pub fn may_be_left_alone(&self) -> bool {
        let lingers = matches!(self.end, End::Lingering(_));
        self.queue.is_empty() && self.unwritten == 0 && !matches!(self.mode, Mode::Marked(_)) && !lingers
    }

    pub fn awaits(&self, frame: &[u8]) -> bool {
        matches!(&self.mode, Mode::Marked(awaited) if awaited.mark == frame)
    }

    /// Frames of the fan-out may follow on what was written so far.
    pub fn share(&mut self) {
        if let Mode::Marked(awaited) = std::mem::replace(&mut self.mode, Mode::Shared) {
            self.queue.append(awaited.after);
        }
    }

    pub fn close(&mut self) {
        self.end = End::Closed;
        self.queue = WriteQueue::default();
        (self.unwritten, self.reservation, self.stall) = (0, None, None);
        if let Mode::Marked(_) = self.mode {
            self.mode = Mode::Shared;
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
