//! Who is let in next: only so many clients are on their way into the namespace at once, first come first served.
//! When all come back together each is through quickly when its turn comes, instead of all being late.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::Response,
};
use socketioxide::extract::SocketRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{PATH, upgrades::socket_id};
use crate::connection::Connection;

/// The places of those who are on their way in.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Semaphore>);

/// The place of a client that began with long-polling: it goes with the socket at the latest. That of a WebSocket
/// goes with its connection.
#[derive(Debug, Clone)]
struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Admission {
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))))
    }
}

/// Makes a request that begins a session wait for a place.
pub async fn wait(State(Admission(places)): State<Admission>, mut request: Request, next: Next) -> Response {
    let begins =
        request.uri().path().starts_with(PATH) && request.uri().query().and_then(socket_id).is_none();
    // The semaphore is never closed.
    let Some(place) = (if begins { places.acquire_owned().await.ok() } else { None }) else {
        return next.run(request).await;
    };
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let connection = request.extensions().get::<ConnectInfo<Connection>>().filter(|_| upgrade);
    let Some(ConnectInfo(connection)) = connection.cloned() else {
        request.extensions_mut().insert(Place(Arc::new(Mutex::new(Some(place)))));
        return next.run(request).await;
    };
    connection.keep_place(place);
    let response = next.run(request).await;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        connection.yield_place();
    }
    response
}

/// A socket is in: the next one's turn.
pub fn through(socket: &SocketRef) {
    let began = &socket.req_parts().extensions;
    if let Some(Place(place)) = began.get::<Place>() {
        place.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    if let Some(ConnectInfo(connection)) = began.get::<ConnectInfo<Connection>>() {
        connection.yield_place();
    }
}
