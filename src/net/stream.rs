//! The byte stream below a connection: plain TCP, or TLS on it.

use std::{
    io::{self, ErrorKind, IoSlice, Read},
    net::Shutdown,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::tls::{Session, Step};

/// A connected socket. Several tasks share it.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// The TLS that its bytes pass, if any.
    tls: Option<Box<Session>>,
}

impl Stream {
    /// Sets the socket up. Sent data may stay unacknowledged for `write_timeout` (`TCP_USER_TIMEOUT`; Linux, RFC 5482).
    pub fn new(socket: TcpStream, write_timeout: Duration) -> Self {
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&socket).set_tcp_user_timeout(Some(write_timeout)));
        if let Err(error) = prepared {
            tracing::debug!(%error, "could not set a connection up");
        }
        Self { socket, tls: None }
    }

    /// The same stream with TLS. [`Stream::handshake`] comes first.
    ///
    /// # Errors
    /// Those of the configuration.
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        self.tls = Some(Box::new(Session::new(config)?));
        Ok(self)
    }

    /// Whether what a peer may send first has to be a TLS handshake.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Completes the TLS handshake. A stream whose handshake was dropped cannot be used.
    ///
    /// # Errors
    /// Those of the socket, and [`ErrorKind::InvalidData`] if no TLS could be agreed on. The peer has been told then.
    pub async fn handshake(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        loop {
            match tls.step(&self.socket)? {
                Step::Read => self.socket.readable().await?,
                Step::Write => self.socket.writable().await?,
                Step::Done => return Ok(()),
            }
        }
    }

    /// The first byte that the peer sends, which stays unread. `None` at the end.
    pub async fn peek(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        Ok((self.socket.peek(&mut first).await? > 0).then_some(first[0]))
    }

    /// Answers, without TLS, a peer that speaks none, and ends. What the socket does not take at once is lost.
    pub fn end_unencrypted(&self, answer: &[u8]) {
        // What has arrived and is not read would have the system reset the connection, and the answer be lost.
        let _may_be_none = read_socket(&self.socket, &mut [0; 4096]);
        let _may_be_gone = self.socket.try_write(answer);
        let _already_gone = SockRef::from(&self.socket).shutdown(Shutdown::Write);
    }

    /// Ready when a read would not block, or has ended.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.as_ref().is_some_and(|tls| tls.is_readable()) {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(context)
    }

    /// Reads what has arrived. 0 is the end.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if nothing has arrived, [`ErrorKind::InvalidData`] if it is no TLS where it must be, and
    /// the errors of the socket.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => read_socket(&self.socket, into),
            Some(tls) => tls.read(&self.socket, into),
        }
    }

    /// Writes what the socket takes at once. With TLS, whoever is not rid of all bytes has to offer the same ones first
    /// the next time, because they may be encrypted already.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if it takes nothing, and the errors of the socket.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write(bytes),
            Some(tls) => tls.write(&self.socket, &[IoSlice::new(bytes)]),
        }
    }

    /// As [`Stream::try_write`], of several slices.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write_vectored(slices),
            Some(tls) => tls.write(&self.socket, slices),
        }
    }

    /// How many bytes the stream itself holds: encrypted, and not yet taken by the socket.
    pub fn held(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.held())
    }

    /// Ready when the socket takes more. One task may poll.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(context)
    }

    /// Resolves when the socket takes more.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Ends one direction or both. With TLS the peer is told that nothing more is sent (`close_notify`), as far as the
    /// socket takes that at once. An end that has come already is none of the caller's business.
    pub fn end(&self, how: Shutdown) {
        if let Some(tls) = self.tls.as_ref().filter(|_| how != Shutdown::Read) {
            tls.close(&self.socket);
        }
        let _already_gone = SockRef::from(&self.socket).shutdown(how);
    }

    /// Ends the connection at once. Without this the kernel would keep sending to a peer that does not read.
    pub fn reset(&self) {
        let _already_gone = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        let _already_gone = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(tls) = &self.tls {
            tls.close(&self.socket);
        }
    }
}

/// Reads what has arrived at a socket. 0 is the end.
pub fn read_socket(socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let outcome = socket.try_io(Interest::READABLE, || {
        let count = (&*SockRef::from(socket)).read(into)?;
        read = Some(count);
        // A short read means that the socket is empty. Clearing readiness here saves the system call that would
        // find nothing. Data that arrives later raises a new event.
        if (1..into.len()).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    read.map_or_else(|| outcome.map(|()| 0), Ok)
}
