//! Streams of events over HTTP: which there are, and where they begin.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use utoipa::{IntoParams, IntoResponses};

use super::{
    HttpState,
    caller::Caller,
    extract::{PathParam, QueryParams, seq},
    problem::Problem,
    sse::{Connected, Until, stream},
};
use crate::{
    error::ApiError,
    gateway::{JobResume, Subscription},
    id::{JobId, TenantId, UserId},
    position::Position,
};

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
struct SincePosition {
    /// Replay what came after this position first, or from this time on: RFC 3339 or Unix milliseconds.
    since: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
struct LastEventId {
    /// As since, and before it.
    #[param(rename = "Last-Event-ID")]
    id: Option<String>,
}

#[derive(IntoResponses)]
#[allow(dead_code)]
enum Answers {
    /// The stream
    #[response(status = 200, content_type = "text/event-stream")]
    Stream(String),
    /// An invalid id, since or until
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(Problem),
    /// The store is down; or too much waits in memory, or the client has as many streams as it may (limit_reached)
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Streams the events of a job; `id` is the event's seq
#[utoipa::path(
    get,
    path = "/api/jobs/{jobId}/events",
    operation_id = "streamJob",
    tag = "watching",
    params(
        ("jobId" = String, Path, description = "The job"),
        ("since" = Option<u64>, Query, description = "Replay the events with a larger seq first; 0 for all"),
        ("until" = Option<String>, Query, description = "finished: the stream ends after the job's next ending, or after the replay where it is finished already"),
        LastEventId,
    ),
    responses(Answers)
)]
pub async fn of_job(
    State(state): State<Arc<HttpState>>,
    Caller(pass): Caller,
    PathParam(job): PathParam<JobId>,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_job(&params, &headers)?;
    let until = params.optional("until")?.unwrap_or(Until::Closed);
    stream(state, pass, connection, Subscription::Job(job, since), until).await
}

/// Streams the events of a user's jobs; `id` is the position in the user's room
#[utoipa::path(
    get,
    path = "/api/users/{userId}/events",
    operation_id = "streamUser",
    tag = "watching",
    params(
        ("userId" = String, Path, description = "The user"),
        SincePosition,
        LastEventId,
    ),
    responses(Answers)
)]
pub async fn of_user(
    State(state): State<Arc<HttpState>>,
    Caller(pass): Caller,
    PathParam(user): PathParam<UserId>,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_room(&params, &headers)?;
    stream(state, pass, connection, Subscription::User(user, since), Until::Closed).await
}

/// Streams the events of a tenant's jobs; `id` is the position in the tenant's room
#[utoipa::path(
    get,
    path = "/api/tenants/{tenantId}/events",
    operation_id = "streamTenant",
    tag = "watching",
    params(
        ("tenantId" = String, Path, description = "The tenant"),
        SincePosition,
        LastEventId,
    ),
    responses(Answers)
)]
pub async fn of_tenant(
    State(state): State<Arc<HttpState>>,
    Caller(pass): Caller,
    PathParam(tenant): PathParam<TenantId>,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_room(&params, &headers)?;
    stream(state, pass, connection, Subscription::Tenant(tenant, since), Until::Closed).await
}

/// Streams the events of all jobs; `id` is the position in the room of all jobs
#[utoipa::path(
    get,
    path = "/api/events",
    operation_id = "streamAll",
    tag = "watching",
    params(SincePosition, LastEventId,),
    responses(Answers)
)]
pub async fn all(
    State(state): State<Arc<HttpState>>,
    Caller(pass): Caller,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_room(&params, &headers)?;
    stream(state, pass, connection, Subscription::AllJobs(since), Until::Closed).await
}

/// Where to resume from, and what says so. A browser that reconnects repeats the URL, so its `Last-Event-ID` is the newer
/// one.
fn resume<'a>(
    params: &'a QueryParams,
    headers: &'a HeaderMap,
) -> Result<Option<(&'static str, &'a str)>, ApiError> {
    match headers.get("last-event-id").filter(|id| !id.is_empty()) {
        None => Ok(params.get("since").map(|since| ("since", since))),
        Some(id) => match id.to_str() {
            Ok(id) => Ok(Some(("Last-Event-ID", id))),
            Err(_) => Err(ApiError::invalid("Last-Event-ID: must be visible ASCII characters")),
        },
    }
}

/// Where to resume a job from.
fn resume_job(params: &QueryParams, headers: &HeaderMap) -> Result<Option<JobResume>, ApiError> {
    let since = resume(params, headers)?.map(|(name, text)| seq(name, text)).transpose()?;
    Ok(since.map(JobResume::Since))
}

/// Where to resume a shared room from.
fn resume_room(params: &QueryParams, headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let position = |(name, text): (&str, &str)| {
        text.parse().map_err(|error| ApiError::invalid(format!("{name}: {error}")))
    };
    resume(params, headers)?.map(position).transpose()
}
