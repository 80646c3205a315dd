//! What clients and publishers send: batches, packets and requests.

use std::borrow::Cow;

use jobcast::{
    ApiError, CloseReason, Draft, ErrorCode, IdempotencyKey, JobResume, Position, Room, Subscription,
    internals::{
        Members,
        http::read_batch,
        socketio::{Gate, MAX_REFUSAL, Request},
    },
};
use serde_json::{json, value::RawValue};
use socketioxide_core::{
    packet::PacketData,
    parser::{Parse, ParseConfig, ParserState},
};
use socketioxide_parser_common::CommonParser;

use super::{assert_short, text};

/// How large an event of a batch may be here.
const MAX_PAYLOAD: usize = 256;

/// How many events a batch may have.
const MAX_EVENTS: usize = 1000;

/// What becomes of an item.
type Item = Result<(String, Option<String>), ErrorCode>;

fn read(body: &[u8], is_lines: bool) -> Result<Vec<Item>, ErrorCode> {
    let item = |item: Result<(Draft, Option<IdempotencyKey>), ApiError>| match item {
        Ok((draft, key)) => Ok((draft.fingerprint(), key.map(|key| key.as_str().to_owned()))),
        Err(error) => {
            assert_short(&error.message);
            Err(error.code)
        }
    };
    match read_batch(body, is_lines, MAX_PAYLOAD) {
        Ok(items) => Ok(items.into_iter().map(item).collect()),
        Err(error) => {
            assert_short(&error.message);
            Err(error.code)
        }
    }
}

/// What becomes of an event that comes alone.
fn alone(event: &[u8]) -> Item {
    if event.len() > MAX_PAYLOAD {
        return Err(ErrorCode::TooLarge);
    }
    let members = Members::read(event).map_err(|_| ErrorCode::InvalidPayload)?;
    let draft = Draft::read_whole(&members).map_err(|_| ErrorCode::InvalidPayload)?;
    let key = IdempotencyKey::read(&members).map_err(|_| ErrorCode::InvalidPayload)?;
    Ok((draft.fingerprint(), key.map(|key| key.as_str().to_owned())))
}

/// The items of an array are what each of them is alone, in order.
pub fn array_batches(bytes: &[u8]) {
    let expected = match serde_json::from_slice::<Vec<&RawValue>>(bytes) {
        Ok(items) if items.len() > MAX_EVENTS => Err(ErrorCode::TooLarge),
        Ok(items) => Ok(items.iter().map(|item| alone(item.get().as_bytes())).collect()),
        Err(_) if serde_json::from_slice::<&RawValue>(bytes).is_ok() => Err(ErrorCode::InvalidPayload),
        Err(_) => Err(ErrorCode::Malformed),
    };
    match (read(bytes, false), expected) {
        // It reads no further than the first item too many.
        (Err(ErrorCode::TooLarge), Err(ErrorCode::Malformed)) => {}
        (got, expected) => assert_eq!(got, expected),
    }
}

/// Lines are what each of them is alone, in order; a bad one spoils no other.
pub fn line_batches(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let expected = match lines.len() > MAX_EVENTS {
        true => Err(ErrorCode::TooLarge),
        false => Ok(lines.into_iter().map(alone).collect()),
    };
    assert_eq!(read(bytes, true), expected);
}

/// What passes the gate is what socketioxide can read, in which it finds the event's name, and which would pass again as it is.
pub fn packets(bytes: &[u8]) {
    let Some(packets) = text(bytes) else { return };
    let mut gate = Gate::new(1_000_000);
    for packet in packets.split('\x1e') {
        let passed = match gate.text(packet) {
            Ok(Some(passed)) => passed.into_owned(),
            Ok(None) => continue,
            Err(reason) => return assert!(matches!(reason, CloseReason::Malformed), "{reason:?}"),
        };
        assert!(passed.len() <= packet.len() + MAX_REFUSAL, "{} bytes for {}", passed.len(), packet.len());
        let again = Gate::new(1_000_000).text(&passed).map(|passed| passed.map(Cow::into_owned));
        assert!(again.is_ok_and(|again| again.as_ref() == Some(&passed)), "{passed:?}");
        if let Some(message) = passed.strip_prefix('4') {
            assert_readable(message);
        }
    }
}

/// Otherwise it would end the connection without a word.
fn assert_readable(message: &str) {
    let namespace = message.get(1..).unwrap_or_default();
    if !(namespace.starts_with("/jobs,") || namespace == "/jobs") {
        return;
    }
    let read =
        CommonParser.decode_str(&ParseConfig::default(), &ParserState::default(), message.to_owned().into());
    let packet = read.unwrap_or_else(|error| panic!("socketioxide cannot read {message:?}: {error}"));
    let Some(event) = message.strip_prefix("2/jobs,") else { return };
    let PacketData::Event(value, _) = packet.inner else { panic!("an event is an event: {message}") };
    CommonParser.read_event(&value).expect("socketioxide finds the event's name");
    let arguments = event.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let is_refusal = arguments.starts_with("[\"jobcast:refused\",");
    if let (Err(error), false) = (Request::read(arguments), is_refusal) {
        assert!(!error.message.starts_with("malformed"), "{message}: {}", error.message);
    }
}

/// A request is the same when it is written in its shortest form, and an error says what is wrong.
pub fn requests(bytes: &[u8]) {
    let Some(arguments) = text(bytes) else { return };
    let request = match Request::read(arguments) {
        Ok(request) => request,
        Err(error) => {
            let codes = [ErrorCode::InvalidPayload, ErrorCode::UnknownEvent, ErrorCode::RateLimited];
            assert!(codes.contains(&error.code), "{error:?}");
            return;
        }
    };
    if let Request::History { limit, .. } = &request {
        assert_ne!(*limit, Some(0));
    }
    assert_eq!(Request::read(&written(&request)).as_ref(), Ok(&request));
}

fn written(request: &Request) -> String {
    match request {
        Request::Unsubscribe(room) => json!(["unsubscribe:jobs", of_room(room)]).to_string(),
        Request::History { job, limit, since } => {
            json!(["history:jobs", { "jobId": job, "limit": limit, "since": since }]).to_string()
        }
        Request::Refresh(token) => {
            assert_eq!(format!("{token:?}"), "Token", "a token is not shown");
            json!(["auth:refresh", { "token": token.0 }]).to_string()
        }
        Request::Subscribe(subscription) => {
            let in_room = |room: Room, position: &Option<Position>| {
                let mut payload = of_room(&room);
                payload["since"] = json!(position);
                payload
            };
            let payload = match subscription {
                Subscription::Job(job, resume) => match resume {
                    None => json!({ "jobId": job }),
                    Some(JobResume::Since(seq)) => json!({ "jobId": job, "since": seq }),
                    Some(JobResume::Newest(count)) => json!({ "jobId": job, "replay": count }),
                },
                Subscription::User(user, position) => in_room(Room::User(user.clone()), position),
                Subscription::Tenant(tenant, position) => in_room(Room::Tenant(tenant.clone()), position),
                Subscription::AllJobs(position) => in_room(Room::AllJobs, position),
            };
            json!(["subscribe:jobs", payload]).to_string()
        }
    }
}

fn of_room(room: &Room) -> serde_json::Value {
    match room {
        Room::Job(job) => json!({ "jobId": job }),
        Room::User(user) => json!({ "userId": user }),
        Room::Tenant(tenant) => json!({ "tenantId": tenant }),
        Room::AllJobs => json!({}),
    }
}
