//! The deadline of a connection's first request.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// Ends a connection whose first request does not arrive in time.
#[derive(Debug)]
pub struct FirstRequestDeadline {
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Flags that other tasks set for the reader.
#[derive(Debug, Default)]
pub struct ReadState {
    /// The first request has arrived.
    pub first_request_seen: AtomicBool,
    /// Nothing more is read.
    pub read_ended: AtomicBool,
}

impl ReadState {
    /// Fails once reading has ended.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionAborted`] if it has.
    pub fn check_open(&self) -> io::Result<()> {
        match self.read_ended.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

impl FirstRequestDeadline {
    /// The first request must arrive within `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { deadline: Some(Box::pin(sleep(timeout))) }
    }

    /// Pending while the peer may stay silent. Resolves when the first request is overdue.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it is.
    pub fn poll_expired(
        &mut self,
        read_state: &ReadState,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if read_state.first_request_seen.load(Ordering::Acquire) {
            self.deadline = None;
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
            None => Poll::Pending,
        }
    }
}
