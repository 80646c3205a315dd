//! Whether the process lives, whether the store answers, and the metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{HttpState, problem::Problem};
use crate::error::{ApiError, ErrorCode};

/// Whether the process lives
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "alive",
    tag = "operating",
    responses((status = 200, description = "It does", body = serde_json::Value))
)]
pub async fn alive() -> Response {
    ([(header::CACHE_CONTROL, super::NO_STORE)], Json(json!({"status": "ok"}))).into_response()
}

/// Whether the store answers and new clients are welcome
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "operating",
    responses(
        (status = 200, description = "It does", body = serde_json::Value),
        (status = 503, description = "It does not, or the process is about to end", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn ready(State(state): State<Arc<HttpState>>) -> Result<Response, ApiError> {
    if state.draining.has_begun() {
        return Err(ApiError::new(ErrorCode::Unavailable, "the gateway is shutting down"));
    }
    state.gateway.ready().await?;
    Ok(([(header::CACHE_CONTROL, super::NO_STORE)], Json(json!({"status": "ready"}))).into_response())
}

/// Metrics in the text format of Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "operating",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"))
)]
pub async fn metrics(State(state): State<Arc<HttpState>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], state.gateway.metrics_text()).into_response()
}
