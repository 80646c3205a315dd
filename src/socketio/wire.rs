//! The JSON of acknowledgements and exceptions.

use serde::Serialize;

use crate::{
    access::Pass,
    error::ApiError,
    gateway::{Answer, Joined, Latest},
    id::JobId,
    position::Position,
    room::Room,
    timestamp::Timestamp,
};

/// The acknowledgement of `subscribe:jobs`.
#[derive(Debug, Serialize)]
pub struct Subscribed<'a> {
    success: bool,
    room: &'a Room,
    message: String,
    latest: &'a Latest,
    #[serde(skip_serializing_if = "is_false")]
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaying: Option<usize>,
}

impl<'a> Subscribed<'a> {
    pub fn new(joined: &'a Joined<'_>) -> Self {
        Self {
            success: true,
            room: &joined.room,
            message: format!("subscribed to {}", joined.room),
            latest: &joined.latest,
            more: joined.latest.has_more(),
            position: joined.position(),
            recovered: joined.resumed.map(|resumed| resumed.recovered),
            replaying: joined.resumed.map(|resumed| resumed.replaying),
        }
    }
}

/// The acknowledgement of `unsubscribe:jobs`.
#[derive(Debug, Serialize)]
pub struct Unsubscribed<'a> {
    success: bool,
    room: &'a Room,
    message: String,
}

impl<'a> Unsubscribed<'a> {
    pub fn new(room: &'a Room) -> Self {
        Self { success: true, room, message: format!("unsubscribed from {room}") }
    }
}

/// The acknowledgement of `history:jobs`.
#[derive(Debug, Serialize)]
pub struct History<'a> {
    success: bool,
    #[serde(rename = "jobId")]
    job: &'a JobId,
    events: &'a Answer,
    #[serde(skip_serializing_if = "is_false")]
    more: bool,
}

impl<'a> History<'a> {
    pub fn new(job: &'a JobId, events: &'a Answer) -> Self {
        Self { success: true, job, events, more: events.more }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

/// The acknowledgement of a request that failed.
#[derive(Debug, Serialize)]
pub struct ErrorAck<'a> {
    success: bool,
    error: Failure<'a>,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    code: &'static str,
    message: &'a str,
}

impl<'a> ErrorAck<'a> {
    pub fn new(refusal: &'a ApiError) -> Self {
        let message = refusal.message.as_str();
        Self { success: false, error: Failure { code: refusal.code.as_str(), message }, message }
    }
}

/// The acknowledgement of `auth:refresh`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refreshed {
    success: bool,
    expires_at: Option<Timestamp>,
}

impl Refreshed {
    pub fn new(pass: &Pass) -> Self {
        Self { success: true, expires_at: pass.expires_at }
    }
}
