//! Publishing over HTTP: one event, or a batch of them.

use std::sync::Arc;

use axum::{Json, extract::State};

use super::{
    HttpState,
    batch::{self, Results},
    caller::Caller,
    extract::{BatchBody, JsonBody, OptionalKey, PathParam},
    openapi::{
        CompletedBody, ErrorBody, EventBody, IdempotencyHeader, Outcome, ProgressBody, PublishedBody,
        UpdateBody,
    },
    problem::Problem,
};
use crate::{
    error::{ApiError, ErrorCode},
    event::{Draft, EventKind, IdempotencyKey},
    gateway::Published,
    id::JobId,
};

async fn publish(
    state: &HttpState,
    caller: &Caller,
    kind: EventKind,
    job: JobId,
    key: Option<IdempotencyKey>,
    body: JsonBody,
) -> Result<Json<Published>, ApiError> {
    let draft = Draft::read(kind, job, &body.members()?)?;
    // The body is a slice of the connection's read buffer. Dropping it lets the buffer be reused.
    drop(body);
    state.gateway.publish_as(caller.identity(), draft, key).await.map(Json)
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
                (status = 429, description = "The caller publishes more than limits.publishes_per_second; nothing was stored (rate_limited)", body = Problem, content_type = "application/problem+json"),
                (status = 503, description = "The store is down, and the outcome is unknown; or too much waits in memory, or as many jobs are kept as may be (limit_reached)", body = Problem, content_type = "application/problem+json"),
            )
        )]
        pub async fn $name(
            State(state): State<Arc<HttpState>>,
            caller: Caller,
            PathParam(job): PathParam<JobId>,
            OptionalKey(key): OptionalKey,
            body: JsonBody,
        ) -> Result<Json<Published>, ApiError> {
            publish(&state, &caller, $kind, job, key, body).await
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
        (status = 413, description = "The body is too large, or has more than 1,000 events or than limits.publishes_per_second", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither JSON nor NDJSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The body is no array", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The caller publishes more than limits.publishes_per_second; nothing was stored (rate_limited)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down, and the outcome is unknown; or too much waits in memory, or as many jobs are kept as may be (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn batch(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    body: BatchBody,
) -> Result<Json<Results>, ApiError> {
    caller.identity().check_publisher()?;
    let items = batch::read(body.bytes(), body.lines, state.options.max_payload)?;
    // What is published has been copied out of it.
    drop(body);
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
    let outcomes = state.gateway.publish_all_as(caller.identity(), publications).await;
    if let Some(error) = failed_as_one(&outcomes) {
        return Err(error);
    }
    for (index, outcome) in indices.into_iter().zip(outcomes) {
        state.count(&outcome);
        results[index] = Some(outcome);
    }
    Ok(Json(results.into_iter().flatten().collect()))
}

/// Why nothing at all was published, where that has nothing to do with the events.
fn failed_as_one(outcomes: &[Result<Published, ApiError>]) -> Option<ApiError> {
    let first = outcomes.first()?.as_ref().err()?;
    let general = matches!(
        first.code,
        ErrorCode::Unavailable | ErrorCode::LimitReached | ErrorCode::RateLimited | ErrorCode::TooLarge
    );
    let alike = |outcome: &Result<_, ApiError>| outcome.as_ref().is_err_and(|error| error.code == first.code);
    (general && outcomes.iter().all(alike)).then(|| first.clone())
}

impl HttpState {
    fn count(&self, outcome: &Result<Published, ApiError>) {
        if let Err(error) = outcome {
            self.gateway.metrics().count_error(error.code.as_str());
        }
    }
}
