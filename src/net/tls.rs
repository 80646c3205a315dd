//! TLS of one connection (RFC 8446, RFC 5246). Its reader and its writer share it under a short lock, and nothing waits in
//! it but what is encrypted and not yet taken by the socket, which is bounded.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;

use super::stream::read_socket;

/// How many bytes may be encrypted that the socket has not taken: two records.
const MAX_HELD: usize = 32 * 1024;

/// How many slices one write encrypts at the most.
const MAX_SLICES: usize = 64;

/// What a handshake needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More bytes of the peer.
    Read,
    /// A socket that takes more.
    Write,
    /// Nothing.
    Done,
}

/// The server's end of TLS on one socket.
#[derive(Debug)]
pub struct Session(Mutex<State>);

#[derive(Debug)]
struct State {
    connection: ServerConnection,
    /// How many bytes the peer has sent that are decrypted and not read.
    unread: usize,
    /// Whether the peer sends nothing more.
    has_ended: bool,
    /// How many bytes of the writer are encrypted, and not all taken by the socket. It is told that they are written once
    /// all of them are, and so keeps counting them, and offers them again.
    held: usize,
}

impl Session {
    /// A session before its handshake.
    ///
    /// # Errors
    /// Those of the configuration.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(Some(MAX_HELD));
        Ok(Self(Mutex::new(State { connection, unread: 0, has_ended: false, held: 0 })))
    }

    /// Goes on with the handshake as far as the socket allows.
    ///
    /// # Errors
    /// Those of [`Session::read`], and [`ErrorKind::UnexpectedEof`] if the peer has gone.
    pub fn step(&self, socket: &TcpStream) -> io::Result<Step> {
        let mut state = self.state();
        loop {
            match state.flush(socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Write),
                outcome => outcome?,
            }
            if !state.connection.is_handshaking() {
                return Ok(Step::Done);
            }
            match state.receive(socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Read),
                outcome => outcome?,
            }
            if state.has_ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whether a read would not block, whatever the socket has.
    pub fn is_readable(&self) -> bool {
        let state = self.state();
        state.unread > 0 || state.has_ended
    }

    /// Reads what has arrived. 0 is the end. It need not be announced, because what is above says how long it is.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if nothing has arrived, [`ErrorKind::InvalidData`] if it is no valid TLS, and the errors of
    /// the socket.
    pub fn read(&self, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        loop {
            match state.connection.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => state.receive(socket)?,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                outcome => {
                    let count = outcome?;
                    state.unread = state.unread.saturating_sub(count);
                    return Ok(count);
                }
            }
        }
    }

    /// Encrypts and writes as much as the socket takes at once. Bytes that are encrypted but not taken count as not
    /// written; the next call has to offer them first.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if it takes nothing, and the errors of the socket.
    pub fn write(&self, socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut rest = [IoSlice::new(&[]); MAX_SLICES];
        let count = slices.len().min(MAX_SLICES);
        rest[..count].copy_from_slice(&slices[..count]);
        let mut rest = &mut rest[..count];
        let mut offered: usize = rest.iter().map(|slice| slice.len()).sum();
        let (mut state, mut written) = (self.state(), 0);
        loop {
            match state.flush(socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && written > 0 => return Ok(written),
                outcome => outcome?,
            }
            let gone = state.held.min(offered);
            state.held -= gone;
            offered -= gone;
            written += gone;
            IoSlice::advance_slices(&mut rest, gone);
            if offered == 0 {
                return Ok(written);
            }
            state.held = state.connection.writer().write_vectored(rest)?;
            if state.held == 0 {
                return Ok(written);
            }
        }
    }

    /// How many bytes are encrypted and wait for the socket.
    pub fn held(&self) -> usize {
        self.state().held
    }

    /// Tells the peer that nothing more is sent (`close_notify`), if the socket takes that at once. The first call counts.
    pub fn close(&self, socket: &TcpStream) {
        let mut state = self.state();
        if !state.connection.is_handshaking() {
            state.connection.send_close_notify();
            let _already_gone = state.flush(socket);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes what is encrypted.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Socket(socket))?;
        }
        Ok(())
    }

    /// Reads and decrypts a part of what has arrived. All that was decrypted before has been read.
    fn receive(&mut self, socket: &TcpStream) -> io::Result<()> {
        let count = self.connection.read_tls(&mut Socket(socket))?;
        let outcome = self.connection.process_new_packets();
        // An answer to the peer's TLS, or an alert. What the socket does not take goes with the next write.
        let _later = self.flush(socket);
        let now = outcome.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        self.unread = now.plaintext_bytes_to_read();
        self.has_ended |= count == 0 || now.peer_has_closed();
        Ok(())
    }
}

/// The socket as TLS sees it.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_socket(self.0, into)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
