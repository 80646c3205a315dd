//! Requests become types of the core here, or problems.

use std::{collections::HashMap, fmt::Display, str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::{
    event::IdempotencyKey,
    json::{Members, NotAnObject},
    refusal::{Code, Refusal},
};

/// The one parameter of the path, parsed.
pub struct InPath<T>(pub T);

impl<T, S> FromRequestParts<S> for InPath<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let found = RawPathParams::from_request_parts(parts, state).await;
        let found = found.map_err(|error| Refusal::invalid(error.body_text()))?;
        let (name, text) = found.iter().next().unwrap_or_default();
        text.parse().map(Self).map_err(|error| Refusal::invalid(format!("{name} (in the path): {error}")))
    }
}

/// The parameters of the query. Those that nobody asks for are ignored.
pub struct Params(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<HashMap<String, String>>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Refusal::invalid(error.body_text())),
        }
    }
}

impl Params {
    /// A parameter that may be absent.
    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let parse =
            |text: &String| text.parse().map_err(|error| Refusal::invalid(format!("{name}: {error}")));
        self.0.get(name).map(parse).transpose()
    }

    /// `limit`, at least 1. One beyond what a number can hold is as good as the largest.
    pub fn limit(&self) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.0.get("limit") else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().unwrap_or(usize::MAX) {
            limit if digits && limit > 0 => Ok(Some(limit)),
            _ => Err(Refusal::invalid(format!("limit: must be an integer of at least 1, got {text:.32?}"))),
        }
    }
}

/// Whether a request's body is of a type, by its `Content-Type`; absent counts as JSON.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(value.split(';').next().unwrap_or(value).trim())
}

fn is_json(media_type: Option<&str>) -> bool {
    media_type.is_none_or(|media_type| {
        let media_type = media_type.to_ascii_lowercase();
        media_type == "application/json"
            || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    })
}

/// How much of a body that is too large is read on, so that its sender gets to see the answer.
const DRAIN: usize = 4 * 1024 * 1024;

/// Reads a body of at most `limit` bytes that is not empty.
pub async fn body(request: Request, limit: usize) -> Result<Bytes, Refusal> {
    let mut body = request.into_body().into_data_stream();
    // Most bodies come as one piece, which stays as it is.
    let (mut first, mut read, mut length) = (Bytes::new(), BytesMut::new(), 0usize);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| malformed(format!("the body was cut off: {error}")))?;
        length += chunk.len();
        if length == chunk.len() {
            first = chunk;
        } else if length <= limit {
            read.extend_from_slice(&std::mem::take(&mut first));
            read.extend_from_slice(&chunk);
        } else if length > limit.saturating_add(DRAIN) {
            break;
        }
    }
    if length > limit {
        let message = format!("the body is larger than the {limit} bytes that are allowed");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    match (length, read.is_empty()) {
        (0, _) => Err(malformed("the body is empty; JSON is expected")),
        (_, true) => Ok(first),
        (_, false) => Ok(read.freeze()),
    }
}

/// A JSON body within `max_payload`.
pub struct JsonBody(Bytes);

impl FromRequest<Arc<super::HttpState>> for JsonBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<super::HttpState>) -> Result<Self, Refusal> {
        if !is_json(media_type(request.headers())) {
            return Err(unsupported("application/json"));
        }
        body(request, state.options.max_payload).await.map(Self)
    }
}

impl JsonBody {
    /// The members of the object that the body is.
    pub fn members(&self) -> Result<Members<'_>, Refusal> {
        Members::read(&self.0).map_err(|error| match error {
            NotAnObject::Malformed(_) => malformed(error.to_string()),
            NotAnObject::Other(_) => Refusal::invalid(format!("the body {error}")),
        })
    }
}

/// A body of several events: whether one a line, and its bytes.
pub struct BatchBody {
    /// Whether it is `application/x-ndjson`.
    pub lines: bool,
    /// The body.
    pub bytes: Bytes,
}

impl FromRequest<Arc<super::HttpState>> for BatchBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<super::HttpState>) -> Result<Self, Refusal> {
        let media_type = media_type(request.headers());
        let lines = media_type.is_some_and(|media_type| {
            media_type.eq_ignore_ascii_case("application/x-ndjson")
                || media_type.eq_ignore_ascii_case("application/jsonl")
        });
        if !lines && !is_json(media_type) {
            return Err(unsupported("application/json or application/x-ndjson"));
        }
        Ok(Self { lines, bytes: body(request, state.options.max_batch).await? })
    }
}

/// A refusal of what is no JSON at all.
pub fn malformed(problem: impl Into<String>) -> Refusal {
    Refusal::new(Code::Malformed, problem)
}

fn unsupported(wanted: &str) -> Refusal {
    Refusal::new(Code::UnsupportedType, format!("the Content-Type must be {wanted}"))
}

/// The `Idempotency-Key` of a publish, if it has one.
pub struct OptionalKey(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for OptionalKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key =
            value.to_str().map_err(|_| "must be 1 to 128 visible ASCII characters").and_then(str::parse);
        key.map(|key| Self(Some(key)))
            .map_err(|problem| Refusal::invalid(format!("Idempotency-Key: {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    async fn read(pieces: &[&'static str], limit: usize) -> Result<Bytes, Code> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece)).collect();
        let request = Request::new(Body::from_stream(stream::iter(pieces)));
        body(request, limit).await.map_err(|refusal| refusal.code)
    }

    #[tokio::test]
    async fn bodies_are_read_whole_whatever_their_pieces() {
        for pieces in [&["abcdef"][..], &["", "abcdef"], &["ab", "cd", "", "ef"]] {
            assert_eq!(read(pieces, 6).await.unwrap(), "abcdef", "{pieces:?}");
            assert_eq!(read(pieces, 5).await, Err(Code::TooLarge), "{pieces:?}");
        }
        assert_eq!(read(&[], 6).await, Err(Code::Malformed));
        assert_eq!(read(&["", ""], 6).await, Err(Code::Malformed));
    }
}
