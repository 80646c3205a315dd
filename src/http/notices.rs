//! Broadcasts to all clients, and notices to one user's.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    HttpState,
    caller::Caller,
    extract::{JsonBody, PathParam},
    openapi::{NoticeBody, SentBody},
    problem::Problem,
};
use crate::{error::ApiError, id::UserId, json, notice::NoticeName, timestamp::Timestamp};

#[derive(Serialize)]
pub struct Sent {
    timestamp: Timestamp,
}

/// The name and the data of a notice.
fn read(body: &JsonBody) -> Result<(NoticeName, Box<RawValue>), ApiError> {
    let members = body.members()?;
    let invalid =
        |field: &str, problem: &dyn std::fmt::Display| ApiError::invalid(format!("{field}: {problem}"));
    let name = members.text("event").map_err(|problem| invalid("event", &problem))?;
    let name = name.ok_or_else(|| invalid("event", &"is required: a string"))?;
    let name = name.parse().map_err(|error| invalid("event", &error))?;
    let data = members.get("data").map_or(Ok("null".to_owned()), json::compact);
    let data = data.map_err(|error| invalid("data", &error))?;
    let data = RawValue::from_string(data).map_err(|error| invalid("data", &error))?;
    Ok((name, data))
}

/// Sends an event of one's own to every connected client
#[utoipa::path(
    post,
    path = "/api/broadcast",
    operation_id = "broadcast",
    tag = "notices",
    request_body = NoticeBody,
    responses(
        (status = 200, description = "Sent", body = SentBody),
        (status = 400, description = "Empty body or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An invalid event name", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The caller publishes more than limits.publishes_per_second (rate_limited)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down; or too much waits in memory (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn broadcast(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<Sent>, ApiError> {
    caller.identity().check_notify()?;
    let (name, data) = read(&body)?;
    state.gateway.count_publishes(caller.identity(), 1)?;
    Ok(Json(Sent { timestamp: state.gateway.broadcast_to_all(name, &data).await? }))
}

/// Sends an event of one's own to every client in a user's room
#[utoipa::path(
    post,
    path = "/api/users/{userId}/emit",
    operation_id = "emitToUser",
    tag = "notices",
    params(("userId" = String, Path, description = "The user")),
    request_body = NoticeBody,
    responses(
        (status = 200, description = "Sent", body = SentBody),
        (status = 400, description = "Empty body or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An invalid user id or event name", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The caller publishes more than limits.publishes_per_second (rate_limited)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down; or too much waits in memory (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn emit(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    PathParam(user): PathParam<UserId>,
    body: JsonBody,
) -> Result<Json<Sent>, ApiError> {
    caller.identity().check_notify()?;
    let (name, data) = read(&body)?;
    state.gateway.count_publishes(caller.identity(), 1)?;
    Ok(Json(Sent { timestamp: state.gateway.emit_to_user(user, name, &data).await? }))
}
