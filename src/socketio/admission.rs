//! Who is let in next: only so many clients are on their way into the namespace at once, first come first served.
//! When all come back together each is through quickly when its turn comes, instead of all being late.

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

use super::lines::socket_id;
use crate::refusal::{Code, Refusal};

/// For how long a place is lent: whoever takes longer goes on without, and keeps nobody waiting.
const LEASE: Duration = Duration::from_secs(5);

/// How long a client waits for a place before it is asked to come back later. Stock clients give up after 20 s: one
/// that is let in just before would be work for nothing, and in a queue that long all of them would be.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places of those who are on their way in.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    /// Who has had a place since when, the first one first.
    leases: Arc<Mutex<VecDeque<Lease>>>,
}

/// When a place is taken back, and which.
type Lease = (Instant, Weak<Lent>);

type Lent = Mutex<Option<OwnedSemaphorePermit>>;

/// A place, given back when its client is in, has gone, or has had it for too long.
#[derive(Debug, Clone)]
pub struct Place(Arc<Lent>);

impl Place {
    fn give_back(&self) {
        give_back(&self.0);
    }
}

fn give_back(lent: &Lent) {
    *lent.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Admission {
    pub fn new(places: usize) -> Self {
        let places = places.clamp(1, Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), leases: Arc::default() }
    }

    /// Waits for a place, at most [`PATIENCE`].
    async fn place(&self) -> Option<Place> {
        let deadline = Instant::now() + PATIENCE;
        let mut waiting = pin!(self.places.clone().acquire_owned());
        loop {
            let overdue = self.take_overdue();
            tokio::select! {
                biased;
                // The semaphore is never closed.
                place = &mut waiting => return place.ok().map(|place| self.lend(place)),
                () = sleep_until(overdue.unwrap_or(deadline).min(deadline)) => {}
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    fn lend(&self, place: OwnedSemaphorePermit) -> Place {
        let lent = Arc::new(Mutex::new(Some(place)));
        let mut all = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        // They are few at the front, so that there are never many in all.
        while all.front().is_some_and(|(_, first)| first.strong_count() == 0) {
            all.pop_front();
        }
        all.push_back((Instant::now() + LEASE, Arc::downgrade(&lent)));
        Place(lent)
    }

    /// Takes places back that have been lent for too long, and says when the next one will have been.
    fn take_overdue(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut lent = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((ends, place)) = lent.front() {
            if *ends > now {
                return Some(*ends);
            }
            if let Some(place) = place.upgrade() {
                give_back(&place);
            }
            lent.pop_front();
        }
        None
    }
}

/// Makes a request that begins a session wait for a place.
pub async fn wait(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    if request.uri().query().and_then(socket_id).is_some() {
        return next.run(request).await;
    }
    let Some(place) = admission.place().await else {
        return Refusal::new(Code::Unavailable, "too many clients arrive at once; try again").into_response();
    };
    request.extensions_mut().insert(place.clone());
    let response = next.run(request).await;
    if response.status().is_client_error() {
        place.give_back();
    }
    response
}

/// A socket is in: the next one's turn.
pub fn through(socket: &SocketRef) {
    if let Some(place) = socket.req_parts().extensions.get::<Place>() {
        place.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_dawdles_keeps_a_place_for_a_while_only() {
        let admission = Admission::new(1);
        let first = admission.place().await.expect("nobody is there");
        let begun = Instant::now();
        tokio::time::advance(LEASE / 2).await;
        let second = admission.place().await.expect("the first has had it for too long");
        assert_eq!(begun.elapsed(), LEASE);
        drop(first);
        second.give_back();
        let third = admission.place().await.expect("the second has given it back");
        assert_eq!(begun.elapsed(), LEASE);
        drop(third);
        admission.place().await.expect("the third is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_too_long() {
        let admission = Admission::new(1);
        let first = admission.place().await;
        tokio::time::advance(LEASE / 2).await;
        let (second, third) = tokio::join!(admission.place(), admission.place());
        assert!(first.is_some() && second.is_some() && third.is_none());
    }
}
