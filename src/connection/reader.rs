use std::io::{self, ErrorKind, Read};

use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

/// How many bytes are read at once, as long as that is enough, and at the most.
const SIZES: (usize, usize) = (2048, 64 * 1024);

/// Reads a stream with no more work than what is there asks for. Libraries offer large buffers, which have to be cleared
/// first, and ask again after all has been read.
#[derive(Debug)]
pub struct Reader {
    size: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { size: SIZES.0 }
    }
}

impl Reader {
    /// Reads what is there, into what is left of a buffer.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] where nothing is there, and whatever the system says.
    pub fn read(&mut self, stream: &TcpStream, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let into = buffer.initialize_unfilled_to(self.size.min(buffer.remaining()));
        let mut read = None;
        let outcome = stream.try_io(Interest::READABLE, || {
            let count = (&*SockRef::from(stream)).read(into)?;
            read = Some(count);
            // Less than there was place for is all that there was: to say so here saves the system call that would find
            // nothing, and misses nothing, because what comes after the call is a new event.
            if (1..into.len()).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (read, outcome) {
            (Some(count), _) => {
                self.size = if count == into.len() { (self.size * 4).min(SIZES.1) } else { SIZES.0 };
                buffer.advance(count);
                Ok(())
            }
            (None, outcome) => outcome,
        }
    }
}
