//! Parses the arguments of client events into requests to the core.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde_json::{json, value::RawValue};

use super::NAMESPACE;
use crate::{
    error::{ApiError, ErrorCode},
    event::Seq,
    gateway::{JobResume, Subscription},
    id::JobId,
    json::{self, Members},
    position::Position,
    room::Room,
};

/// A token, which is never written into a log.
#[derive(PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// A client's request.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `subscribe:jobs`
    Subscribe(Subscription),
    /// `unsubscribe:jobs`
    Unsubscribe(Room),
    /// `history:jobs`
    History {
        /// The job.
        job: JobId,
        /// The most events.
        limit: Option<usize>,
        /// Only events with a larger number.
        since: Option<Seq>,
    },
    /// `auth:refresh`: a new token, in place of the one before.
    Refresh(Token),
}

impl Request {
    /// Reads the arguments of an event as they crossed the wire: `["name", payload?, …]`.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownEvent`], or [`ErrorCode::InvalidPayload`] with the field that is wrong.
    pub fn read(arguments: &str) -> Result<Self, ApiError> {
        let arguments: Vec<&RawValue> = serde_json::from_str(arguments)
            .map_err(|error| ApiError::invalid(format!("malformed: {error}")))?;
        let mut arguments = arguments.into_iter();
        let name: String = arguments
            .next()
            .and_then(|name| serde_json::from_str(name.get()).ok())
            .ok_or_else(|| ApiError::invalid("the event has no name"))?;
        let payload = arguments.next().filter(|payload| payload.get() != "null");
        match name.as_str() {
            REFUSED => Err(refused(payload, arguments.next())),
            "subscribe:jobs" => read_members(payload, &SUBSCRIPTION)?
                .map_or(Ok(Subscription::AllJobs(None)), subscription)
                .map(Request::Subscribe),
            "unsubscribe:jobs" => {
                // The payload of a subscription is accepted here, and its other members are ignored.
                let members = read_members(payload, &SUBSCRIPTION)?;
                members.map_or(Ok(Room::AllJobs), |members| room(&members)).map(Request::Unsubscribe)
            }
            "history:jobs" => {
                let members = read_members(payload, &HISTORY)?;
                history(&members.ok_or_else(|| ApiError::invalid("jobId: is required"))?)
            }
            "auth:refresh" => {
                let members = read_members(payload, &REFRESH)?;
                let token = members.map(|members| members.text("token")).transpose();
                let token =
                    token.map_err(|problem| ApiError::invalid(format!("token: {problem}")))?.flatten();
                token
                    .map(|token| Request::Refresh(Token(token)))
                    .ok_or_else(|| ApiError::invalid("token: is required"))
            }
            other => {
                let known = "subscribe:jobs, unsubscribe:jobs, history:jobs, auth:refresh";
                let shown: String = other.chars().take(64).collect();
                Err(ApiError::new(
                    ErrorCode::UnknownEvent,
                    format!("there is no event {shown:?}; known are {known}"),
                ))
            }
        }
    }
}

/// The event that stands for a message which was refused before socketioxide saw it: a code and a sentence.
const REFUSED: &str = "jobcast:refused";

/// The packet that has a message answered by an error. `id` is that of the acknowledgement, or empty.
pub fn refusal_packet(id: &str, error: &ApiError) -> String {
    let arguments = json!([REFUSED, error.code.as_str(), error.message]);
    format!("42{NAMESPACE},{id}{arguments}")
}

/// Whether a message stands for one that exceeded the rate.
pub fn exceeds_rate(arguments: &str) -> bool {
    let rest = arguments.strip_prefix("[\"").and_then(|rest| rest.strip_prefix(REFUSED));
    let code = ErrorCode::RateLimited.as_str();
    rest.and_then(|rest| rest.strip_prefix("\",\"")).is_some_and(|rest| rest.starts_with(code))
}

fn refused(code: Option<&RawValue>, message: Option<&RawValue>) -> ApiError {
    let text = |value: Option<&RawValue>| {
        value.and_then(|value| serde_json::from_str::<String>(value.get()).ok()).unwrap_or_default()
    };
    let codes = [ErrorCode::RateLimited, ErrorCode::UnknownEvent];
    let code = codes.into_iter().find(|known| known.as_str() == text(code));
    ApiError::new(code.unwrap_or(ErrorCode::InvalidPayload), text(message))
}

