//! Identifiers, rooms and positions: what is read is written again as it was, and nothing else is read.

use jobcast::{IdempotencyKey, JobId, NoticeName, Pattern, Position, Room, Timestamp, UserId};

use super::{assert_short, text};

/// Identifiers, idempotency keys, patterns and names of notices follow their rules to the letter.
pub fn ids(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let is_id = |text: &str| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte))
    };
    match text.parse::<JobId>() {
        Ok(id) => assert!(is_id(text) && id.as_str() == text && id.to_string() == text),
        Err(error) => {
            assert!(!is_id(text));
            assert_short(&error);
        }
    }
    let quoted = serde_json::to_string(text).expect("a text can be written");
    let from_json: Option<UserId> = serde_json::from_str(&quoted).ok();
    assert_eq!(from_json.as_ref().map(UserId::as_str), Some(text).filter(|text| is_id(text)));

    let is_key = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    assert_eq!(text.parse::<IdempotencyKey>().is_ok(), is_key);

    match text.parse::<Pattern>() {
        Ok(pattern) => {
            assert!(pattern.to_string() == text && (text == "*" || is_id(text.trim_end_matches('*'))))
        }
        Err(error) => {
            assert!(!is_id(text));
            assert_short(&error);
        }
    }
    if let Ok(name) = text.parse::<NoticeName>() {
        assert!(name.as_str() == text && text.len() <= 64 && is_id(text) && !text.contains('@'));
    }
}

/// A room is written as it was read, and the kind in front of its colon is its own.
pub fn rooms(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match text.parse::<Room>() {
        Ok(room) => {
            assert_eq!(room.to_string(), text);
            let kind = text.split(':').next().unwrap_or_default();
            let expected = match room {
                Room::Job(_) => "job",
                Room::User(_) => "user",
                Room::Tenant(_) => "tenant",
                Room::AllJobs => "all-jobs",
            };
            assert_eq!(kind, expected);
        }
        Err(error) => assert_short(&error),
    }
}

/// Positions and times mean the same when they are written and read again, and their order is that of what they mean.
pub fn positions(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let mut read = Vec::new();
    for text in text.split('\n') {
        match text.parse::<Timestamp>() {
            Ok(time) => {
                assert_eq!(time.to_string().parse(), Ok(time));
                assert_eq!(time.millis().to_string().parse(), Ok(time));
                assert_eq!(text.parse(), Ok(Position::before(time)), "a time is a position");
            }
            Err(error) => assert_short(&error),
        }
        match text.parse::<Position>() {
            Ok(position) => {
                assert_eq!(position.to_string().parse(), Ok(position));
                read.push(position);
            }
            Err(error) => assert_short(&error),
        }
    }
    for pair in read.windows(2) {
        let [one, other] = [pair[0], pair[1]].map(|position| (position.millis(), position.number()));
        assert_eq!(pair[0].cmp(&pair[1]), one.cmp(&other));
    }
}
