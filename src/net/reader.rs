//! Reads a socket with a buffer that grows only while data keeps coming.

use std::io;

use tokio::io::ReadBuf;

use super::stream::Stream;

/// How many bytes the first read takes at most.
const MIN_READ: usize = 2048;

/// How many bytes any read takes at most.
pub const MAX_READ: usize = 64 * 1024;

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
    /// Reads what has arrived into the unfilled part of a buffer, and says how many bytes that were. 0 is the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing has arrived, and the errors of the socket.
    pub fn read(&mut self, stream: &Stream, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        let into = buffer.initialize_unfilled_to(self.size.min(buffer.remaining()));
        let count = stream.try_read(into)?;
        self.size = if count == into.len() { (self.size * 4).min(MAX_READ) } else { MIN_READ };
        buffer.advance(count);
        Ok(count)
    }
}
