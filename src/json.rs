//! Untyped JSON: payloads keep every digit, lose their white space, and have a bounded depth.

use std::{
    borrow::Cow,
    fmt::{self, Display},
    marker::PhantomData,
    str::FromStr,
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::value::RawValue;

/// The greatest depth of `data` and `result` (contract, section 1).
pub const MAX_DEPTH: usize = 128;

/// The longest decimal text of a number that stands for a string, in characters: as long as an id may be.
const MAX_DECIMAL: usize = 128;

/// How many characters of a name are shown that is not known.
const MAX_SHOWN: usize = 64;

/// A JSON value that nests deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must not nest deeper than {MAX_DEPTH} levels")]
pub struct TooDeep;

/// Writes `value` without white space between its tokens. Nothing else changes: numbers beyond 2^53 keep every digit.
/// The result is one line.
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

/// A structure that is written as a JSON object. By itself one that is derived takes an array of its members as well.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Structure<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Structure<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Structure(PhantomData))
    }
}

/// The members of a JSON object, not parsed yet. If a name is repeated, its last value counts, as in JavaScript. `null`
/// counts as absent.
#[derive(Debug)]
pub struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

/// A member's name, borrowed if it has no escapes.
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
    /// The text is JSON, but not an object.
    #[error("must be a JSON object, got {0}")]
    Other(&'static str),
}

impl<'a> Members<'a> {
    /// Reads `text` as one object.
    ///
    /// # Errors
    /// [`NotAnObject`] says whether the text was malformed or of another kind.
    pub fn read(text: &'a [u8]) -> Result<Self, NotAnObject> {
        match text.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice(text).map_err(NotAnObject::Malformed),
            _ => Self::of(serde_json::from_slice(text).map_err(NotAnObject::Malformed)?),
        }
    }

    /// The members of `value`.
    ///
    /// # Errors
    /// [`NotAnObject::Other`] if it is of another kind, `Malformed` if a name has a lone surrogate.
    pub fn of(value: &'a RawValue) -> Result<Self, NotAnObject> {
        match kind(value) {
            "an object" => serde_json::from_str(value.get()).map_err(NotAnObject::Malformed),
            other => Err(NotAnObject::Other(other)),
        }
    }

    /// The names of all members, including those that are `null`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(Name(name), _)| name.as_ref())
    }

    /// The beginning of the first name that is not among those known.
    pub fn unknown(&self, known: &[&str]) -> Option<String> {
        let name = self.names().find(|name| !known.contains(name))?;
        Some(name.chars().take(MAX_SHOWN).collect())
    }

    /// The member of this name, unless absent or `null`.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let last = self.0.iter().rev().find(|(Name(found), _)| found == name);
        last.map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    /// The member of this name, which must be a string.
    ///
    /// # Errors
    /// The problem, in words that follow the name.
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
            Some(value) if kind(value) == "a number" => match decimal(value.get()) {
                Some(text) => Ok(Some(text)),
                None => {
                    Err(format!("must be a number of at most {MAX_DECIMAL} characters in decimal notation"))
                }
            },
            _ => self.text(name),
        }
    }

    /// What is written in the member of this name, which must be as [`Members::text_or_number`] has it.
    ///
    /// # Errors
    /// The name, and the problem.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        let text = self.text_or_number(name).map_err(|problem| format!("{name}: {problem}"))?;
        text.map(|text| text.parse()).transpose().map_err(|error| format!("{name}: {error}"))
    }
}

