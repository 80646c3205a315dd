//! The body of a request: it must not come too slowly, and what has come counts against the node's budget.

use std::{
    io::{Error, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{outbox::Outbox, reading::Refusal};
use crate::budget::{Purpose, Reservation};

/// Over what time the rate of a body is measured.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// How much of a refused body is read and discarded, so that the client gets the answer.
pub const DISCARDED: u64 = 4 * 1024 * 1024;

/// Bodies up to this size count for nothing: nearly all are shorter.
pub const UNCOUNTED: u64 = 16 * 1024;

/// The body of a request on its way in.
pub struct RequestBody {
    body: Incoming,
    outbox: Arc<Outbox>,
    /// How many bytes have come, and how many of them before the present window.
    received: u64,
    before: u64,
    /// The end of the present window. Most bodies come with their heads and need none.
    window: Option<Pin<Box<Sleep>>>,
    reservation: Option<Reservation>,
    /// How many bytes came for which there was no place.
    discarded: u64,
}

impl RequestBody {
    pub fn new(body: Incoming, outbox: Arc<Outbox>) -> Self {
        Self { body, outbox, received: 0, before: 0, window: None, reservation: None, discarded: 0 }
    }

    /// Counts bytes that have come. `false` if the budget has no place for them.
    fn count(&mut self, bytes: u64) -> bool {
        self.received += bytes;
        match &mut self.reservation {
            Some(reservation) => reservation.grow(bytes).is_ok(),
            None if self.received <= UNCOUNTED => true,
            None => {
                let budget = self.outbox.supervisor().budget();
                self.reservation = budget.reserve(Purpose::Request, self.received).ok();
                self.reservation.is_some()
            }
        }
    }

    /// Ready when too little came in a window.
    fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let window = self.window.get_or_insert_with(|| Box::pin(sleep(RATE_WINDOW)));
        loop {
            ready!(window.as_mut().poll(context));
            if self.received - self.before < self.outbox.supervisor().min_rate() * RATE_WINDOW.as_secs() {
                return Poll::Ready(());
            }
            self.before = self.received;
            window.as_mut().set(sleep(RATE_WINDOW));
        }
    }

    fn refuse<T>(&self, refusal: Refusal) -> Poll<Option<Result<T, Error>>> {
        self.outbox.reading.refuse(refusal);
        let kind = match refusal {
            Refusal::SlowBody => ErrorKind::TimedOut,
            Refusal::OverBudget => ErrorKind::OutOfMemory,
        };
        Poll::Ready(Some(Err(kind.into())))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.poll_too_slow(context));
                    let is_discarded = self.discarded > 0;
                    return self.refuse(if is_discarded { Refusal::OverBudget } else { Refusal::SlowBody });
                }
            };
            let length =
                frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            let has_place = self.discarded == 0 && self.count(length as u64);
            if has_place {
                return Poll::Ready(frame.map(|frame| frame.map_err(Error::other)));
            }
            self.reservation = None;
            self.discarded += length as u64;
            if !matches!(frame, Some(Ok(_))) || self.discarded > DISCARDED {
                return self.refuse(Refusal::OverBudget);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
