//! Reading over HTTP: one job, its history, and the lists of recently active jobs.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;

use super::{
    HttpState,
    extract::{PathParam, QueryParams},
    openapi::{EventBody, HistoryBody, JobsBody},
    problem::Problem,
};
use crate::{
    error::{ApiError, ErrorCode},
    id::{JobId, TenantId, UserId},
    room::Room,
    store::Entry,
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
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn newest(
    State(state): State<Arc<HttpState>>,
    PathParam(job): PathParam<JobId>,
) -> Result<Json<Entry>, ApiError> {
    let newest = state.gateway.job(&job).await?;
    newest.map(Json).ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("the job {job} has no event")))
}

#[derive(Serialize)]
pub struct History {
    #[serde(rename = "jobId")]
    job: JobId,
    events: Vec<Entry>,
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
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn history(
    State(state): State<Arc<HttpState>>,
    PathParam(job): PathParam<JobId>,
    params: QueryParams,
) -> Result<Json<History>, ApiError> {
    let events = state.gateway.job_history(&job, params.limit()?, params.since_seq()?).await?;
    Ok(Json(History { job, events }))
}

#[derive(Serialize)]
pub struct Jobs {
    jobs: Vec<Entry>,
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
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(State(state): State<Arc<HttpState>>, params: QueryParams) -> Result<Json<Jobs>, ApiError> {
    let user = params.optional::<UserId>("userId")?.map(Room::User);
    let tenant = params.optional::<TenantId>("tenantId")?.map(Room::Tenant);
    let limit = params.limit()?.unwrap_or(DEFAULT_LISTED);
    let room = user.or(tenant).unwrap_or(Room::AllJobs);
    Ok(Json(Jobs { jobs: state.gateway.jobs(&room, limit).await? }))
}
