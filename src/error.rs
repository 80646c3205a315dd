//! The error of a request: a code and a sentence, the same on every edge (contract, sections 2 and 3).

use std::fmt;

use serde::Serialize;

use crate::event::InvalidDraft;

/// The codes that clients may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A value in the request is invalid.
    InvalidPayload,
    /// The request cannot be parsed. It has the same code as `InvalidPayload` and is a 400 instead of a 422.
    Malformed,
    /// There is no token or key, or a bad one.
    Unauthorized,
    /// The client lacks the permission.
    Forbidden,
    /// The token was good, and no longer is.
    TokenExpired,
    /// Too many requests in too short a time.
    RateLimited,
    /// A bound of the gateway is reached.
    LimitReached,
    /// The store does not answer; the outcome is unknown.
    Unavailable,
    /// There is no such event to emit.
    UnknownEvent,
    /// The job is finished.
    JobFinished,
    /// The job belongs to another owner.
    OwnerMismatch,
    /// The idempotency key was used with another body.
    IdempotencyConflict,
    /// Not found.
    NotFound,
    /// The path does not have this method.
    MethodNotAllowed,
    /// The body is larger than allowed.
    TooLarge,
    /// The media type of the body is not supported.
    UnsupportedType,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidPayload | ErrorCode::Malformed => "invalid_payload",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::TokenExpired => "token_expired",
            ErrorCode::RateLimited => "rate_limited",
            ErrorCode::LimitReached => "limit_reached",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::UnknownEvent => "unknown_event",
            ErrorCode::JobFinished => "job_finished",
            ErrorCode::OwnerMismatch => "owner_mismatch",
            ErrorCode::IdempotencyConflict => "idempotency_conflict",
            ErrorCode::NotFound => "not_found",
            ErrorCode::MethodNotAllowed => "method_not_allowed",
            ErrorCode::TooLarge => "payload_too_large",
            ErrorCode::UnsupportedType => "unsupported_media_type",
        }
    }
}

/// A failed request. It had no effect, unless the code is [`ErrorCode::Unavailable`]: then the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The kind of error.
    pub code: ErrorCode,
    /// What was wrong, where, and what would be right.
    pub message: String,
}

impl ApiError {
    /// An error with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The error as it is told who asked for nothing: the payload of the event `exception` (contract, section 2).
    pub fn exception(&self) -> Exception<'_> {
        Exception { status: "error", code: self.code.as_str(), message: &self.message }
    }

    /// An [`ErrorCode::InvalidPayload`].
    pub fn invalid(problem: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidPayload, problem.to_string())
    }
}

/// The payload of the event `exception`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Exception<'a> {
    status: &'static str,
    code: &'static str,
    message: &'a str,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<InvalidDraft> for ApiError {
    fn from(error: InvalidDraft) -> Self {
        ApiError::invalid(error)
    }
}
