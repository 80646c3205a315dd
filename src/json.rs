//! JSON that passes through: payloads keep their digits, lose their white space and may not nest without end.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How deep `data` and `result` may nest (contract, section 1).
pub const MAX_DEPTH: usize = 128;

/// A JSON value that nests deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must not nest deeper than {MAX_DEPTH} levels")]
pub struct TooDeep;

/// Writes `value` without white space between its tokens and otherwise to the letter, so that numbers beyond
/// 2^53 keep every digit and an event stays on one line.
///
/// # Errors
/// [`TooDeep`] beyond [`MAX_DEPTH`] levels of arrays and objects.
pub fn compact(value: &RawValue) -> Result<String, TooDeep> {
    let source = value.get();
    let mut out = String::with_capacity(source.len());
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for c in source.chars() {
        if in_string {
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else {
            match c {
                '"' => in_string = true,
                '[' | '{' => depth += 1,
                ']' | '}' => depth -= 1,
                ' ' | '\t' | '\n' | '\r' => continue,
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Err(TooDeep);
            }
        }
        out.push(c);
    }
    Ok(out)
}

/// The members of a JSON object, still unparsed. Of a repeated name the last one counts, as in JavaScript;
/// `null` counts as absent.
#[derive(Debug)]
pub struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

/// A member's name, borrowed where it has no escapes.
#[derive(Debug, serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Why a text is not a JSON object.
#[derive(Debug, thiserror::Error)]
pub enum NotAnObject {
    /// The text is not JSON at all.
    #[error("malformed JSON: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The text is JSON, and something other than an object.
    #[error("must be a JSON object, got {0}")]
    Other(&'static str),
}

impl<'a> Members<'a> {
    /// Reads `text` as one object.
    ///
    /// # Errors
    /// [`NotAnObject`] says whether the text was malformed or merely of another kind.
    pub fn read(text: &'a [u8]) -> Result<Self, NotAnObject> {
        match text.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice(text).map_err(NotAnObject::Malformed),
            _ => Self::of(serde_json::from_slice(text).map_err(NotAnObject::Malformed)?),
        }
    }

    /// The members of `value`.
    ///
    /// # Errors
    /// [`NotAnObject::Other`] where it is of another kind; `Malformed` where a name has a lone surrogate.
    pub fn of(value: &'a RawValue) -> Result<Self, NotAnObject> {
        match kind(value) {
            "an object" => serde_json::from_str(value.get()).map_err(NotAnObject::Malformed),
            other => Err(NotAnObject::Other(other)),
        }
    }

    /// The names of all members, also of those that are `null`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(Name(name), _)| name.as_ref())
    }

    /// The member of this name, unless absent or `null`.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let last = self.0.iter().rev().find(|(Name(found), _)| found == name);
        last.map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    /// The member of this name, which must be a string.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow its name.
    pub fn text(&self, name: &str) -> Result<Option<String>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match kind(value) {
            "a string" => {
                serde_json::from_str(value.get()).map(Some).map_err(|_| "must be valid Unicode".to_owned())
            }
            other => Err(format!("must be a string, got {other}")),
        }
    }

    /// The member of this name, which must be a string, or a number that stands for its decimal string.
    ///
    /// # Errors
    /// As [`Members::text`].
    pub fn text_or_number(&self, name: &str) -> Result<Option<String>, String> {
        match self.get(name) {
            Some(value) if kind(value) == "a number" => Ok(Some(decimal(value.get()))),
            _ => self.text(name),
        }
    }
}

/// A JSON number without its exponent.
fn decimal(number: &str) -> String {
    match number.parse::<f64>() {
        Ok(value) if number.contains(['e', 'E']) => value.to_string(),
        _ => number.to_owned(),
    }
}

/// What kind of JSON value this is, in words for an error message.
pub fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn keeps_digits_and_strings() {
        let text = "{ \"a\" : [ 9007199254740993.10 , 1E400, \"x \\\" ] \\\\\" ] ,\n\t\"__proto__\":{ } }";
        let expected = "{\"a\":[9007199254740993.10,1E400,\"x \\\" ] \\\\\"],\"__proto__\":{}}";
        assert_eq!(compact(&raw(text)).unwrap(), expected);
    }

    #[test]
    fn bounds_nesting() {
        let nested = |depth: usize| raw(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        assert!(compact(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(compact(&nested(MAX_DEPTH + 1)), Err(TooDeep));
        assert_eq!(compact(&nested(100_000)), Err(TooDeep));
    }

    #[test]
    fn reads_members() {
        let members = Members::read(br#" {"a":1,"b":null,"a":2} "#).unwrap();
        assert_eq!(members.get("a").unwrap().get(), "2");
        assert!(members.get("b").is_none());
        assert!(matches!(Members::read(b"[1]"), Err(NotAnObject::Other("an array"))));
        assert!(matches!(Members::read(b"{\"a\":}"), Err(NotAnObject::Malformed(_))));
        assert!(matches!(Members::read(b"{\"a\":NaN}"), Err(NotAnObject::Malformed(_))));
        assert!(matches!(Members::read(b"\xff"), Err(NotAnObject::Malformed(_))));
    }

    proptest! {
        #[test]
        fn compacting_changes_no_value(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let compacted = compact(&raw(&pretty)).unwrap();
            prop_assert_eq!(compacted, serde_json::to_string(&value).unwrap());
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
