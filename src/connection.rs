//! Accepted connections: who is at the other end, how long it may be silent, and ways to end one: in order, or cutting it
//! where its peer does not read any more.

mod acceptor;
mod gate;

use std::{
    io,
    net::{IpAddr, Shutdown, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, connect_info::Connected},
    middleware::Next,
    response::Response,
    serve::IncomingStream,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};

pub use self::acceptor::{AcceptOptions, Acceptor};
use self::gate::{Gate, Pass};

/// What handlers may know of a connection, and do to it.
#[derive(Debug, Clone)]
pub struct Connection {
    address: SocketAddr,
    stream: Weak<TcpStream>,
    written: Arc<AtomicU64>,
    pass: Weak<Pass>,
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

    /// Ends a connection that has left HTTP, in order: nothing is read from it any more, and what is on its way to
    /// the peer is still sent.
    pub fn end(&self) {
        if let (Some(stream), Some(pass)) = (self.stream.upgrade(), self.pass.upgrade()) {
            pass.ended.store(true, Ordering::Release);
            // Wakes whoever reads.
            let _already_gone = SockRef::from(&*stream).shutdown(Shutdown::Read);
        }
    }

    /// Cuts the connection at once, whatever its writer is waiting for. What was not sent yet is lost.
    pub fn cut(&self) {
        if let Some(stream) = self.stream.upgrade() {
            // Without it the system would go on trying to send what nobody reads.
            let _already_gone = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            let _already_gone = SockRef::from(&*stream).shutdown(Shutdown::Both);
        }
    }
}

impl Connected<IncomingStream<'_, Acceptor>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Acceptor>) -> Self {
        let Io { stream: held, written, gate, .. } = stream.io();
        Connection {
            address: *stream.remote_addr(),
            stream: Arc::downgrade(held),
            written: written.clone(),
            pass: gate.pass(),
        }
    }
}

/// Notes that a connection's first request is there: from then on it may take its time.
pub async fn greet(request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(connection)) = request.extensions().get::<ConnectInfo<Connection>>()
        && let Some(pass) = connection.pass.upgrade()
    {
        pass.greeted.store(true, Ordering::Release);
    }
    next.run(request).await
}

/// The stream of a connection, shared with whoever may have to cut it, and a count of what went out on it.
#[derive(Debug)]
pub struct Io {
    stream: Arc<TcpStream>,
    written: Arc<AtomicU64>,
    gate: Gate,
    _descriptor: OwnedSemaphorePermit,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.stream.poll_read_ready(context) {
                Poll::Ready(ready) => ready.and_then(|()| self.gate.check())?,
                Poll::Pending => return self.gate.poll_silence(context),
            }
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map(|count| buffer.advance(count))),
            }
        }
    }
}

impl Io {
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
        match SockRef::from(&*self.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}
