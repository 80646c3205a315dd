//! Why Redis did not do what was asked.

use redis::{ErrorKind, ParsingError, RedisError, ServerErrorKind};

/// Why Redis did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A server answered so, or could not be reached.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// An answer has another form than expected.
    #[error("redis: unexpected answer: {0}")]
    Answer(String),
    /// There was no answer in time. What became of the command is unknown.
    #[error("redis: no answer in time")]
    Timeout,
    /// It was executed, but too few replicas have it yet.
    #[error("redis: not yet on as many replicas as redis.wait_replicas asks for")]
    NotReplicated,
    /// No server confirmed the subscription in time.
    #[error("redis: a channel could not be subscribed in time")]
    NotSubscribed,
    /// The options cannot be used.
    #[error("{0}")]
    Options(String),
}

impl Error {
    /// Whether a server understood the command and refused it: the same will happen to the next one.
    pub fn is_refusal(&self) -> bool {
        let Error::Redis(error) = self else { return false };
        match error.kind() {
            ErrorKind::Extension => error.code() != Some("BUSY"),
            ErrorKind::Server(kind) => {
                matches!(kind, ServerErrorKind::ResponseError | ServerErrorKind::NoPerm)
            }
            _ => false,
        }
    }
}

impl From<ParsingError> for Error {
    fn from(error: ParsingError) -> Self {
        Error::Answer(error.to_string())
    }
}
