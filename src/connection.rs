//! Accepted connections: who is at the other end, and a way to cut one whose peer does not read any more.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// What handlers may know of a connection, and do to it.
#[derive(Debug, Clone)]
pub struct Connection {
    address: SocketAddr,
    stream: Weak<TcpStream>,
    written: Arc<AtomicU64>,
}

impl Connection {
    /// The address of the peer.
    pub fn address(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Whether it is still held open on this side.
    pub fn is_open(&self) -> bool {
        self.stream.strong_count() > 0
    }

    /// How many bytes the system has taken for the peer so far: what is beyond them still waits in this process.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Cuts the connection at once, whatever its writer is waiting for. What was not sent yet is lost.
    pub fn cut(&self) {
        if let Some(stream) = self.stream.upgrade() {
            // Without it the system would go on trying to send what nobody reads.
            let _already_gone = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            let _already_gone = SockRef::from(&*stream).shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Connected<IncomingStream<'_, Acceptor>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Acceptor>) -> Self {
        let Io { stream: held, written } = stream.io();
        Connection { address: *stream.remote_addr(), stream: Arc::downgrade(held), written: written.clone() }
    }
}

/// Accepts connections and sets them up: no delay, and no patience with a peer that takes nothing for longer
/// than `patience` (Linux; RFC 5482).
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    patience: Duration,
}

impl Acceptor {
    /// Accepts from `listener`.
    pub fn new(listener: TcpListener, patience: Duration) -> Self {
        Self { listener, patience }
    }
}

impl axum::serve::Listener for Acceptor {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let prepare = || {
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_user_timeout(Some(self.patience))
        };
        if let Err(error) = prepare() {
            tracing::debug!(%error, "could not set a connection up");
        }
        (Io::new(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The stream of a connection, shared with whoever may have to cut it, and a count of what went out on it.
#[derive(Debug)]
pub struct Io {
    stream: Arc<TcpStream>,
    written: Arc<AtomicU64>,
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map(|count| buffer.advance(count))),
            }
        }
    }
}

impl Io {
    fn new(stream: TcpStream) -> Self {
        Self { stream: Arc::new(stream), written: Arc::default() }
    }

    fn poll_try(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    let count = outcome.as_ref().map_or(0, |count| *count as u64);
                    self.written.fetch_add(count, Ordering::Relaxed);
                    return Poll::Ready(outcome);
                }
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}
