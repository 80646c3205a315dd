//! Batches of events: what a body holds, and what became of each of its events.

use std::fmt;

use serde::{
    Serialize,
    de::{Deserializer, Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::extract::malformed;
use crate::{
    error::{ApiError, ErrorCode},
    event::{Draft, IdempotencyKey},
    gateway::{Publication, Published},
    json::{self, Members, NotAnObject},
};

/// How many events one batch may have.
const MAX_EVENTS: usize = 1000;

/// What became of the events of a batch, in their order.
#[derive(Serialize)]
pub struct Results {
    results: Vec<ItemResult>,
    /// How many were refused.
    failed: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ItemResult {
    Accepted(Published),
    Refused { index: usize, error: ItemError },
}

#[derive(Serialize)]
struct ItemError {
    code: &'static str,
    message: String,
}

impl FromIterator<Result<Published, ApiError>> for Results {
    fn from_iter<I: IntoIterator<Item = Result<Published, ApiError>>>(outcomes: I) -> Self {
        let mut failed = 0;
        let result = |(index, outcome)| match outcome {
            Ok(published) => ItemResult::Accepted(published),
            Err(ApiError { code, message }) => {
                failed += 1;
                ItemResult::Refused { index, error: ItemError { code: code.as_str(), message } }
            }
        };
        let results = outcomes.into_iter().enumerate().map(result).collect();
        Self { results, failed }
    }
}

/// The events of a batch, an array or lines, each of them as far as it is valid and has at most `max_payload` bytes.
/// Reads no further than the first event too many.
///
/// # Errors
/// The whole batch is refused: it is malformed, no array, or has too many events.
pub fn read(
    body: &[u8],
    is_lines: bool,
    max_payload: usize,
) -> Result<Vec<Result<Publication, ApiError>>, ApiError> {
    let within = |size: usize| match size > max_payload {
        true => Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("the event has {size} bytes, and one may have {max_payload} bytes (server.max_payload)"),
        )),
        false => Ok(()),
    };
    if is_lines {
        let line = |line: &[u8]| within(line.len()).and_then(|()| publication(Members::read(line)));
        return Ok(lines(body)?.into_iter().map(line).collect());
    }
    let item = |item: &RawValue| within(item.get().len()).and_then(|()| publication(Members::of(item)));
    Ok(array(body)?.into_iter().map(item).collect())
}

fn publication(members: Result<Members<'_>, NotAnObject>) -> Result<Publication, ApiError> {
    let members = members.map_err(|error| ApiError::invalid(format!("the event: {error}")))?;
    Ok((Draft::read_whole(&members)?, IdempotencyKey::read(&members)?))
}

fn too_many() -> ApiError {
    ApiError::new(
        ErrorCode::TooLarge,
        format!("a batch may have at most {MAX_EVENTS} events, this one has more"),
    )
}

fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, ApiError> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.take(MAX_EVENTS + 1).collect();
    if lines.len() > MAX_EVENTS { Err(too_many()) } else { Ok(lines) }
}

fn array(bytes: &[u8]) -> Result<Vec<&RawValue>, ApiError> {
    let malformed = |error| malformed(format!("malformed JSON: {error}"));
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        let value: &RawValue = serde_json::from_slice(bytes).map_err(malformed)?;
        let message = format!("the body must be an array of events, got {}", json::kind(value));
        return Err(ApiError::invalid(message));
    }
    let mut items = Vec::new();
    let mut body = serde_json::Deserializer::from_slice(bytes);
    let read = body.deserialize_seq(Items(&mut items)).and_then(|()| body.end());
    match read {
        _ if items.len() > MAX_EVENTS => Err(too_many()),
        Err(error) => Err(malformed(error)),
        Ok(()) => Ok(items),
    }
}

/// Reads the items of an array, and stops at the first one too many.
struct Items<'a, 'de>(&'a mut Vec<&'de RawValue>);

impl<'de> Visitor<'de> for Items<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(item) = array.next_element()? {
            self.0.push(item);
            if self.0.len() > MAX_EVENTS {
                return Err(A::Error::custom("too many events"));
            }
        }
        Ok(())
    }
}
