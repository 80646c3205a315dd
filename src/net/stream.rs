//! The byte stream below a connection. It is plain TCP; TLS would be another kind of it.

use std::{
    io::{self, ErrorKind, IoSlice, Read},
    net::Shutdown,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

/// A connected socket. Several tasks share it.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    /// Sets the socket up. Sent data may stay unacknowledged for `write_timeout` (`TCP_USER_TIMEOUT`; Linux, RFC 5482).
    pub fn new(socket: TcpStream, write_timeout: Duration) -> Self {
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&socket).set_tcp_user_timeout(Some(write_timeout)));
        if let Err(error) = prepared {
            tracing::debug!(%error, "could not set a connection up");
        }
        Self(socket)
    }

    /// Ready when a read would not block, or has ended.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(context)
    }

    /// Reads what has arrived. 0 is the end.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if nothing has arrived, and the errors of the socket.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut read = None;
        let outcome = self.0.try_io(Interest::READABLE, || {
            let count = (&*SockRef::from(&self.0)).read(into)?;
            read = Some(count);
            // A short read means that the socket is empty. Clearing readiness here saves the system call that would
            // find nothing. Data that arrives later raises a new event.
            if (1..into.len()).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        read.map_or_else(|| outcome.map(|()| 0), Ok)
    }

    /// Writes what the socket takes at once.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    /// Writes what the socket takes at once.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    /// Ready when the socket takes more. One task may poll.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(context)
    }

    /// Resolves when the socket takes more.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable().await
    }

    /// Ends one direction or both. An end that has come already is none of the caller's business.
    pub fn end(&self, how: Shutdown) {
        let _already_gone = SockRef::from(&self.0).shutdown(how);
    }

    /// Ends the connection at once. Without this the kernel would keep sending to a peer that does not read.
    pub fn reset(&self) {
        let _already_gone = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
        self.end(Shutdown::Both);
    }
}