/// The decimal text of a JSON number: exact, without an exponent, and the same for equal numbers. `None` if it has more
/// than [`MAX_DECIMAL`] characters.
fn decimal(number: &str) -> Option<String> {
    let (sign, unsigned) = number.split_at(usize::from(number.starts_with('-')));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let without_leading = digits.trim_start_matches('0');
    let significant = without_leading.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    // The number of significant digits before the point. A negative value counts the zeros after the point.
    let leading = i64::try_from(digits.len() - without_leading.len()).ok()?;
    let point =
        exponent.parse::<i64>().ok()?.checked_add(i64::try_from(whole.len()).ok()?)?.checked_sub(leading)?;
    let zeros =
        |count: i64| usize::try_from(count).ok().filter(|count| *count <= MAX_DECIMAL).map(|n| "0".repeat(n));
    let text = match usize::try_from(point) {
        Ok(0) | Err(_) => format!("{sign}0.{}{significant}", zeros(point.checked_neg()?)?),
        Ok(point) => match significant.split_at_checked(point) {
            Some((before, "")) => format!("{sign}{before}"),
            Some((before, after)) => format!("{sign}{before}.{after}"),
            None => format!("{sign}{significant}{}", zeros(i64::try_from(point - significant.len()).ok()?)?),
        },
    };
    Some(text).filter(|text| text.len() <= MAX_DECIMAL)
}

/// The kind of a JSON value, in words for an error message.
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

    #[test]
    fn numbers_become_their_decimal_text() {
        let cases = [
            ("0", "0"),
            ("-0", "0"),
            ("0e9999999999999999999999", "0"),
            ("-0.0e-3", "0"),
            ("7", "7"),
            ("-7", "-7"),
            ("1200", "1200"),
            ("12345678901234567890", "12345678901234567890"),
            ("1.5", "1.5"),
            ("1.50", "1.5"),
            ("1.0", "1"),
            ("-0.25", "-0.25"),
            ("10.01", "10.01"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("1.5e3", "1500"),
            ("1.2345e2", "123.45"),
            ("12e-1", "1.2"),
            ("1e-3", "0.001"),
            ("0.001e3", "1"),
            ("9007199254740993e0", "9007199254740993"),
            ("100e-2", "1"),
        ];
        for (number, text) in cases {
            assert_eq!(decimal(number).as_deref(), Some(text), "{number}");
        }
        assert_eq!(decimal("1e127"), Some(format!("1{}", "0".repeat(127))));
        assert_eq!(decimal("1e-126"), Some(format!("0.{}1", "0".repeat(125))));
        let beyond = ["1e128", "-1e127", "1e-127", "1e400", "-1e400", "1e-400", "1e9223372036854775807"];
        let endless = ["1e-9223372036854775808", "1e99999999999999999999", "1e-99999999999999999999"];
        for number in beyond.iter().chain(&endless) {
            assert_eq!(decimal(number), None, "{number}");
        }
        assert_eq!(decimal(&"1".repeat(129)), None);
        let members = Members::read(br#"{"jobId":1e400,"userId":1e3}"#).unwrap();
        assert!(members.text_or_number("jobId").unwrap_err().contains("at most 128 characters"));
        assert_eq!(members.text_or_number("userId").unwrap().as_deref(), Some("1000"));
    }

    proptest! {
        #[test]
        fn decimal_text_is_the_number_itself(number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?") {
            let value: f64 = number.parse().unwrap();
            if let Some(text) = decimal(&number) {
                prop_assert_eq!(text.parse::<f64>().unwrap(), value, "{}", text);
                prop_assert!(!text.contains(['e', 'E', '+']));
                prop_assert_eq!(decimal(&text), Some(text.clone()));
            }
        }

        #[test]
        fn decimal_text_keeps_every_digit(integer in 1..=i64::MAX, zeros in 0..19u32) {
            let power = 10i128.pow(zeros);
            let (whole, rest) = (i128::from(integer) / power, i128::from(integer) % power);
            prop_assert_eq!(decimal(&format!("{integer}e{zeros}")), Some((i128::from(integer) * power).to_string()));
            let fraction = format!("{rest:0width$}", width = zeros as usize);
            let expected = format!("{whole}.{fraction}").trim_end_matches('0').trim_end_matches('.').to_owned();
            prop_assert_eq!(decimal(&format!("{integer}e-{zeros}")), Some(expected));
        }

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
