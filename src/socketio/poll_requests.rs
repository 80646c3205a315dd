//! The requests of long-polling sessions, before socketioxide sees them: who may make them, what they bring, and what
//! they are answered.

use std::sync::{Arc, PoisonError};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    SocketIoOptions,
    admission::Slot,
    gate::{Closing, Gate},
    polling::{PollingSession, PollingSessions, address, socket_id},
};
use crate::{
    budget::Purpose,
    error::{ApiError, ErrorCode},
    gateway::{CloseReason, Gateway},
};

/// The separator of packets in one body.
const SEPARATOR: char = '\x1e';

/// The Engine.IO packet that ends a session, and the one that says nothing.
const CLOSE: &str = "1";
const NOOP: &str = "6";

#[derive(Clone)]
pub struct PollState {
    pub sessions: PollingSessions,
    pub gateway: Gateway,
    pub options: SocketIoOptions,
}

/// Middleware for all Engine.IO requests.
pub async fn judge_requests(State(state): State<PollState>, request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    match socket_id(query) {
        None if query.split('&').any(|parameter| parameter == "transport=polling") => {
            begin(&state, request, next).await
        }
        None => next.run(request).await,
        Some(_) => match state.sessions.of(&request) {
            Some(session) => go_on(&state, session, request, next).await,
            None => unknown_session(),
        },
    }
}

/// Engine.IO's answer to a session that there is not.
fn unknown_session() -> Response {
    bad_request(r#"{"code":"1","message":"Session ID unknown"}"#)
}

/// Engine.IO's answer to a request that it does not understand.
pub fn bad_request(json: &'static str) -> Response {
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// Engine.IO's answer to what does not fit.
pub const MISMATCH: &str = r#"{"code":"3","message":"Bad request"}"#;

/// Begins a session, and learns its id from the answer.
async fn begin(state: &PollState, mut request: Request, next: Next) -> Response {
    let gate = Gate::new(state.options.messages_per_second);
    let slot = request.extensions().get::<Slot>().cloned();
    let session = PollingSession::new(address(&request), gate, state.gateway.budget(), slot);
    let session = Arc::new(session);
    request.extensions_mut().insert(session.clone());
    let (parts, body) = next.run(request).await.into_parts();
    // It is small, and in memory.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    if let Some(id) = greeted_id(&body).filter(|_| parts.status == StatusCode::OK) {
        state.sessions.insert(id.to_owned(), &session);
    }
    Response::from_parts(parts, Body::from(body))
}

/// The id in Engine.IO's greeting: `0{"sid":"…",…}`.
fn greeted_id(body: &[u8]) -> Option<&str> {
    let rest = std::str::from_utf8(body).ok()?.strip_prefix("0{\"sid\":\"")?;
    rest.split_once('"').map(|(id, _)| id)
}

async fn go_on(
    state: &PollState,
    session: Arc<PollingSession>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(slot) = &session.slot {
        slot.follow_up();
    }
    match request.method() {
        &Method::POST => post(state, &session, request, next).await,
        _ => {
            request.extensions_mut().insert(session.clone());
            poll(&session, request, next).await
        }
    }
}

/// Answers a poll, and counts that. Dropping socketioxide's answer while it waits loses nothing: it takes packets and
/// returns in one step.
async fn poll(session: &PollingSession, request: Request, next: Next) -> Response {
    let response = tokio::select! {
        biased;
        () = session.aborted.cancelled() => return aborted(session),
        response = next.run(request) => response,
        () = session.poll_must_end() => return NOOP.into_response(),
    };
    if response.status() != StatusCode::OK {
        return response;
    }
    let (parts, body) = response.into_parts();
    // Engine.IO bounds the size of a response, and holds it in memory already.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let packets = 1 + body.iter().filter(|byte| **byte == SEPARATOR as u8).count();
    session.note_sent(body.len() as u64, packets as u64);
    Response::from_parts(parts, Body::from(body))
}

fn aborted(session: &PollingSession) -> Response {
    if session.is_refused() {
        return unknown_session();
    }
    let message = "the client took nothing for too long; connect again";
    ApiError::new(ErrorCode::Unavailable, message).into_response()
}

/// Hands on what a POST brings, as far as the gate lets it.
async fn post(state: &PollState, session: &PollingSession, request: Request, next: Next) -> Response {
    if session.aborted.is_cancelled() {
        return aborted(session);
    }
    let (mut parts, body) = request.into_parts();
    let max = state.options.max_payload;
    // Not refused where the gateway holds too much: it may be the answer to a ping.
    let bytes = body.size_hint().upper().unwrap_or(max as u64).min(max as u64);
    let _held = state.gateway.budget().charge(Purpose::Request, bytes);
    let judged = match to_bytes(body, max).await {
        Ok(body) => judge(session, &body, max),
        Err(_) => Err(CloseReason::TooLarge),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    let hand_on = |packets: String| next.run(Request::from_parts(parts, Body::from(packets)));
    match judged {
        Ok(packets) if packets.is_empty() => "ok".into_response(),
        Ok(packets) => hand_on(packets).await,
        Err(reason) => {
            Closing { gateway: state.gateway.clone(), connection: None }.close(reason);
            hand_on(CLOSE.to_owned()).await;
            session.abort(reason);
            match reason {
                CloseReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
                _ => bad_request(MISMATCH),
            }
        }
    }
}

/// The packets of a body that pass the gate, as a body of at most `max` bytes.
fn judge(session: &PollingSession, body: &Bytes, max: usize) -> Result<String, CloseReason> {
    let body = std::str::from_utf8(body).map_err(|_| CloseReason::Malformed)?;
    let mut gate = session.gate.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut spare, mut passed) = (max.saturating_sub(body.len()), String::new());
    for packet in body.split(SEPARATOR) {
        if packet.starts_with('b') {
            gate.binary()?;
            continue;
        }
        let Some(judged) = gate.text(packet)? else { continue };
        // A client that sends too much that is wrong misses some answers.
        let Some(left) = spare.checked_sub(judged.len().saturating_sub(packet.len())) else { continue };
        spare = left;
        if !passed.is_empty() {
            passed.push(SEPARATOR);
        }
        passed.push_str(&judged);
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn session() -> PollingSession {
        PollingSession::new(None, Gate::new(1000), &Budget::new(1), None)
    }

    #[test]
    fn packets_are_judged_one_by_one() {
        let judge = |body: &'static str, max| judge(&session(), &Bytes::from_static(body.as_bytes()), max);
        assert_eq!(judge("3\x1e40/jobs,", 1000), Ok("3\x1e40/jobs,".to_owned()));
        assert_eq!(
            judge("451-/jobs,[\"x\"]\x1ebAQID\x1e3", 20),
            Ok("3".to_owned()),
            "no place for the refusal"
        );
        assert!(judge("42/jobs,[1]\x1e3", 1000).is_ok_and(|packets| packets.contains("refused")));
        for body in ["", "\x1e\x1e", "bAQID", "nonsense"] {
            assert_eq!(judge(body, 1000), Err(CloseReason::Malformed), "{body:?}");
        }
    }

    #[test]
    fn the_id_is_in_the_greeting() {
        assert_eq!(greeted_id(br#"0{"sid":"abc","upgrades":[]}"#), Some("abc"));
        assert_eq!(greeted_id(b"1"), None);
    }
}
