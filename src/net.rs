//! Accepted connections: who may have one, how long each may take, what waits for it, and two ways to end it: orderly,
//! or aborted where the peer no longer reads.

mod acceptor;
mod addresses;
mod body;
mod certificate;
mod frame;
mod handshake;
mod outbox;
mod proxies;
mod reader;
mod reading;
mod serve;
mod stream;
mod supervisor;
mod tls;
mod websocket;
mod write_queue;

use std::{
    io,
    net::{IpAddr, Shutdown},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the fuzz targets and suites of this repository use besides.
#[doc(hidden)]
pub mod internals {
    pub use super::{
        frame::{is_close, split_first, text_frame},
        websocket::{WebSocket, upgrade},
    };
}

pub(crate) use self::{
    acceptor::Acceptor,
    addresses::network,
    body::{DISCARDED, UNCOUNTED},
    frame::text_frame,
    outbox::{Limits, Outbox, Push},
    supervisor::Supervisor,
    websocket::{WebSocket, upgrade},
};
pub use self::{
    acceptor::NetOptions,
    certificate::{Tls, TlsError},
    proxies::{InvalidNetwork, TrustedProxies},
};
use self::{
    reader::AdaptiveReader,
    reading::{Phase, ReadDeadline},
};

/// A handler's view of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    address: IpAddr,
    /// Whether that is a trusted proxy's own.
    is_proxy: bool,
    outbox: Weak<Outbox>,
}

impl Connection {
    /// The address of the client: of the peer, or where that is a trusted proxy, the address that it names in the request.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The client's address; `None` where all that is known is that a trusted proxy's client is behind it.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        (!self.is_proxy).then_some(self.address)
    }

    /// Whether this side still holds the connection open.
    pub fn is_open(&self) -> bool {
        self.outbox().is_some_and(|outbox| outbox.is_open())
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
            outbox.reading.end();
            // Wakes the task that reads.
            outbox.stream().end(Shutdown::Read);
        }
    }

    /// Aborts the connection at once, even if its writer is blocked. Unsent bytes are lost.
    pub fn abort(&self) {
        if let Some(outbox) = self.outbox() {
            outbox.abort();
        }
    }
}

/// The stream that hyper and the WebSocket library read and write.
#[derive(Debug)]
pub(crate) struct Io {
    outbox: Arc<Outbox>,
    deadline: ReadDeadline,
    reader: AdaptiveReader,
}

impl Drop for Io {
    fn drop(&mut self) {
        self.outbox.release();
    }
}

impl Io {
    /// What to do at the end of what the peer sends. It may still wait for an answer.
    fn poll_end(&mut self, phase: Phase, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_answered = phase != Phase::Answering && !self.outbox.is_writing_answer();
        if is_answered || self.deadline.poll_half_closed(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.outbox.wake_when_answered(context);
        Poll::Pending
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { outbox, deadline, reader } = &mut *self;
        let phase = outbox.reading.phase();
        if outbox.reading.take_new_request() {
            deadline.note_request();
        }
        if phase == Phase::Upgraded && outbox.holds_up_reading(context) {
            return Poll::Pending;
        }
        loop {
            match outbox.stream().poll_read_ready(context) {
                Poll::Ready(ready) => ready.and_then(|()| outbox.reading.check_open())?,
                Poll::Pending => return deadline.poll_silence(phase, context),
            }
            match reader.read(outbox.stream(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return self.poll_end(phase, context),
                outcome => {
                    deadline.note_read(phase);
                    return Poll::Ready(outcome.map(|_| ()));
                }
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outbox.poll_write(context, bytes.len(), |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.outbox.poll_write(context, offered, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
