//! Limits how many clients connect at once, first come first served. After a mass disconnect each client then connects
//! quickly in its turn, instead of all timing out.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use socketioxide::extract::SocketRef;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::send_backlog::socket_id;
use crate::error::{ApiError, ErrorCode};

/// How long a client holds a slot. A slower client continues without one.
const SLOT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client waits for a slot before it is told to try again later. Stock clients give up after 20 s. Admitting
/// a client just before that is wasted work, and in a long queue every admission would be.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// The slots of clients that are connecting.
#[derive(Debug, Clone)]
pub struct Admission {
    slots: Arc<Semaphore>,
    /// The slots in use, oldest first.
    held: Arc<Mutex<VecDeque<Expiry>>>,
}

/// When a slot expires, and which.
type Expiry = (Instant, Weak<HeldSlot>);

type HeldSlot = Mutex<Option<OwnedSemaphorePermit>>;

/// A slot. It is released once its client has connected, has gone, or has held it for [`SLOT_TIMEOUT`].
#[derive(Debug, Clone)]
pub struct Slot(Arc<HeldSlot>);

impl Slot {
    fn release(&self) {
        release(&self.0);
    }
}

fn release(held: &HeldSlot) {
    *held.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Admission {
    pub fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        Self { slots: Arc::new(Semaphore::new(slots)), held: Arc::default() }
    }

    /// Waits for a slot, at most [`QUEUE_TIMEOUT`].
    async fn acquire(&self) -> Option<Slot> {
        let deadline = Instant::now() + QUEUE_TIMEOUT;
        let mut waiting = pin!(self.slots.clone().acquire_owned());
        loop {
            let next_expiry = self.reclaim_expired();
            tokio::select! {
                biased;
                // The semaphore is never closed.
                slot = &mut waiting => return slot.ok().map(|slot| self.issue(slot)),
                () = sleep_until(next_expiry.unwrap_or(deadline).min(deadline)) => {}
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    fn issue(&self, slot: OwnedSemaphorePermit) -> Slot {
        let held = Arc::new(Mutex::new(Some(slot)));
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Released slots are dropped from the front, so the queue stays short.
        while all.front().is_some_and(|(_, first)| first.strong_count() == 0) {
            all.pop_front();
        }
        all.push_back((Instant::now() + SLOT_TIMEOUT, Arc::downgrade(&held)));
        Slot(held)
    }

    /// Reclaims expired slots, and returns when the next one expires.
    fn reclaim_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((ends, slot)) = held.front() {
            if *ends > now {
                return Some(*ends);
            }
            if let Some(slot) = slot.upgrade() {
                release(&slot);
            }
            held.pop_front();
        }
        None
    }
}

/// Middleware. A request that begins a session waits for a slot.
pub async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    if request.uri().query().and_then(socket_id).is_some() {
        return next.run(request).await;
    }
    let Some(slot) = admission.acquire().await else {
        return ApiError::new(ErrorCode::Unavailable, "too many clients arrive at once; try again")
            .into_response();
    };
    request.extensions_mut().insert(slot.clone());
    let response = next.run(request).await;
    if response.status().is_client_error() {
        slot.release();
    }
    response
}

/// Releases the slot of a socket that has connected.
pub fn release_admitted(socket: &SocketRef) {
    if let Some(slot) = socket.req_parts().extensions.get::<Slot>() {
        slot.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_holds_a_slot_for_a_limited_time() {
        let admission = Admission::new(1);
        let first = admission.acquire().await.expect("nobody is there");
        let begun = Instant::now();
        tokio::time::advance(SLOT_TIMEOUT / 2).await;
        let second = admission.acquire().await.expect("the first has held it for too long");
        assert_eq!(begun.elapsed(), SLOT_TIMEOUT);
        drop(first);
        second.release();
        let third = admission.acquire().await.expect("the second has released it");
        assert_eq!(begun.elapsed(), SLOT_TIMEOUT);
        drop(third);
        admission.acquire().await.expect("the third is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded() {
        let admission = Admission::new(1);
        let first = admission.acquire().await;
        tokio::time::advance(SLOT_TIMEOUT / 2).await;
        let (second, third) = tokio::join!(admission.acquire(), admission.acquire());
        assert!(first.is_some() && second.is_some() && third.is_none());
    }
}
