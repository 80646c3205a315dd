//! Reading over HTTP: one job, its history, and the lists of recently active jobs.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use super::{
    HttpState,
    caller::Caller,
    extract::{PathParam, QueryParams},
    openapi::{EventBody, HistoryBody, JobsBody},
    pages,
    problem::Problem,
};
use crate::{
    error::{ApiError, ErrorCode},
    id::{JobId, TenantId, UserId},
    room::Room,
};

/// How many jobs are listed where no limit is given.
const DEFAULT_LISTED: usize = 100;

/// The newest event of a job
#[utoipa::path(
    get,
    path = "/api/jobs/{jobId}",
    operation_id = "newestEvent",
    tag = "reading",
    params(("jobId" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The newest event", body = EventBody),
        (status = 404, description = "The job has no event", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An invalid job id", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down, or too much waits in memory (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn newest(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    PathParam(job): PathParam<JobId>,
) -> Result<Response, ApiError> {
    let newest = state.gateway.job_as(caller.identity(), &job).await?;
    let newest =
        newest.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("the job {job} has no event")))?;
    pages::whole(&state.gateway, &newest)
}

/// The retained events of a job, oldest first
#[utoipa::path(
    get,
    path = "/api/jobs/{jobId}/history",
    operation_id = "history",
    tag = "reading",
    params(
        ("jobId" = String, Path, description = "The job"),
        ("limit" = Option<u64>, Query, description = "The newest so many; with since, the oldest so many after it"),
        ("since" = Option<u64>, Query, description = "Only events with a larger seq"),
    ),
    responses(
        (status = 200, description = "The events; none for an unknown job", body = HistoryBody),
        (status = 422, description = "A parameter of the wrong form", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down, or too much waits in memory (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn history(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    PathParam(job): PathParam<JobId>,
    params: QueryParams,
) -> Result<Response, ApiError> {
    let (limit, since) = (params.limit()?, params.since_seq()?);
    let parts = state.gateway.history_as(caller.identity(), &job, limit, since).await?;
    pages::array(&state.gateway, format!(r#"{{"jobId":"{job}","events":["#), parts).await
}

/// The newest event of each active job, most recent first
#[utoipa::path(
    get,
    path = "/api/jobs",
    operation_id = "listJobs",
    tag = "reading",
    params(
        ("userId" = Option<String>, Query, description = "Only this user's jobs"),
        ("tenantId" = Option<String>, Query, description = "Only this tenant's jobs"),
        ("limit" = Option<u64>, Query, description = "How many at the most: 100 by default, 1,000 at the most"),
    ),
    responses(
        (status = 200, description = "The jobs", body = JobsBody),
        (status = 422, description = "A parameter of the wrong form", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down, or too much waits in memory (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    params: QueryParams,
) -> Result<Response, ApiError> {
    let user = params.optional::<UserId>("userId")?.map(Room::User);
    let tenant = params.optional::<TenantId>("tenantId")?.map(Room::Tenant);
    let limit = params.limit()?.unwrap_or(DEFAULT_LISTED);
    let room = user.or(tenant).unwrap_or(Room::AllJobs);
    let parts = state.gateway.jobs_parts(caller.identity(), &room, limit).await?;
    pages::array(&state.gateway, r#"{"jobs":["#.to_owned(), parts).await
}
