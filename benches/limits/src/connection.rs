//! One connection: what it said that is not understood yet, what waits for it, and where it is.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
};

use mio::net::TcpStream;

use crate::{input::Input, rooms::RoomId};

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Whoever has just come, and publishers.
    Http,
    /// A watcher that is not in the namespace yet.
    WebSocket,
    /// A watcher.
    Jobs,
}

/// Whether there will be more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Open,
    Ended,
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Never given twice, other than keys.
    pub serial: u64,
    pub protocol: Protocol,
    /// Whether it said anything since its last ping.
    pub is_alive: bool,
    rooms: Vec<RoomId>,
    /// The last event or turn that [`Connection::is_first_in`] was asked for.
    last: u64,
    /// The beginning of something that has not come to its end.
    unread: Vec<u8>,
    /// What the kernel had no place for. Without bound: this is a limit, not a product.
    unsent: VecDeque<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream, serial: u64) -> Self {
        Self {
            stream,
            serial,
            protocol: Protocol::Http,
            is_alive: true,
            rooms: Vec::new(),
            last: 0,
            unread: Vec::new(),
            unsent: VecDeque::new(),
        }
    }

    /// Reads all that is there, behind what was kept of earlier.
    pub fn read(&mut self, input: &mut Input, is_closed: bool) -> io::Result<Reading> {
        input.begin(&std::mem::take(&mut self.unread));
        loop {
            match input.read_from(&mut self.stream) {
                Ok(0) => return Ok(Reading::Ended),
                // Less than there was place for is all there is, unless the end comes right behind it.
                Ok(_) if !input.is_full() && !is_closed => return Ok(Reading::Open),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Reading::Open),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the rest of what was read until more of it comes.
    pub fn keep(&mut self, rest: &[u8]) {
        self.unread.extend_from_slice(rest);
    }

    /// Writes all of it now, or keeps what the kernel has no place for.
    pub fn send(&mut self, bytes: &[u8]) {
        let written = if self.unsent.is_empty() { write(&mut self.stream, bytes) } else { 0 };
        if written < bytes.len() {
            self.unsent.extend(&bytes[written..]);
        }
    }

    /// Writes what was kept, as far as there is place for it by now.
    pub fn resume(&mut self) {
        while !self.unsent.is_empty() {
            let (front, _) = self.unsent.as_slices();
            let length = front.len();
            let written = write(&mut self.stream, front);
            self.unsent.drain(..written);
            if written < length {
                return;
            }
        }
        self.unsent = VecDeque::new();
    }

    /// Whether this is asked for the first time with this number, where numbers rise.
    pub fn is_first_in(&mut self, number: u64) -> bool {
        std::mem::replace(&mut self.last, number) != number
    }

    /// The rooms that it is in.
    pub fn rooms(&self) -> &[RoomId] {
        &self.rooms
    }

    /// Notes that it is in a room; `false` where it was there before.
    pub fn enter(&mut self, room: RoomId) -> bool {
        let is_new = !self.rooms.contains(&room);
        if is_new {
            self.rooms.push(room);
        }
        is_new
    }

    /// The stream, to be told of its readiness.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// How many bytes the kernel took. Of a connection that has failed it takes everything: reading tells of the end.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    loop {
        match stream.write(bytes) {
            Ok(written) => return written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return bytes.len(),
        }
    }
}
