//! Accepted connections: who is at the other end, how long it may be silent, and ways to end one: in order, or cutting it
//! where its peer does not read any more.

mod acceptor;
mod boundary;
mod frame;
mod gate;
mod pipe;
mod reader;
mod runs;
mod websocket;

use std::{
    io,
    net::{IpAddr, Shutdown, SocketAddr},
    pin::Pin,
    sync::{Arc, Weak, atomic::Ordering},
    task::{Context, Poll},
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
    sync::OwnedSemaphorePermit,
};

pub use self::acceptor::{AcceptOptions, Acceptor};
pub(crate) use self::{
    frame::text_frame,
    pipe::{Most, Pipe, Queued},
    websocket::{WebSocket, upgrade},
};
use self::{gate::Gate, reader::Reader};

/// What handlers may know of a connection, and do to it.
#[derive(Debug, Clone)]
pub struct Connection {
    address: SocketAddr,
    pipe: Weak<Pipe>,
}

impl Connection {
    /// The address of the peer.
    pub fn address(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Whether it is still held open on this side.
    pub fn is_open(&self) -> bool {
        self.pipe.strong_count() > 0
    }

    /// What its bytes go through, while it is open.
    pub(crate) fn pipe(&self) -> Option<Arc<Pipe>> {
        self.pipe.upgrade()
    }

    /// How many bytes the system has taken for the peer so far: what is beyond them still waits in this process.
    /// `None` once the connection is closed.
    pub fn written(&self) -> Option<u64> {
        self.pipe().map(|pipe| pipe.written())
    }

    /// Ends a connection that has left HTTP, in order: nothing is read from it any more, and what is on its way to
    /// the peer is still sent.
    pub fn end(&self) {
        if let Some(pipe) = self.pipe() {
            pipe.pass.ended.store(true, Ordering::Release);
            // Wakes whoever reads.
            let _already_gone = SockRef::from(pipe.stream()).shutdown(Shutdown::Read);
        }
    }

    /// Cuts the connection at once, whatever its writer is waiting for. What was not sent yet is lost.
    pub fn cut(&self) {
        if let Some(pipe) = self.pipe() {
            pipe.cut();
        }
    }
}

impl Connected<IncomingStream<'_, Acceptor>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Acceptor>) -> Self {
        Connection { address: *stream.remote_addr(), pipe: Arc::downgrade(&stream.io().pipe) }
    }
}

/// Notes that a connection's first request is there: from then on it may take its time.
pub async fn greet(request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(connection)) = request.extensions().get::<ConnectInfo<Connection>>()
        && let Some(pipe) = connection.pipe()
    {
        pipe.pass.greeted.store(true, Ordering::Release);
    }
    next.run(request).await
}

/// A connection as a library reads and writes it.
#[derive(Debug)]
pub struct Io {
    pipe: Arc<Pipe>,
    gate: Gate,
    reader: Reader,
    _descriptor: OwnedSemaphorePermit,
}

impl Drop for Io {
    fn drop(&mut self) {
        self.pipe.release();
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { pipe, gate, reader, .. } = &mut *self;
        loop {
            match pipe.stream().poll_read_ready(context) {
                Poll::Ready(ready) => ready.and_then(|()| pipe.pass.check())?,
                Poll::Pending => return gate.poll_silence(&pipe.pass, context),
            }
            match reader.read(pipe.stream(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe.poll_write(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pipe.poll_write(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.pipe.shut())
    }
}
