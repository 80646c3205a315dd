//! What a connection has to pass before it is read from.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};

/// Whether a connection is read from: until its first request is there only for so long, and until it is told to
/// end.
#[derive(Debug)]
pub struct Gate {
    deadline: Option<Pin<Box<Sleep>>>,
    pass: Arc<Pass>,
}

/// What others know of a connection's gate.
#[derive(Debug, Default)]
pub struct Pass {
    /// Its first request is there.
    pub greeted: AtomicBool,
    /// Nothing is read any more.
    pub ended: AtomicBool,
    /// What it takes up of something scarce, no longer than it lives.
    pub place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Gate {
    /// The gate of a connection whose first request has to be there within `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { deadline: Some(Box::pin(sleep(timeout))), pass: Arc::default() }
    }

    /// The pass of this connection.
    pub fn pass(&self) -> Weak<Pass> {
        Arc::downgrade(&self.pass)
    }

    /// Whether the connection may be read from; registers for the time when it may not any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where the first request takes too long, [`io::ErrorKind::ConnectionAborted`]
    /// where the connection was told to end.
    pub fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.pass.ended.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(deadline) = &mut self.deadline else { return Ok(()) };
        if self.pass.greeted.load(Ordering::Acquire) {
            self.deadline = None;
            return Ok(());
        }
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}
