//! Notices: custom events for the clients that are connected now. They are not stored.

use std::{str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{event::EventKind, id::UserId, timestamp::Timestamp};

/// The name of a notice: 1 to 64 characters of `A-Z a-z 0-9 _ . : -`. Names that socket.io or the job events use are
/// reserved (contract, section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NoticeName(String);

/// Names with a meaning of their own in socket.io clients.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Why a text cannot name a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNoticeName {
    /// Wrong length, or a character that is not allowed.
    #[error("must be 1 to 64 characters of A-Z a-z 0-9 _ . : -")]
    Form,
    /// The name is reserved.
    #[error("must not be a name that socket.io or the job events use themselves")]
    Reserved,
}

impl NoticeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NoticeName {
    type Err = InvalidNoticeName;

    fn from_str(text: &str) -> Result<Self, InvalidNoticeName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
        if !(1..=64).contains(&text.len()) || !text.bytes().all(allowed) {
            return Err(InvalidNoticeName::Form);
        }
        let taken = RESERVED.contains(&text) || EventKind::ALL.iter().any(|kind| kind.name() == text);
        if taken { Err(InvalidNoticeName::Reserved) } else { Ok(Self(text.to_owned())) }
    }
}

impl TryFrom<String> for NoticeName {
    type Error = InvalidNoticeName;

    fn try_from(text: String) -> Result<Self, InvalidNoticeName> {
        text.parse()
    }
}

impl From<NoticeName> for String {
    fn from(name: NoticeName) -> String {
        name.0
    }
}

/// The receivers of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Every connected client.
    Everyone,
    /// The clients in the user's room.
    User(UserId),
}

/// A custom event on its way to its audience. Cloning is cheap.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notice {
    /// Its receivers.
    pub audience: Audience,
    /// The event's name.
    pub name: NoticeName,
    /// The event's payload.
    pub data: Arc<RawValue>,
    /// When the gateway accepted it.
    pub timestamp: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!("refresh:now_1.2-3".parse::<NoticeName>().is_ok());
        for wrong in ["", "a b", "é", &"x".repeat(65)] {
            assert_eq!(wrong.parse::<NoticeName>(), Err(InvalidNoticeName::Form), "{wrong:?}");
        }
        for taken in RESERVED.into_iter().chain(EventKind::ALL.map(EventKind::name)) {
            assert_eq!(taken.parse::<NoticeName>(), Err(InvalidNoticeName::Reserved), "{taken:?}");
        }
    }

    #[test]
    fn crosses_the_wire() {
        let notice = Notice {
            audience: Audience::User("u".parse().unwrap()),
            name: "hello".parse().unwrap(),
            data: RawValue::from_string("[1.00]".to_owned()).unwrap().into(),
            timestamp: Timestamp::from_millis(1).unwrap(),
        };
        let json = serde_json::to_string(&notice).unwrap();
        let back: Notice = serde_json::from_str(&json).unwrap();
        assert_eq!((back.audience, back.data.get()), (notice.audience, "[1.00]"));
    }
}
