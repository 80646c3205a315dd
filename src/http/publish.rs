//! Publishing over HTTP: one event, or a batch of them.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    HttpState,
    extract::{BatchBody, JsonBody, OptionalKey, PathParam, malformed},
    openapi::{
        CompletedBody, ErrorBody, EventBody, IdempotencyHeader, Outcome, ProgressBody, PublishedBody,
        UpdateBody,
    },
    problem::Problem,
};
use crate::{
    error::{ApiError, ErrorCode},
    event::{Draft, EventKind, IdempotencyKey},
    gateway::{Publication, Published},
    id::JobId,
    json::{Members, NotAnObject},
};

/// How many events one batch may have.
const MAX_EVENTS: usize = 1000;

async fn publish(
    state: &HttpState,
    kind: EventKind,
    job: JobId,
    key: Option<IdempotencyKey>,
    body: JsonBody,
) -> Result<Json<Published>, ApiError> {
    let draft = Draft::read(kind, job, &body.members()?)?;
    // The body is a slice of the connection's read buffer. Dropping it lets the buffer be reused.
    drop(body);
    state.gateway.publish(draft, key).await.map(Json)
}

macro_rules! publisher {
    ($name:ident, $operation:literal, $path:literal, $kind:expr, $body:ty, $summary:literal) => {
        #[doc = $summary]
        #[utoipa::path(
            post,
            path = $path,
            operation_id = $operation,
            tag = "publishing",
            params(("jobId" = String, Path, description = "The job"), IdempotencyHeader),
            request_body = $body,
            responses(
                (status = 200, description = "Accepted: in history and on its way to all watchers", body = PublishedBody),
                (status = 400, description = "Empty body or malformed JSON", body = Problem, content_type = "application/problem+json"),
                (status = 409, description = "The job's state forbids it", body = Problem, content_type = "application/problem+json"),
                (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
                (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
                (status = 422, description = "An invalid event", body = Problem, content_type = "application/problem+json"),
                (status = 503, description = "The store is down; the outcome is unknown", body = Problem, content_type = "application/problem+json"),
            )
        )]
        pub async fn $name(
            State(state): State<Arc<HttpState>>,
            PathParam(job): PathParam<JobId>,
            OptionalKey(key): OptionalKey,
            body: JsonBody,
        ) -> Result<Json<Published>, ApiError> {
            publish(&state, $kind, job, key, body).await
        }
    };
}

publisher!(
    update,
    "publishUpdate",
    "/api/jobs/{jobId}/update",
    EventKind::Update,
    UpdateBody,
    "Publishes a change of a job"
);
publisher!(
    progress,
    "publishProgress",
    "/api/jobs/{jobId}/progress",
    EventKind::Progress,
    ProgressBody,
    "Publishes how far a job is"
);
publisher!(
    completed,
    "publishCompleted",
    "/api/jobs/{jobId}/completed",
    EventKind::Completed,
    CompletedBody,
    "Publishes that a job ended well"
);
publisher!(
    error,
    "publishError",
    "/api/jobs/{jobId}/error",
    EventKind::Error,
    ErrorBody,
    "Publishes that a job failed"
);

#[derive(Serialize)]
pub struct Results {
    results: Vec<ItemResult>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ItemResult {
    Accepted(Published),
    Refused { error: ItemError },
}

#[derive(Serialize)]
struct ItemError {
    code: &'static str,
    message: String,
}

impl From<Result<Published, ApiError>> for ItemResult {
    fn from(outcome: Result<Published, ApiError>) -> Self {
        match outcome {
            Ok(published) => ItemResult::Accepted(published),
            Err(ApiError { code, message }) => {
                ItemResult::Refused { error: ItemError { code: code.as_str(), message } }
            }
        }
    }
}

/// Publishes up to 1,000 events, each on its own; those of one job in the order given
#[utoipa::path(
    post,
    path = "/api/events",
    operation_id = "publishBatch",
    tag = "publishing",
    request_body(
        content((Vec<EventBody> = "application/json"), (String = "application/x-ndjson")),
        description = "An array of whole events, or one event a line"
    ),
    responses(
        (status = 200, description = "What became of each event, in order", body = Outcome),
        (status = 400, description = "Empty body or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large, or has more than 1,000 events", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither JSON nor NDJSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The body is no array", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down; the outcome is unknown", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn batch(State(state): State<Arc<HttpState>>, body: BatchBody) -> Result<Json<Results>, ApiError> {
    let items = if body.lines { lines(&body.bytes) } else { array(&body.bytes)? };
    if items.len() > MAX_EVENTS {
        let message = format!("a batch may have at most {MAX_EVENTS} events, got {}", items.len());
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    let (mut publications, mut indices, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Ok(publication) => {
                publications.push(publication);
                indices.push(index);
                results.push(None);
            }
            Err(error) => results.push(Some(Err(error))),
        }
    }
    let outcomes = state.gateway.publish_all(publications).await;
    if let Some(Err(error)) = outcomes.first()
        && outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(ApiError { code: ErrorCode::Unavailable, .. })))
    {
        return Err(error.clone());
    }
    for (index, outcome) in indices.into_iter().zip(outcomes) {
        state.count(&outcome);
        results[index] = Some(outcome);
    }
    let results = results.into_iter().flatten().map(ItemResult::from).collect();
    Ok(Json(Results { results }))
}

impl HttpState {
    fn count(&self, outcome: &Result<Published, ApiError>) {
        if let Err(error) = outcome {
            self.gateway.metrics().count_error(error.code.as_str());
        }
    }
}

fn array(bytes: &[u8]) -> Result<Vec<Result<Publication, ApiError>>, ApiError> {
    let value: &RawValue =
        serde_json::from_slice(bytes).map_err(|error| malformed(format!("malformed JSON: {error}")))?;
    let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| {
        let message = format!("the body must be an array of events, got {}", crate::json::kind(value));
        ApiError::invalid(message)
    })?;
    Ok(items.into_iter().map(|item| publication(Members::of(item))).collect())
}

fn lines(bytes: &[u8]) -> Vec<Result<Publication, ApiError>> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.map(|line| publication(Members::read(line))).collect()
}

fn publication(members: Result<Members<'_>, NotAnObject>) -> Result<Publication, ApiError> {
    let members = members.map_err(|error| ApiError::invalid(format!("the event: {error}")))?;
    Ok((Draft::read_whole(&members)?, IdempotencyKey::read(&members)?))
}
