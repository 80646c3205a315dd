//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::{ApiError, ErrorCode},
    gateway::Gateway,
};

/// A problem (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says more.
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// What the status means.
    #[schema(example = "Unprocessable Entity")]
    title: &'static str,
    /// The status of the answer.
    #[schema(example = 422)]
    status: u16,
    /// What was wrong, where, and what would be right.
    #[schema(example = "progress: must be from 0 to 100, got 140")]
    detail: String,
    /// What clients may branch on.
    #[schema(example = "invalid_payload")]
    code: &'static str,
}

/// The error code, as a response extension for the metrics.
#[derive(Debug, Clone, Copy)]
struct CountedCode(ErrorCode);

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Malformed => StatusCode::BAD_REQUEST,
        ErrorCode::InvalidPayload | ErrorCode::IdempotencyConflict => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable | ErrorCode::LimitReached => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::JobFinished | ErrorCode::OwnerMismatch => StatusCode::CONFLICT,
        ErrorCode::NotFound | ErrorCode::UnknownEvent => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError { code, message: detail } = self;
        let status = status(code);
        let title = status.canonical_reason().unwrap_or("Error");
        let problem =
            Problem { r#type: "about:blank", title, status: status.as_u16(), detail, code: code.as_str() };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, super::NO_STORE);
        if matches!(code, ErrorCode::Unavailable | ErrorCode::LimitReached | ErrorCode::RateLimited) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if code == ErrorCode::UnsupportedType {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response.extensions_mut().insert(CountedCode(code));
        response
    }
}

/// Counts a failed request under its code.
pub fn count_error(gateway: &Gateway, response: Response) -> Response {
    if let Some(CountedCode(code)) = response.extensions().get() {
        gateway.metrics().count_error(code.as_str());
    }
    response
}
