//! Drafts: validated events of publishers, not accepted yet.

use std::{
    fmt::{Display, Write},
    str::FromStr,
};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{EventKind, JobEvent, Owner, Seq};
use crate::{
    id::JobId,
    json::{self, Members, NotAnObject},
    timestamp::Timestamp,
};

/// A validated event of a publisher. It has no `seq` and no `timestamp` yet.
#[derive(Debug, Clone)]
pub struct Draft {
    job: JobId,
    kind: EventKind,
    owner: Owner,
    /// The event's JSON up to its owner, not closed: `{"event":…,"jobId":…,"status":…,…`.
    head: String,
}

/// Why an event is invalid: the field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidDraft {
    /// The field, as the publisher names it.
    pub field: &'static str,
    /// The problem.
    pub problem: String,
}

impl InvalidDraft {
    fn new(field: &'static str, problem: impl ToString) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl From<NotAnObject> for InvalidDraft {
    fn from(error: NotAnObject) -> Self {
        Self::new("event", error)
    }
}

/// Enough bytes for the rest of most events: one owner, a time and a number.
const REST_CAPACITY: usize = 128;

/// The longest `status` of an update, in characters.
const MAX_STATUS: usize = 64;

impl Draft {
    /// A change of the job. `status` has 1 to 64 characters of the publisher's choice.
    ///
    /// # Errors
    /// [`InvalidDraft`] for the status's length, or for data that nests too deep.
    pub fn update(
        job: JobId,
        status: &str,
        data: Option<&RawValue>,
        owner: Owner,
    ) -> Result<Self, InvalidDraft> {
        if !(1..=MAX_STATUS).contains(&status.chars().count()) {
            return Err(InvalidDraft::new("status", format!("must be 1 to {MAX_STATUS} characters long")));
        }
        Ok(Self::start(EventKind::Update, job, status, owner).with("data", &payload("data", data)?))
    }

    /// The progress of the job, from 0 to 100.
    ///
    /// # Errors
    /// [`InvalidDraft`] for a number that is not finite or out of range.
    pub fn progress(
        job: JobId,
        progress: f64,
        message: Option<&str>,
        owner: Owner,
    ) -> Result<Self, InvalidDraft> {
        Self::progress_with_digits(job, progress, &progress.to_string(), message, owner)
    }

    fn progress_with_digits(
        job: JobId,
        progress: f64,
        written: &str,
        message: Option<&str>,
        owner: Owner,
    ) -> Result<Self, InvalidDraft> {
        if !(0.0..=100.0).contains(&progress) {
            return Err(InvalidDraft::new("progress", format!("must be from 0 to 100, got {written:.32}")));
        }
        let draft = Self::start(EventKind::Progress, job, "in_progress", owner).with("progress", written);
        Ok(match message {
            Some(message) => draft.with("message", &quoted(message)),
            None => draft,
        })
    }

    /// The job succeeded.
    ///
    /// # Errors
    /// [`InvalidDraft`] for a result that nests too deep.
    pub fn completed(job: JobId, result: Option<&RawValue>, owner: Owner) -> Result<Self, InvalidDraft> {
        let result = payload("result", result)?;
        Ok(Self::start(EventKind::Completed, job, "completed", owner).with("result", &result))
    }

    /// The job failed.
    pub fn error(job: JobId, error: &str, owner: Owner) -> Self {
        Self::start(EventKind::Error, job, "failed", owner).with("error", &quoted(error))
    }

