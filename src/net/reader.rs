//! Reads a socket with a buffer that grows only while data keeps coming.

use std::io::{self, ErrorKind, Read};

use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

/// How many bytes the first read takes at most.
const MIN_READ: usize = 2048;

/// How many bytes any read takes at most.
const MAX_READ: usize = 64 * 1024;

/// Reads into a small part of the buffer first. Libraries offer large buffers, which would have to be zeroed, and poll
/// once more after the last byte.
#[derive(Debug)]
pub struct AdaptiveReader {
    size: usize,
}

impl Default for AdaptiveReader {
    fn default() -> Self {
        Self { size: MIN_READ }
    }
}

impl AdaptiveReader {
    /// Reads what has arrived into the unfilled part of a buffer.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if nothing has arrived, and the errors of the socket.
    pub fn read(&mut self, stream: &TcpStream, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let into = buffer.initialize_unfilled_to(self.size.min(buffer.remaining()));
        let mut read = None;
        let outcome = stream.try_io(Interest::READABLE, || {
            let count = (&*SockRef::from(stream)).read(into)?;
            read = Some(count);
            // A short read means that the socket is empty. Clearing readiness here saves the system call that would
            // find nothing. Data that arrives later raises a new event.
            if (1..into.len()).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (read, outcome) {
            (Some(count), _) => {
                self.size = if count == into.len() { (self.size * 4).min(MAX_READ) } else { MIN_READ };
                buffer.advance(count);
                Ok(())
            }
            (None, outcome) => outcome,
        }
    }
}
