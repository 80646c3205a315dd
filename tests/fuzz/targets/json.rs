//! Untyped JSON and drafts: as another reader of JSON has them, and to the letter.

use jobcast::{
    Draft, JobEvent, Timestamp,
    internals::{MAX_DEPTH, Members, TooDeep, compact},
};
use serde_json::{Value, value::RawValue};

use super::assert_short;

/// The members of an object are those that another reader finds, and white space alone is lost where a value is compacted.
pub fn members(bytes: &[u8]) {
    let raw = serde_json::from_slice::<&RawValue>(bytes);
    let members = match Members::read(bytes) {
        Ok(members) => members,
        Err(error) => {
            assert_short(&error);
            let value = serde_json::from_slice::<Value>(bytes);
            assert!(!value.is_ok_and(|value| value.is_object()), "an object is refused: {error}");
            return;
        }
    };
    let raw = raw.expect("what has members is JSON");
    let names: Vec<&str> = members.names().collect();
    for name in &names {
        if let Some(value) = members.get(name) {
            compacted(value);
        }
    }
    // It refuses numbers beyond its own, and depths beyond its own; otherwise both agree.
    let Ok(Value::Object(value)) = serde_json::from_str(raw.get()) else { return };
    for name in names {
        let expected = value.get(name).filter(|value| !value.is_null());
        let got = members.get(name).map(|got| serde_json::from_str::<Value>(got.get()).expect("it is JSON"));
        assert_eq!(got.as_ref(), expected, "{name:?}");
        if let (Some(Value::String(expected)), Ok(text)) = (expected, members.text(name)) {
            assert_eq!(text.as_ref(), Some(expected));
        }
        match members.text_or_number(name) {
            Ok(Some(text)) => {
                assert_eq!(expected.map(Value::is_string).unwrap_or_default(), members.text(name).is_ok());
                assert!(text.len() <= bytes.len().max(128));
            }
            Ok(None) => assert_eq!(expected, None),
            Err(problem) => assert_short(&problem),
        }
    }
}

fn compacted(value: &RawValue) {
    match compact(value) {
        Ok(text) => {
            assert!(!text.contains(['\n', '\r']) && text.len() <= value.get().len());
            let again = RawValue::from_string(text.clone()).expect("it is JSON still");
            assert_eq!(compact(&again).as_ref(), Ok(&text));
            let [before, after] = [value.get(), &text].map(serde_json::from_str::<Value>);
            assert_eq!(before.ok(), after.ok());
        }
        Err(TooDeep) => {
            assert!(value.get().bytes().filter(|byte| b"[{".contains(byte)).count() > MAX_DEPTH);
        }
    }
}

/// An accepted event is one line of JSON that reads back as what was accepted, and that is the same event if it is published
/// again.
pub fn drafts(bytes: &[u8]) {
    let Ok(members) = Members::read(bytes) else { return };
    let draft = match Draft::read_whole(&members) {
        Ok(draft) => draft,
        Err(error) => return assert_short(&error),
    };
    let at = Timestamp::from_millis(1_700_000_000_123).expect("it is in range");
    let event = draft.accept(draft.owner(), at, 7);
    let json = event.json().get();
    assert!(!json.contains(['\n', '\r']), "an event is one line: {json}");
    let back = JobEvent::parse(json.to_owned()).expect("an accepted event reads back");
    assert_eq!((back.job(), back.kind(), back.owner()), (draft.job(), draft.kind(), draft.owner()));
    assert_eq!((back.seq(), back.timestamp(), back.json().get()), (7, at, json));

    let members = Members::of(event.json()).expect("an event is an object");
    let again = Draft::read_whole(&members).expect("an accepted event can be published again");
    assert_eq!((again.head(), again.fingerprint()), (draft.head(), draft.fingerprint()));
}
