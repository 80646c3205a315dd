//! The OpenAPI 3.1 description. These types only describe bodies. Handlers use the core's types, and a test compares
//! both.
#![allow(dead_code)]

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::HttpState;

#[derive(OpenApi)]
#[openapi(info(
    title = "Jobcast",
    description = "Publishes job events, and lets watchers follow them live without missing one."
))]
pub struct Description;

/// This description
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "description",
    tag = "operating",
    responses((status = 200, description = "OpenAPI 3.1", body = Value))
)]
pub async fn serve(State(state): State<Arc<HttpState>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], state.description.clone()).into_response()
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyHeader {
    /// 1 to 128 visible characters. Repeating a call under the same key within 10 minutes stores nothing again and
    /// gets the first answer.
    #[param(rename = "Idempotency-Key")]
    key: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateBody {
    /// 1 to 64 characters of the publisher's own.
    #[schema(example = "queued")]
    status: String,
    data: Option<Value>,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressBody {
    #[schema(minimum = 0, maximum = 100, example = 40)]
    progress: f64,
    message: Option<String>,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletedBody {
    result: Option<Value>,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// A string, or an object with a `message`.
    #[schema(value_type = String)]
    error: Value,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

/// A job event. What a publisher sends has no `seq` and no `timestamp`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventBody {
    /// `job:update`, `job:progress`, `job:completed` or `job:error`.
    #[schema(example = "job:progress")]
    event: String,
    job_id: String,
    status: Option<String>,
    data: Option<Value>,
    progress: Option<f64>,
    message: Option<String>,
    result: Option<Value>,
    error: Option<String>,
    user_id: Option<String>,
    tenant_id: Option<String>,
    timestamp: Option<String>,
    seq: Option<u64>,
    /// On input only: the event's idempotency key.
    id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedBody {
    job_id: String,
    seq: u64,
    timestamp: String,
}

#[derive(Serialize, ToSchema)]
pub struct Outcome {
    /// In the order of the events.
    results: Vec<ItemOutcome>,
    /// How many were refused.
    failed: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum ItemOutcome {
    Accepted(PublishedBody),
    Refused { index: u64, error: ItemError },
}

#[derive(Serialize, ToSchema)]
pub struct ItemError {
    code: String,
    message: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryBody {
    job_id: String,
    events: Vec<EventBody>,
}

#[derive(Serialize, ToSchema)]
pub struct JobsBody {
    jobs: Vec<EventBody>,
}

#[derive(Serialize, ToSchema)]
pub struct NoticeBody {
    /// 1 to 64 characters of `A-Z a-z 0-9 _ . : -`, and no name that socket.io or the job events use.
    #[schema(example = "refresh")]
    event: String,
    data: Option<Value>,
}

#[derive(Serialize, ToSchema)]
pub struct SentBody {
    timestamp: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientBody {
    client_id: String,
    connected_at: String,
    user_id: Option<String>,
    address: String,
    user_agent: String,
    transport: String,
    node: String,
    subscriptions: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ClientsBody {
    clients: Vec<ClientBody>,
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct RoomBody {
    room: String,
    clients: u64,
}
