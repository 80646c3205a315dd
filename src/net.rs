//! Accepted connections: the peer's address, the deadline of the first request, and two ways to end one: orderly, or
//! aborted where the peer no longer reads.

mod acceptor;
mod first_request_deadline;
mod frame;
mod frame_scanner;
mod outbox;
mod reader;
mod websocket;
mod write_queue;

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
use self::{first_request_deadline::FirstRequestDeadline, reader::AdaptiveReader};
pub(crate) use self::{
    frame::text_frame,
    outbox::{Limits, Outbox, Push},
    websocket::{WebSocket, upgrade},
};

/// A handler's view of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    address: SocketAddr,
    outbox: Weak<Outbox>,
}

impl Connection {
    /// The address of the peer.
    pub fn address(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Whether this side still holds the connection open.
    pub fn is_open(&self) -> bool {
        self.outbox.strong_count() > 0
    }

    /// The outbox, while the connection is open.
    pub(crate) fn outbox(&self) -> Option<Arc<Outbox>> {
        self.outbox.upgrade()
    }

    /// The number of bytes handed to the kernel so far. Everything beyond them still waits in this process. `None` once
    /// the connection is closed.
    pub fn written(&self) -> Option<u64> {
        self.outbox().map(|outbox| outbox.written())
    }

    /// Ends an upgraded connection in order: stops reading, and still sends what was queued.
    pub fn end_reading(&self) {
        if let Some(outbox) = self.outbox() {
            outbox.read_state.read_ended.store(true, Ordering::Release);
            // Wakes the task that reads.
            let _already_gone = SockRef::from(outbox.stream()).shutdown(Shutdown::Read);
        }
    }

    /// Aborts the connection at once, even if its writer is blocked. Unsent bytes are lost.
    pub fn abort(&self) {
        if let Some(outbox) = self.outbox() {
            outbox.abort();
        }
    }
}

impl Connected<IncomingStream<'_, Acceptor>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Acceptor>) -> Self {
        Connection { address: *stream.remote_addr(), outbox: Arc::downgrade(&stream.io().outbox) }
    }
}

/// Middleware. Lifts the deadline once the first request has arrived.
pub async fn note_first_request(request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(connection)) = request.extensions().get::<ConnectInfo<Connection>>()
        && let Some(outbox) = connection.outbox()
    {
        outbox.read_state.first_request_seen.store(true, Ordering::Release);
    }
    next.run(request).await
}

/// The stream that hyper and the WebSocket library read and write.
#[derive(Debug)]
pub struct Io {
    outbox: Arc<Outbox>,
    deadline: FirstRequestDeadline,
    reader: AdaptiveReader,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Io {
    fn drop(&mut self) {
        self.outbox.release();
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { outbox, deadline, reader, .. } = &mut *self;
        loop {
            match outbox.stream().poll_read_ready(context) {
                Poll::Ready(ready) => ready.and_then(|()| outbox.read_state.check_open())?,
                Poll::Pending => return deadline.poll_expired(&outbox.read_state, context),
            }
            match reader.read(outbox.stream(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outbox.poll_write(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.outbox.poll_write(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.outbox.shutdown_write())
    }
}