/// The members of payloads.
const SUBSCRIPTION: [&str; 5] = ["jobId", "userId", "tenantId", "since", "replay"];
const HISTORY: [&str; 3] = ["jobId", "limit", "since"];
const REFRESH: [&str; 1] = ["token"];

/// The ids that pick a room.
const IDS: [&str; 3] = ["jobId", "userId", "tenantId"];

fn read_members<'a>(payload: Option<&'a RawValue>, known: &[&str]) -> Result<Option<Members<'a>>, ApiError> {
    let Some(payload) = payload else { return Ok(None) };
    let members = Members::of(payload).map_err(|error| ApiError::invalid(format!("the payload {error}")))?;
    if let Some(name) = members.unknown(known) {
        let known = known.join(", ");
        return Err(ApiError::invalid(format!("{name}: is not known here; a payload may have {known}")));
    }
    Ok(Some(members))
}

/// An identifier, written as text or as a number that stands for its decimal string, as in job events.
fn id<T: FromStr<Err: Display>>(members: &Members<'_>, name: &str) -> Result<Option<T>, ApiError> {
    members.parsed(name).map_err(ApiError::invalid)
}

fn room(members: &Members<'_>) -> Result<Room, ApiError> {
    if let Some(job) = id(members, "jobId")? {
        return Ok(Room::Job(job));
    }
    if let Some(user) = id(members, "userId")? {
        return Ok(Room::User(user));
    }
    if let Some(tenant) = id(members, "tenantId")? {
        return Ok(Room::Tenant(tenant));
    }
    // A page whose id is not loaded yet must not get everybody's jobs.
    match members.names().find(|name| IDS.contains(name)) {
        Some(name) => Err(ApiError::invalid(format!(
            "{name}: is null; give an id, or leave {} out to mean all jobs",
            IDS.join(", ")
        ))),
        None => Ok(Room::AllJobs),
    }
}

fn subscription(members: Members<'_>) -> Result<Subscription, ApiError> {
    Ok(match room(&members)? {
        Room::Job(job) => Subscription::Job(job, job_resume(&members)?),
        Room::User(user) => Subscription::User(user, position(&members)?),
        Room::Tenant(tenant) => Subscription::Tenant(tenant, position(&members)?),
        Room::AllJobs => Subscription::AllJobs(position(&members)?),
    })
}

fn job_resume(members: &Members<'_>) -> Result<Option<JobResume>, ApiError> {
    let since = whole(members, "since")?.map(JobResume::Since);
    let newest =
        whole(members, "replay")?.map(|count| JobResume::Newest(count.try_into().unwrap_or(usize::MAX)));
    Ok(since.or(newest))
}

/// A position in a shared room, or a time: as text, or in Unix milliseconds.
fn position(members: &Members<'_>) -> Result<Option<Position>, ApiError> {
    // `replay` counts events of one job: with other rooms it has no meaning.
    if members.get("replay").is_some() {
        return Err(ApiError::invalid("replay: goes with a jobId only; use since with a position or a time"));
    }
    let Some(since) = members.get("since") else { return Ok(None) };
    // Digits alone are a time, whether as text or as a number.
    let text = match json::kind(since) {
        "a string" | "a number" => members.text_or_number("since").ok().flatten(),
        _ => None,
    };
    let text = text.unwrap_or_else(|| since.get().to_owned());
    text.parse().map(Some).map_err(|error| ApiError::invalid(format!("since: {error}")))
}

/// A whole number from 0 on.
fn whole(members: &Members<'_>, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let number = value.get();
    match json::kind(value) {
        "a number" if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(Some(number.parse().unwrap_or(u64::MAX)))
        }
        "a number" => {
            Err(ApiError::invalid(format!("{name}: must be an integer of at least 0, got {number:.32}")))
        }
        other => Err(ApiError::invalid(format!("{name}: must be an integer, got {other}"))),
    }
}

