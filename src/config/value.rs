//! One value as it was written. A file's values have types; a variable is text, which may stand for any of them.

use std::fmt;

use toml::de::DeValue;

/// What a file or a variable says about one key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The text of a variable or a flag.
    Variable(String),
    /// Text in the file.
    Text(String),
    /// An integer in the file.
    Integer(i128),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// An array in the file.
    List(Vec<Value>),
    /// A table in the file, member by member.
    Table(Vec<(String, Value)>),
    /// A time in the file.
    Time(String),
    /// Anything else in the file, in words. No key takes it.
    Other(String),
}

impl Value {
    /// The text, from whatever source.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Variable(text) | Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, which a variable writes in decimal.
    pub fn integer(&self) -> Option<i128> {
        match self {
            Value::Variable(text) => text.parse().ok(),
            Value::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// The boolean, which a variable writes as `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Value::Variable(text) => text.parse().ok(),
            Value::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }

    /// The texts of an array, which a variable writes as JSON.
    pub fn texts(&self) -> Option<Vec<String>> {
        match self {
            Value::Variable(text) => serde_json::from_str(text).ok(),
            Value::List(values) => values.iter().map(|value| value.text().map(str::to_owned)).collect(),
            _ => None,
        }
    }

    /// The values of an array, which a variable writes as JSON.
    pub fn list(&self) -> Option<Vec<Value>> {
        match self {
            Value::Variable(text) => {
                let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
                Some(values.into_iter().map(Value::from).collect())
            }
            Value::List(values) => Some(values.clone()),
            _ => None,
        }
    }

    /// A time, which may be written as text.
    pub fn time(&self) -> Option<&str> {
        match self {
            Value::Time(time) => Some(time),
            _ => self.text(),
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Bool(boolean) => Value::Boolean(boolean),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(integer) => Value::Integer(integer),
                None => Value::Other(number.to_string()),
            },
            serde_json::Value::Array(values) => Value::List(values.into_iter().map(Value::from).collect()),
            serde_json::Value::Object(members) => {
                Value::Table(members.into_iter().map(|(name, value)| (name, value.into())).collect())
            }
            serde_json::Value::Null => Value::Other("null".to_owned()),
        }
    }
}

impl From<&DeValue<'_>> for Value {
    fn from(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => Value::Other(integer.to_string()),
            },
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Array(values) => {
                Value::List(values.iter().map(|value| value.get_ref().into()).collect())
            }
            DeValue::Float(float) => Value::Other(float.to_string()),
            DeValue::Datetime(time) => Value::Time(time.to_string()),
            DeValue::Table(members) => {
                let members = members.iter();
                let own = members.map(|(name, value)| (name.get_ref().to_string(), value.get_ref().into()));
                Value::Table(own.collect())
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Variable(text) | Value::Text(text) => write!(f, "{text:?}"),
            Value::Integer(integer) => write!(f, "{integer}"),
            Value::Boolean(boolean) => write!(f, "{boolean}"),
            Value::List(values) => {
                let values: Vec<_> = values.iter().map(Value::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
            Value::Table(_) => f.write_str("a table"),
            Value::Time(time) => write!(f, "the time {time}"),
            Value::Other(words) => f.write_str(words),
        }
    }
}
