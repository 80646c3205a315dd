//! Refusals as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    gateway::Gateway,
    refusal::{Code, Refusal},
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

/// The code of a refusal, for whoever counts them.
#[derive(Debug, Clone, Copy)]
struct Refused(Code);

fn status(code: Code) -> StatusCode {
    match code {
        Code::Malformed => StatusCode::BAD_REQUEST,
        Code::InvalidPayload | Code::IdempotencyConflict => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::RateLimited | Code::LimitReached => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::JobFinished | Code::OwnerMismatch => StatusCode::CONFLICT,
        Code::NotFound | Code::UnknownEvent => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal { code, message: detail } = self;
        let status = status(code);
        let title = status.canonical_reason().unwrap_or("Error");
        let problem =
            Problem { r#type: "about:blank", title, status: status.as_u16(), detail, code: code.as_str() };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, super::NO_STORE);
        if matches!(code, Code::Unavailable | Code::RateLimited) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Refused(code));
        response
    }
}

/// Counts a refusal under its code, on its way out.
pub fn counted(gateway: &Gateway, response: Response) -> Response {
    if let Some(Refused(code)) = response.extensions().get() {
        gateway.metrics().reject(code.as_str());
    }
    response
}
