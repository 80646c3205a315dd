//! Long answers: JSON whose array is read and written page by page, each when the peer has taken those before it. What a
//! page holds counts in the node's budget until it is written.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    budget::{Budget, OverBudget, Purpose, Reservation},
    error::{ApiError, ErrorCode},
    gateway::{Gateway, Parts},
};

/// How many bytes of entries a page has, if they are more than one.
const PAGE_BYTES: usize = 256 * 1024;

/// How long an answer that has begun waits for a place in the budget, and how often it looks. Readers that hold places
/// without reading are cut sooner.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// An answer whose last member is an array: `opening`, the entries, `]}`. Where all of it fits on one page it is made at
/// once and says its length. Otherwise an error after the first page cuts it off.
///
/// # Errors
/// [`ErrorCode::LimitReached`] when the budget has no place for a page, [`ErrorCode::Unavailable`] when the store does
/// not answer.
pub async fn array(gateway: &Gateway, opening: String, parts: Parts) -> Result<Response, ApiError> {
    let held = gateway.budget().reserve(Purpose::Answer, PAGE_BYTES as u64)?;
    let mut pages = Pages { budget: gateway.budget().clone(), parts, is_first: true, _source: None };
    let first = pages.write(opening.into_bytes(), held).await?;
    if pages.parts.is_over() {
        return Ok(json(first.into()));
    }
    pages._source = Some(pages.budget.charge(Purpose::Answer, pages.parts.size() as u64));
    let rest = stream::try_unfold(pages, |mut pages| async {
        match pages.parts.is_over() {
            true => Ok(None),
            false => Ok(Some((pages.next().await?, pages))),
        }
    });
    let cut = |error: &ApiError| tracing::debug!(%error, "an answer is cut off");
    Ok(json(Body::from_stream(stream::iter([Ok(first)]).chain(rest).inspect_err(cut))))
}

/// An answer that is made at once.
///
/// # Errors
/// [`ErrorCode::LimitReached`] when the budget has no place for it.
pub fn whole(gateway: &Gateway, answer: &impl Serialize) -> Result<Response, ApiError> {
    let unwritable = |error: serde_json::Error| ApiError::new(ErrorCode::Unavailable, error.to_string());
    let bytes = serde_json::to_vec(answer).map_err(unwritable)?;
    let held = gateway.budget().reserve(Purpose::Answer, bytes.len() as u64)?;
    Ok(json(held_bytes(bytes, held).into()))
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// The pages of an answer.
struct Pages {
    budget: Budget,
    parts: Parts,
    /// Whether no entry has been written yet.
    is_first: bool,
    /// Counts what the parts hold to know what comes next.
    _source: Option<Reservation>,
}

impl Pages {
    async fn next(&mut self) -> Result<Bytes, ApiError> {
        let held = patient_reserve(&self.budget).await?;
        self.write(Vec::new(), held).await
    }

    /// Reads the next part, and writes it behind what is there.
    async fn write(&mut self, mut page: Vec<u8>, mut held: Reservation) -> Result<Bytes, ApiError> {
        let entries = self.parts.next(PAGE_BYTES).await?;
        page.reserve(entries.iter().map(|entry| entry.size() + 1).sum::<usize>() + CLOSING.len());
        for entry in &entries {
            if !std::mem::replace(&mut self.is_first, false) {
                page.push(b',');
            }
            page.extend_from_slice(entry.json().as_bytes());
        }
        if self.parts.is_over() {
            page.extend_from_slice(CLOSING);
        }
        held.set(page.len() as u64);
        Ok(held_bytes(page, held))
    }
}

const CLOSING: &[u8] = b"]}";

async fn patient_reserve(budget: &Budget) -> Result<Reservation, OverBudget> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match budget.reserve(Purpose::Answer, PAGE_BYTES as u64) {
            Err(OverBudget) if Instant::now() < deadline => sleep(PAUSE).await,
            reserved => return reserved,
        }
    }
}

/// Bytes that count in the budget for as long as anybody has them.
fn held_bytes(bytes: Vec<u8>, held: Reservation) -> Bytes {
    struct Held {
        bytes: Vec<u8>,
        _held: Reservation,
    }

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    Bytes::from_owner(Held { bytes, _held: held })
}
