//! Who may speak: only so many connections are in their handshake at once, first come first served. In a storm of
//! reconnects each is through quickly when its turn comes, instead of all being late together.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

/// The places for handshakes.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl Admission {
    /// So many places, each for no longer than `timeout`.
    pub fn new(places: usize, timeout: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))), timeout }
    }

    /// The gate of a new connection.
    pub fn gate(&self) -> Gate {
        let turn = self.places.clone().acquire_owned();
        Gate { entry: Entry::Waiting(Box::pin(turn)), pass: Arc::default(), timeout: self.timeout }
    }
}

/// What a connection has to pass before it is read from.
pub struct Gate {
    entry: Entry,
    pass: Arc<Pass>,
    timeout: Duration,
}

enum Entry {
    /// For a place.
    Waiting(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
    /// In the handshake, until this deadline.
    Handshaking(Pin<Box<Sleep>>),
    /// Through.
    Open,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("pass", &self.pass).finish_non_exhaustive()
    }
}

impl Gate {
    /// The pass of this connection, for whoever knows when its handshake is over.
    pub fn pass(&self) -> Weak<Pass> {
        Arc::downgrade(&self.pass)
    }

    /// Whether the connection may be read from.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where its handshake takes too long, [`io::ErrorKind::ConnectionAborted`] where
    /// it was told to end.
    pub fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.entry {
                Entry::Waiting(turn) => {
                    // The semaphore is never closed.
                    let Ok(place) = ready!(turn.as_mut().poll(context)) else { return Poll::Pending };
                    *self.pass.place() = Some(place);
                    self.entry = Entry::Handshaking(Box::pin(tokio::time::sleep(self.timeout)));
                }
                Entry::Handshaking(_) if self.pass.place().is_none() => self.entry = Entry::Open,
                Entry::Handshaking(deadline) => {
                    return match deadline.as_mut().poll(context) {
                        Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                        Poll::Pending => Poll::Ready(Ok(())),
                    };
                }
                Entry::Open if self.pass.ended.load(Ordering::Acquire) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Entry::Open => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// A connection's place among those in their handshake, while it has one.
#[derive(Debug, Default)]
pub struct Pass {
    place: Mutex<Option<OwnedSemaphorePermit>>,
    ended: AtomicBool,
}

impl Pass {
    fn place(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handshake is over: somebody else's turn.
    pub fn settle(&self) {
        self.place().take();
    }

    /// Nothing is read any more.
    pub fn end(&self) {
        self.settle();
        self.ended.store(true, Ordering::Release);
    }
}
