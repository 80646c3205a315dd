//! The error of everything here.

/// Errors are for people to read; nobody acts on their kind.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
