//! The buffer that all connections are read into, one after the other.

use std::{
    io::{self, Read},
    mem,
};

/// How much place there is at first, in bytes.
const AT_FIRST: usize = 256 * 1024;

/// The most that one connection may have sent by the time that it is read, in bytes.
const AT_MOST: usize = 16 * 1024 * 1024;

/// What one connection has sent. Its memory is used again for the next one.
#[derive(Debug)]
pub struct Input {
    bytes: Vec<u8>,
    filled: usize,
}

impl Input {
    pub fn new() -> Self {
        Self { bytes: vec![0; AT_FIRST], filled: 0 }
    }

    /// Begins anew, with what a connection had sent before.
    pub fn begin(&mut self, kept: &[u8]) {
        self.filled = 0;
        self.make_place(kept.len());
        self.bytes[..kept.len()].copy_from_slice(kept);
        self.filled = kept.len();
    }

    /// Reads once, into what place there is.
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        if self.filled >= AT_MOST {
            return Err(io::Error::other("a client sent too much at once"));
        }
        self.make_place(1);
        let read = stream.read(&mut self.bytes[self.filled..])?;
        self.filled += read;
        Ok(read)
    }

    /// Whether the last read may have left something.
    pub fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
    }

    /// All that was read.
    pub fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.filled]
    }

    /// Takes the buffer, to read it while its owner is used.
    pub fn take(&mut self) -> Self {
        mem::replace(self, Self { bytes: Vec::new(), filled: 0 })
    }

    fn make_place(&mut self, more: usize) {
        let wanted = self.filled + more;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.max(self.bytes.len() * 2), 0);
        }
    }
}
