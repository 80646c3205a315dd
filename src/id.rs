//! The identifiers of jobs, users, tenants and clients: one rule for all of them (contract, section 1).

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The longest identifier, in characters. All of them are ASCII, so this is also its length in bytes.
pub const MAX_ID_LENGTH: usize = 128;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text has no characters.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than 128 characters.
    #[error("must be at most {MAX_ID_LENGTH} characters long, got {0}")]
    TooLong(usize),
    /// The text has a character that is not allowed.
    #[error("may only contain A-Z a-z 0-9 _ . : @ -, got {0:?}")]
    Character(char),
}

fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "_.:@-".contains(*c);
    if let Some(character) = text.chars().find(|c| !allowed(c)) {
        return Err(InvalidId::Character(character));
    }
    match text.len() {
        length if length > MAX_ID_LENGTH => Err(InvalidId::TooLong(length)),
        _ => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Holds 1 to 128 characters of `A-Z a-z 0-9 _ . : @ -`; cheap to clone.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// Names a job.
    JobId
);
identifier!(
    /// Names a user: the owner of jobs, with a room of its own.
    UserId
);
identifier!(
    /// Names a tenant: a group of users, with a room of its own.
    TenantId
);
identifier!(
    /// Names the metadata record of a connected client.
    ClientId
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_the_rule_leaves_out() {
        assert_eq!("".parse::<JobId>(), Err(InvalidId::Empty));
        assert_eq!("a b".parse::<JobId>(), Err(InvalidId::Character(' ')));
        assert_eq!("é".parse::<JobId>(), Err(InvalidId::Character('é')));
        assert_eq!("a\0".parse::<JobId>(), Err(InvalidId::Character('\0')));
        assert_eq!("x".repeat(129).parse::<JobId>(), Err(InvalidId::TooLong(129)));
        assert!("x".repeat(128).parse::<JobId>().is_ok());
    }

    proptest! {
        #[test]
        fn keeps_every_valid_text(text in "[A-Za-z0-9_.:@-]{1,128}") {
            let id: UserId = text.parse().unwrap();
            prop_assert_eq!(id.as_str(), text);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = text.parse::<TenantId>();
        }
    }
}
