//! Extractors: from requests to types of the core.

use std::{collections::HashMap, fmt::Display, str::FromStr, sync::Arc};

use axum::{
    body::HttpBody,
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::{
    budget::{Budget, Purpose, Reservation},
    error::{ApiError, ErrorCode},
    event::{IdempotencyKey, Seq},
    json::{Members, NotAnObject},
    net::{DISCARDED, UNCOUNTED},
};

/// The only parameter of the path, parsed.
pub struct PathParam<T>(pub T);

impl<T, S> FromRequestParts<S> for PathParam<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = RawPathParams::from_request_parts(parts, state).await;
        let found = found.map_err(|error| ApiError::invalid(error.body_text()))?;
        let (name, text) = found.iter().next().unwrap_or_default();
        text.parse().map(Self).map_err(|error| ApiError::invalid(format!("{name} (in the path): {error}")))
    }
}

/// The parameters of the query. Unknown ones are ignored.
pub struct QueryParams(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for QueryParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<HashMap<String, String>>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(ApiError::invalid(error.body_text())),
        }
    }
}

impl QueryParams {
    /// The text of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that may be absent.
    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parse =
            |text: &String| text.parse().map_err(|error| ApiError::invalid(format!("{name}: {error}")));
        self.0.get(name).map(parse).transpose()
    }

    /// `since` as the number of an event.
    pub fn since_seq(&self) -> Result<Option<Seq>, ApiError> {
        self.0.get("since").map(|text| seq("since", text)).transpose()
    }

    /// `limit`, at least 1. A limit that does not fit is taken as the largest.
    pub fn limit(&self) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.0.get("limit") else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().unwrap_or(usize::MAX) {
            limit if digits && limit > 0 => Ok(Some(limit)),
            _ => Err(ApiError::invalid(format!("limit: must be an integer of at least 1, got {text:.32?}"))),
        }
    }
}

/// The number of an event, from a parameter or header of that name.
pub fn seq(name: &str, text: &str) -> Result<Seq, ApiError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        ApiError::invalid(format!("{name}: must be the seq of an event, or 0, got {text:.32?}"))
    })
}

/// The media type of a request's body, by its `Content-Type`. `None` counts as JSON.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// Refuses a compressed body: unpacked it could be of any size.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let message =
                "a body with a Content-Encoding is not read; send it uncompressed, without that header";
            Err(ApiError::new(ErrorCode::UnsupportedType, message))
        }
        _ => Ok(()),
    }
}

fn is_json(media_type: Option<&str>) -> bool {
    media_type.is_none_or(|media_type| {
        let media_type = media_type.to_ascii_lowercase();
        media_type == "application/json"
            || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    })
}

/// A body that was read whole. It counts against the node's budget until it is dropped.
pub struct WholeBody {
    bytes: Bytes,
    _held: Option<Reservation>,
}

/// Reads a body of at most `limit` bytes that is neither empty nor compressed.
async fn read_body(request: Request, limit: usize, budget: &Budget) -> Result<WholeBody, ApiError> {
    check_encoding(request.headers())?;
    let body = request.into_body();
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut body = body.into_data_stream();
    // Most bodies arrive in one chunk and need no copy.
    let (mut first, mut read, mut length) = (Bytes::new(), BytesMut::new(), 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| malformed(format!("the body was cut off: {error}")))?;
        length += chunk.len();
        if length == chunk.len() {
            first = chunk;
        } else if length <= limit {
            // At once, for growing needs several times as much for a moment. Pages that nobody wrote to take no memory.
            read.reserve(expected.min(limit).saturating_sub(read.len()).max(chunk.len()));
            read.extend_from_slice(&std::mem::take(&mut first));
            read.extend_from_slice(&chunk);
        } else if length > limit.saturating_add(DISCARDED as usize) {
            break;
        }
    }
    if length > limit {
        let message = format!("the body is larger than the {limit} bytes that are allowed");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    if length == 0 {
        return Err(malformed("the body is empty; JSON is expected"));
    }
    let bytes = if read.is_empty() { first } else { read.freeze() };
    // Its bytes count as long as they come in; from here on they count as long as they are worked on.
    drop(body);
    let held = (length as u64 > UNCOUNTED).then(|| budget.charge(Purpose::Request, length as u64));
    Ok(WholeBody { bytes, _held: held })
}

/// A JSON body within `max_payload`.
pub struct JsonBody(WholeBody);

impl FromRequest<Arc<super::HttpState>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<super::HttpState>) -> Result<Self, ApiError> {
        if !is_json(media_type(request.headers())) {
            return Err(unsupported("application/json"));
        }
        read_body(request, state.options.max_payload, state.gateway.budget()).await.map(Self)
    }
}

impl JsonBody {
    /// The members of the JSON object in the body.
    pub fn members(&self) -> Result<Members<'_>, ApiError> {
        Members::read(&self.0.bytes).map_err(|error| match error {
            NotAnObject::Malformed(_) => malformed(error.to_string()),
            NotAnObject::Other(_) => ApiError::invalid(format!("the body {error}")),
        })
    }
}

/// The body of a batch.
pub struct BatchBody {
    /// Whether the events are lines (`application/x-ndjson`).
    pub lines: bool,
    body: WholeBody,
}

impl BatchBody {
    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body.bytes
    }
}

impl FromRequest<Arc<super::HttpState>> for BatchBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<super::HttpState>) -> Result<Self, ApiError> {
        let media_type = media_type(request.headers());
        let lines = media_type.is_some_and(|media_type| {
            media_type.eq_ignore_ascii_case("application/x-ndjson")
                || media_type.eq_ignore_ascii_case("application/jsonl")
        });
        if !lines && !is_json(media_type) {
            return Err(unsupported("application/json or application/x-ndjson"));
        }
        let body = read_body(request, state.options.max_batch, state.gateway.budget()).await?;
        Ok(Self { lines, body })
    }
}

/// The error of a body that is not JSON.
pub fn malformed(problem: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Malformed, problem)
}

fn unsupported(wanted: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedType, format!("the Content-Type must be {wanted}"))
}

/// The `Idempotency-Key` of a publish, if it has one.
pub struct OptionalKey(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for OptionalKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key =
            value.to_str().map_err(|_| "must be 1 to 128 visible ASCII characters").and_then(str::parse);
        key.map(|key| Self(Some(key)))
            .map_err(|problem| ApiError::invalid(format!("Idempotency-Key: {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    async fn read(pieces: &[&'static str], limit: usize) -> Result<Bytes, ErrorCode> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece)).collect();
        let request = Request::new(Body::from_stream(stream::iter(pieces)));
        let body = read_body(request, limit, &Budget::new(u64::MAX)).await;
        body.map(|body| body.bytes).map_err(|error| error.code)
    }

    #[tokio::test]
    async fn bodies_are_read_whole_whatever_their_pieces() {
        for pieces in [&["abcdef"][..], &["", "abcdef"], &["ab", "cd", "", "ef"]] {
            assert_eq!(read(pieces, 6).await.unwrap(), "abcdef", "{pieces:?}");
            assert_eq!(read(pieces, 5).await, Err(ErrorCode::TooLarge), "{pieces:?}");
        }
        assert_eq!(read(&[], 6).await, Err(ErrorCode::Malformed));
        assert_eq!(read(&["", ""], 6).await, Err(ErrorCode::Malformed));
    }
}
