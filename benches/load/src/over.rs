//! The end of a watcher's connection.

use crate::wire::Malformed;

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over(pub &'static str);

impl From<Malformed> for Over {
    fn from(malformed: Malformed) -> Self {
        Self(malformed.0)
    }
}