    /// Reads the members of an event of a known kind and job. Other members are ignored.
    ///
    /// # Errors
    /// [`InvalidDraft`] names the first field that is missing or wrong.
    pub fn read(kind: EventKind, job: JobId, members: &Members<'_>) -> Result<Self, InvalidDraft> {
        let owner = Owner { user: id(members, "userId")?, tenant: id(members, "tenantId")? };
        match kind {
            EventKind::Update => {
                let status = text(members, "status")?.ok_or_else(|| missing("status", "a string"))?;
                Self::update(job, &status, members.get("data"), owner)
            }
            EventKind::Progress => {
                let (value, written) = number(members, "progress")?;
                Self::progress_with_digits(job, value, written, text(members, "message")?.as_deref(), owner)
            }
            EventKind::Completed => Self::completed(job, members.get("result"), owner),
            EventKind::Error => Ok(Self::error(job, &error_text(members)?, owner)),
        }
    }

    /// Reads a whole event, which names its kind and job, as in batches and ingest streams.
    ///
    /// # Errors
    /// [`InvalidDraft`] names the first field that is missing or wrong.
    pub fn read_whole(members: &Members<'_>) -> Result<Self, InvalidDraft> {
        let name = text(members, "event")?.ok_or_else(|| missing("event", "a string"))?;
        let kind = EventKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = EventKind::ALL.map(EventKind::name).join(", ");
            InvalidDraft::new("event", format!("must be one of {names}"))
        })?;
        let job = id(members, "jobId")?.ok_or_else(|| missing("jobId", "a string"))?;
        Self::read(kind, job, members)
    }

    fn start(kind: EventKind, job: JobId, status: &str, owner: Owner) -> Self {
        let status = quoted(status);
        let head = format!(r#"{{"event":"{kind}","jobId":"{job}","status":{status}"#);
        Self { job, kind, owner, head }
    }

    fn with(mut self, name: &str, json: &str) -> Self {
        write!(self.head, r#","{name}":{json}"#).expect("a String takes all");
        self
    }

    /// Its job.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// Its kind.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The owner that it names.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The event's JSON up to its owner, not closed. [`Draft::accept`] writes the rest.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// A SHA-256 of the whole draft. It tells whether an idempotency key is used again with another body.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.head);
        for owner in
            [self.owner.user.as_ref().map(|id| id.as_str()), self.owner.tenant.as_ref().map(|id| id.as_str())]
        {
            // A zero byte is a safe separator: neither identifiers nor JSON have one.
            hash.update([0, u8::from(owner.is_some())]);
            hash.update(owner.unwrap_or_default());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The accepted event: the draft, then the owner as the store knows it, `timestamp` and `seq`.
    pub fn accept(&self, owner: &Owner, timestamp: Timestamp, seq: Seq) -> JobEvent {
        let mut json = String::with_capacity(self.head.len() + REST_CAPACITY);
        json.push_str(&self.head);
        if let Some(user) = &owner.user {
            write!(json, r#","userId":"{user}""#).expect("a String takes all");
        }
        if let Some(tenant) = &owner.tenant {
            write!(json, r#","tenantId":"{tenant}""#).expect("a String takes all");
        }
        write!(json, r#","timestamp":"{timestamp}","seq":{seq}}}"#).expect("a String takes all");
        let (kind, job, owner) = (self.kind, self.job.clone(), owner.clone());
        JobEvent::from_parts(kind, job, owner, timestamp, seq, json)
            .expect("a draft is written as valid JSON")
    }
}

fn payload(field: &'static str, value: Option<&RawValue>) -> Result<String, InvalidDraft> {
    value.map_or(Ok("null".to_owned()), |value| {
        json::compact(value).map_err(|error| InvalidDraft::new(field, error))
    })
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string can be written")
}

fn missing(field: &'static str, wanted: &str) -> InvalidDraft {
    InvalidDraft::new(field, format!("is required: {wanted}"))
}

fn wrong_kind(field: &'static str, wanted: &str, value: &RawValue) -> InvalidDraft {
    InvalidDraft::new(field, format!("must be {wanted}, got {}", json::kind(value)))
}

fn text(members: &Members<'_>, field: &'static str) -> Result<Option<String>, InvalidDraft> {
    members.text(field).map_err(|problem| InvalidDraft::new(field, problem))
}

fn number<'a>(members: &Members<'a>, field: &'static str) -> Result<(f64, &'a str), InvalidDraft> {
    let value = members.get(field).ok_or_else(|| missing(field, "a number from 0 to 100"))?;
    match json::kind(value) {
        "a number" => {
            let number = value.get().parse().map_err(|_| wrong_kind(field, "a number", value))?;
            Ok((number, value.get()))
        }
        _ => Err(wrong_kind(field, "a number", value)),
    }
}

/// An identifier, or a number that becomes its decimal string.
fn id<T: FromStr<Err: Display>>(
    members: &Members<'_>,
    field: &'static str,
) -> Result<Option<T>, InvalidDraft> {
    let written = members.text_or_number(field).map_err(|problem| InvalidDraft::new(field, problem))?;
    written.map(|text| text.parse()).transpose().map_err(|error| InvalidDraft::new(field, error))
}

fn error_text(members: &Members<'_>) -> Result<String, InvalidDraft> {
    let wanted = "a string, or an object with a message";
    let value = members.get("error").ok_or_else(|| missing("error", wanted))?;
    let message = match json::kind(value) {
        "a string" => text(members, "error")?,
        "an object" => {
            text(&Members::of(value)?, "message").map_err(|inner| InvalidDraft { field: "error", ..inner })?
        }
        _ => None,
    };
    message.ok_or_else(|| wrong_kind("error", wanted, value))
}

/// A publisher's name for a call: 1 to 128 visible ASCII characters. Repeating the call under it has no further effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// The longest idempotency key, in characters.
const MAX_KEY: usize = 128;

impl IdempotencyKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of an event in a batch: its `id`, a string or a number.
    ///
    /// # Errors
    /// [`InvalidDraft`] for the field `id`.
    pub fn read(members: &Members<'_>) -> Result<Option<Self>, InvalidDraft> {
        id(members, "id")
    }
}

impl FromStr for IdempotencyKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        match (1..=MAX_KEY).contains(&text.len()) && visible {
            true => Ok(Self(text.to_owned())),
            false => Err("must be 1 to 128 visible ASCII characters"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str) -> Result<Draft, InvalidDraft> {
        Draft::read_whole(&Members::read(json.as_bytes()).unwrap())
    }

    fn field(json: &str) -> &'static str {
        read(json).expect_err(json).field
    }

    #[test]
    fn writes_each_kind() {
        let at = Timestamp::from_millis(1_700_000_000_123).unwrap();
        let owner = Owner { user: Some("u".parse().unwrap()), tenant: None };
        let cases = [
            (
                r#"{"event":"job:update","jobId":7,"status":"queued","data":{"n": 9007199254740993},"seq":1,"timestamp":"x"}"#,
                r#"{"event":"job:update","jobId":"7","status":"queued","data":{"n":9007199254740993}"#,
            ),
            (
                r#"{"event":"job:progress","jobId":"7","progress":42.50,"message":"a\"b"}"#,
                r#"{"event":"job:progress","jobId":"7","status":"in_progress","progress":42.50,"message":"a\"b""#,
            ),
            (
                r#"{"event":"job:completed","jobId":"7"}"#,
                r#"{"event":"job:completed","jobId":"7","status":"completed","result":null"#,
            ),
            (
                r#"{"event":"job:error","jobId":"7","error":{"message":"boom","code":1}}"#,
                r#"{"event":"job:error","jobId":"7","status":"failed","error":"boom""#,
            ),
        ];
        for (input, head) in cases {
            let event = read(input).unwrap().accept(&owner, at, 9);
            let tail = r#","userId":"u","timestamp":"2023-11-14T22:13:20.123Z","seq":9}"#;
            assert_eq!(event.json().get(), format!("{head}{tail}"));
        }
    }

    #[test]
    fn names_the_wrong_field() {
        assert_eq!(field("{}"), "event");
        assert_eq!(field(r#"{"event":"job:done","jobId":"1"}"#), "event");
        assert_eq!(field(r#"{"event":"job:update","status":"x"}"#), "jobId");
        assert_eq!(field(r#"{"event":"job:update","jobId":"a/b","status":"x"}"#), "jobId");
        assert_eq!(field(r#"{"event":"job:update","jobId":true,"status":"x"}"#), "jobId");
        assert_eq!(field(r#"{"event":"job:update","jobId":"1"}"#), "status");
        assert_eq!(field(r#"{"event":"job:update","jobId":"1","status":""}"#), "status");
        assert_eq!(field(r#"{"event":"job:update","jobId":"1","status":"x","userId":"a b"}"#), "userId");
        for progress in ["-1", "100.5", "1e400", "-1e400", "\"50\"", "[]", "null"] {
            assert_eq!(
                field(&format!(r#"{{"event":"job:progress","jobId":"1","progress":{progress}}}"#)),
                "progress"
            );
        }
        for error in ["1", "[]", "{}", "null", r#"{"message":1}"#] {
            assert_eq!(field(&format!(r#"{{"event":"job:error","jobId":"1","error":{error}}}"#)), "error");
        }
        assert_eq!(field(r#"{"event":"job:error","jobId":"1","error":"\ud800"}"#), "error");
    }

    #[test]
    fn numbers_become_decimal_ids() {
        for (written, id) in [("7", "7"), ("12345678901234567890", "12345678901234567890"), ("1e3", "1000")] {
            let draft = read(&format!(r#"{{"event":"job:completed","jobId":{written}}}"#)).unwrap();
            assert_eq!(draft.job().as_str(), id);
        }
        assert_eq!(field(r#"{"event":"job:completed","jobId":1e300}"#), "jobId");
    }

    /// What passes through unread must not make an accepted event unreadable.
    #[test]
    fn strange_payloads_pass_through_to_the_letter() {
        let deep = format!("{}{}", "[".repeat(json::MAX_DEPTH), "]".repeat(json::MAX_DEPTH));
        let strange = [
            r#""\ud800""#,
            r#"{"\udfff":{"__proto__":null}}"#,
            "1e400",
            "-0",
            "123456789012345678901234567890.000",
            r#""\u0000\u2028""#,
            &deep,
        ];
        for data in strange {
            let draft = read(&format!(r#"{{"event":"job:completed","jobId":"j","result":{data}}}"#)).unwrap();
            let event = draft.accept(&Owner::default(), Timestamp::default(), 1);
            assert!(event.json().get().contains(&format!(r#""result":{data},"#)), "{data}");
        }
    }

    #[test]
    fn keys_are_visible_ascii() {
        assert!("k-1!~".parse::<IdempotencyKey>().is_ok());
        for wrong in ["", "a b", "é", "a\n", &"x".repeat(129)] {
            assert!(wrong.parse::<IdempotencyKey>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(status in ".{1,64}", progress in 0.0f64..=100.0, seq in 1u64..1 << 52) {
            let at = Timestamp::now();
            let job: JobId = "j".parse().unwrap();
            let update = Draft::update(job.clone(), &status, None, Owner::default()).unwrap();
            let value: serde_json::Value =
                serde_json::from_str(update.accept(&Owner::default(), at, seq).json().get()).unwrap();
            prop_assert_eq!(value["status"].as_str(), Some(&*status));
            let draft = Draft::progress(job, progress, None, Owner::default()).unwrap();
            let event = draft.accept(&Owner::default(), at, seq);
            let members = Members::of(event.json()).unwrap();
            prop_assert_eq!(number(&members, "progress").unwrap().0, progress);
            prop_assert_eq!(event.seq(), seq);
        }

        #[test]
        fn no_input_panics(json in ".*") {
            if let Ok(members) = Members::read(json.as_bytes()) {
                let _ = Draft::read_whole(&members);
            }
        }
    }
}
