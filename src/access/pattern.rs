//! Patterns of ids: an id, or the beginning of ids with a `*` behind it.

use std::{fmt, str::FromStr};

use crate::id::{InvalidId, JobId};

/// An id, or a prefix of ids, written with a trailing `*`. `*` alone matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// One id.
    Exactly(String),
    /// All ids that begin so.
    Prefix(String),
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} must be an id, or the beginning of one with a * behind it: {problem}")]
pub struct InvalidPattern {
    text: String,
    problem: InvalidId,
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let (id, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        if is_prefix && id.is_empty() {
            return Ok(Pattern::Prefix(String::new()));
        }
        // The rule of ids is one for all of them.
        match id.parse::<JobId>() {
            Ok(_) if is_prefix => Ok(Pattern::Prefix(id.to_owned())),
            Ok(_) => Ok(Pattern::Exactly(id.to_owned())),
            Err(problem) => Err(InvalidPattern { text: text.chars().take(200).collect(), problem }),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exactly(id) => f.write_str(id),
            Pattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Pattern {
    fn matches(&self, id: &str) -> bool {
        match self {
            Pattern::Exactly(this) => this == id,
            Pattern::Prefix(prefix) => id.starts_with(prefix.as_str()),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Pattern::Exactly(_), Pattern::Prefix(_)) => false,
            (_, Pattern::Exactly(id) | Pattern::Prefix(id)) => self.matches(id),
        }
    }
}

/// Some patterns. What matches one of them matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Whether one of them matches an id.
    pub fn matches(&self, id: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(id))
    }

    /// Whether one of them matches everything that another pattern matches.
    pub fn covers(&self, other: &Pattern) -> bool {
        self.0.iter().any(|pattern| pattern.covers(other))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_or_a_prefix() {
        assert!(pattern("a-1").matches("a-1") && !pattern("a-1").matches("a-12"));
        assert!(
            pattern("a-*").matches("a-") && pattern("a-*").matches("a-12") && !pattern("a-*").matches("a")
        );
        assert!(pattern("*").matches("anything"));
        for wrong in ["", "a b*", "**", "a*b", &"x".repeat(129)] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn covers_what_it_matches() {
        for (wide, narrow) in [("*", "*"), ("*", "a"), ("a*", "a"), ("a*", "ab*"), ("a", "a")] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
        for (wide, narrow) in [("a", "a*"), ("ab*", "a*"), ("a*", "*"), ("a", "b"), ("a*", "b")] {
            assert!(!pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
    }
}
