//! What a connection has to pass before it is read from.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// Whether a connection is read from: until its first request is there only for so long.
#[derive(Debug)]
pub struct Gate {
    deadline: Option<Pin<Box<Sleep>>>,
}

/// What others have to say of a connection's gate.
#[derive(Debug, Default)]
pub struct Pass {
    /// Its first request is there.
    pub greeted: AtomicBool,
    /// Nothing is read any more.
    pub ended: AtomicBool,
}

impl Pass {
    /// Whether the connection was told to end.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionAborted`] where it was.
    pub fn check(&self) -> io::Result<()> {
        match self.ended.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

impl Gate {
    /// The gate of a connection whose first request has to be there within `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { deadline: Some(Box::pin(sleep(timeout))) }
    }

    /// Waits for something to read, where there is nothing yet: for ever, or until the first request takes too long.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where it does.
    pub fn poll_silence(&mut self, pass: &Pass, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if pass.greeted.load(Ordering::Acquire) {
            self.deadline = None;
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
            None => Poll::Pending,
        }
    }
}