fn history(members: &Members<'_>) -> Result<Request, ApiError> {
    let job = id(members, "jobId")?.ok_or_else(|| ApiError::invalid("jobId: is required"))?;
    let limit = whole(members, "limit")?.map(|limit| limit.try_into().unwrap_or(usize::MAX));
    if limit == Some(0) {
        return Err(ApiError::invalid("limit: must be an integer of at least 1, got 0"));
    }
    Ok(Request::History { job, limit, since: whole(members, "since")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(id: &str) -> JobId {
        id.parse().unwrap()
    }

    #[test]
    fn picks_the_room_and_the_resume() {
        use Request::{Subscribe, Unsubscribe};
        let cases = [
            (r#"["subscribe:jobs"]"#, Subscribe(Subscription::AllJobs(None))),
            (r#"["subscribe:jobs",null]"#, Subscribe(Subscription::AllJobs(None))),
            (r#"["subscribe:jobs",{}]"#, Subscribe(Subscription::AllJobs(None))),
            (
                r#"["subscribe:jobs",{"jobId":null,"userId":"u"}]"#,
                Subscribe(Subscription::User("u".parse().unwrap(), None)),
            ),
            (r#"["subscribe:jobs",{"jobId":1e3}]"#, Subscribe(Subscription::Job(job("1000"), None))),
            (r#"["subscribe:jobs",{"jobId":7,"userId":"u"}]"#, Subscribe(Subscription::Job(job("7"), None))),
            (
                r#"["subscribe:jobs",{"jobId":"j","since":5,"replay":2}]"#,
                Subscribe(Subscription::Job(job("j"), Some(JobResume::Since(5)))),
            ),
            (
                r#"["subscribe:jobs",{"jobId":"j","replay":2},"more"]"#,
                Subscribe(Subscription::Job(job("j"), Some(JobResume::Newest(2)))),
            ),
            (
                r#"["subscribe:jobs",{"userId":"u","since":1700000000123}]"#,
                Subscribe(Subscription::User(
                    "u".parse().unwrap(),
                    Some(Position::of_entry(1_700_000_000_123, 0)),
                )),
            ),
            (
                r#"["subscribe:jobs",{"since":"2023-11-14T22:13:20.123Z"}]"#,
                Subscribe(Subscription::AllJobs(Some(Position::of_entry(1_700_000_000_123, 0)))),
            ),
            (
                r#"["subscribe:jobs",{"tenantId":"t","since":"1700000000123-7"}]"#,
                Subscribe(Subscription::Tenant(
                    "t".parse().unwrap(),
                    Some(Position::of_entry(1_700_000_000_123, 7)),
                )),
            ),
            (r#"["unsubscribe:jobs",{"tenantId":"t"}]"#, Unsubscribe(Room::Tenant("t".parse().unwrap()))),
            (
                r#"["history:jobs",{"jobId":"j","limit":3,"since":9}]"#,
                Request::History { job: job("j"), limit: Some(3), since: Some(9) },
            ),
        ];
        for (arguments, request) in cases {
            assert_eq!(Request::read(arguments), Ok(request), "{arguments}");
        }
    }

    #[test]
    fn refuses_what_is_wrong() {
        let cases = [
            r#"["subscribe:jobs",[]]"#,
            r#"["subscribe:jobs","x"]"#,
            r#"["subscribe:jobs",7]"#,
            r#"["subscribe:jobs",{"jobId":""}]"#,
            r#"["subscribe:jobs",{"jobId":null}]"#,
            r#"["subscribe:jobs",{"jobid":"j"}]"#,
            r#"["unsubscribe:jobs",{"userId":null,"tenantId":null}]"#,
            r#"["subscribe:jobs",{"since":true}]"#,
            r#"["subscribe:jobs",{"userId":"u","since":{}}]"#,
            r#"["subscribe:jobs",{"userId":"u","since":-1}]"#,
            r#"["subscribe:jobs",{"jobId":"a b"}]"#,
            r#"["subscribe:jobs",{"jobId":{}}]"#,
            r#"["subscribe:jobs",{"jobId":"j","since":-1}]"#,
            r#"["subscribe:jobs",{"jobId":"j","since":1.5}]"#,
            r#"["subscribe:jobs",{"jobId":"j","since":"5"}]"#,
            r#"["subscribe:jobs",{"jobId":"j","replay":true}]"#,
            r#"["subscribe:jobs",{"since":"yesterday"}]"#,
            r#"["subscribe:jobs",{"replay":3}]"#,
            r#"["history:jobs"]"#,
            r#"["history:jobs",{"jobId":"j","limit":0}]"#,
            r#"["history:jobs",{"jobId":"j","limit":"3"}]"#,
            r#"[7]"#,
        ];
        for arguments in cases {
            assert_eq!(Request::read(arguments).unwrap_err().code, ErrorCode::InvalidPayload, "{arguments}");
        }
        assert_eq!(Request::read(r#"["subscribe:job",{}]"#).unwrap_err().code, ErrorCode::UnknownEvent);
    }

    proptest! {
        #[test]
        fn no_arguments_panic(arguments in ".*") {
            let _ = Request::read(&arguments);
        }
    }
}
