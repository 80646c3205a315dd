//! How a request is refused: one code and one sentence, the same on every edge (contract, sections 2 and 3).

use std::fmt;

use crate::event::InvalidDraft;

/// The codes that clients may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request itself is wrong.
    InvalidPayload,
    /// The request is not even well-formed: the same code on the wire, but a 400 rather than a 422.
    Malformed,
    /// Who asks is not allowed to.
    Forbidden,
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
    /// The job is somebody else's.
    OwnerMismatch,
    /// The idempotency key was used with another body.
    IdempotencyConflict,
    /// There is nothing at this place.
    NotFound,
    /// The method is not one of this place.
    MethodNotAllowed,
    /// The body is larger than allowed.
    TooLarge,
    /// The body is not of a type that is understood.
    UnsupportedType,
}

impl Code {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidPayload | Code::Malformed => "invalid_payload",
            Code::Forbidden => "forbidden",
            Code::RateLimited => "rate_limited",
            Code::LimitReached => "limit_reached",
            Code::Unavailable => "unavailable",
            Code::UnknownEvent => "unknown_event",
            Code::JobFinished => "job_finished",
            Code::OwnerMismatch => "owner_mismatch",
            Code::IdempotencyConflict => "idempotency_conflict",
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::TooLarge => "payload_too_large",
            Code::UnsupportedType => "unsupported_media_type",
        }
    }
}

/// A refused request. Nothing of it took effect, except where the code is [`Code::Unavailable`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub code: Code,
    /// What was wrong, where, and what would be right.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A refusal of what is wrong in itself.
    pub fn invalid(problem: impl fmt::Display) -> Self {
        Self::new(Code::InvalidPayload, problem.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<InvalidDraft> for Refusal {
    fn from(error: InvalidDraft) -> Self {
        Refusal::invalid(error)
    }
}
