//! Who is let in next: only so many clients are on their way into the namespace at once, first come first served.
//! When all come back together each is through quickly when its turn comes, instead of all being late.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::HeaderValue,
    middleware::Next,
    response::{IntoResponse, Response},
};
use socketioxide::extract::SocketRef;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{PATH, lines::socket_id};
use crate::{
    refusal::{Code, Refusal},
    tasks::Tasks,
};

/// For how long a place is lent: whoever takes longer goes on without, and keeps nobody waiting.
const LEASE: Duration = Duration::from_secs(5);

/// How long a client waits for a place before it is asked to come back later. Stock clients give up after 20 s: one
/// that is let in just before would be work for nothing, and in a queue that long all of them would be.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places of those who are on their way in.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    tasks: Tasks,
}

/// Cancelled once the client that has a place is in.
#[derive(Debug, Clone)]
struct Place(CancellationToken);

impl Admission {
    pub fn new(places: usize, tasks: &Tasks) -> Self {
        let places = places.clamp(1, Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), tasks: tasks.clone() }
    }
}

/// Makes a request that begins a session wait for a place.
pub async fn wait(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let begins =
        request.uri().path().starts_with(PATH) && request.uri().query().and_then(socket_id).is_none();
    if !begins {
        return next.run(request).await;
    }
    // The semaphore is never closed.
    let Ok(Ok(place)) = tokio::time::timeout(PATIENCE, admission.places.acquire_owned()).await else {
        return Refusal::new(Code::Unavailable, "too many clients arrive at once; try again").into_response();
    };
    detach(&mut request);
    let through = CancellationToken::new();
    request.extensions_mut().insert(Place(through.clone()));
    let over = through.clone();
    admission.tasks.spawn_until_stop("socketio-arrivals", async move {
        let _in_time = tokio::time::timeout(LEASE, over.cancelled()).await;
        drop(place);
    });
    let response = next.run(request).await;
    if response.status().is_client_error() {
        through.cancel();
    }
    response
}

/// Copies the head of a request, which the socket keeps for as long as it lives: as it came it holds on to the whole
/// buffer that it was read into.
fn detach(request: &mut Request) {
    let copied = |value: &HeaderValue| {
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        copy.set_sensitive(value.is_sensitive());
        Some(copy)
    };
    let headers = request.headers();
    *request.headers_mut() =
        headers.iter().filter_map(|(name, value)| Some((name.clone(), copied(value)?))).collect();
    if let Ok(uri) = request.uri().to_string().parse() {
        *request.uri_mut() = uri;
    }
}

/// A socket is in: the next one's turn.
pub fn through(socket: &SocketRef) {
    if let Some(Place(through)) = socket.req_parts().extensions.get::<Place>() {
        through.cancel();
    }
}
