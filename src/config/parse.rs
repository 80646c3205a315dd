//! How values are written, and what would be right where they are not.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de::Error};
use tracing::level_filters::LevelFilter;

use super::{AuthMode, BackendName};
use crate::telemetry::LogFormat;

/// Anything that is written as text.
pub fn text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| {
        D::Error::custom(format!("{error}; got {text:?}, expected such as \"127.0.0.1:3000\""))
    })
}

/// A whole number from `MIN` to `MAX`.
pub fn whole<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<u64, D::Error> {
    match i64::deserialize(deserializer)? {
        number if u64::try_from(number).is_ok_and(|number| (MIN..=MAX).contains(&number)) => {
            Ok(number.unsigned_abs())
        }
        number => Err(D::Error::custom(format!("must be from {MIN} to {MAX}, got {number}"))),
    }
}

/// A span of time of `MIN` to `MAX` milliseconds, written as `"10s"`, `"24h"` or `"1m 30s"`.
pub fn span<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let span = humantime_serde::re::humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!("must be a span of time such as \"10s\" or \"24h\", got {text:?}: {error}"))
    })?;
    let (least, most) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
    if (least..=most).contains(&span) {
        return Ok(span);
    }
    let written = humantime_serde::re::humantime::format_duration;
    Err(D::Error::custom(format!(
        "must be from \"{}\" to \"{}\", got {text:?}",
        written(least),
        written(most)
    )))
}

/// A number of bytes from `MIN` to `MAX`, written as `"128KiB"` or `"8MiB"`, or as a number.
pub fn size<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<ByteSize, D::Error> {
    let text = String::deserialize(deserializer)?;
    let size: ByteSize = text.parse().map_err(|_| {
        D::Error::custom(format!("must be a number of bytes such as \"128KiB\" or \"8MiB\", got {text:?}"))
    })?;
    if (MIN..=MAX).contains(&size.as_u64()) {
        return Ok(size);
    }
    Err(D::Error::custom(format!(
        "must be from \"{}\" to \"{}\", got {text:?}",
        ByteSize(MIN),
        ByteSize(MAX)
    )))
}

/// One of a few words, each of which means a value.
fn choice<'de, D: Deserializer<'de>, T: Copy>(deserializer: D, words: &[(&str, T)]) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let meant = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    meant.ok_or_else(|| {
        let right: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        D::Error::custom(format!("must be {}, got {text:?}", right.join(" or ")))
    })
}

pub fn log_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    choice(deserializer, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

pub fn backend<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BackendName, D::Error> {
    choice(deserializer, &[("embedded", BackendName::Embedded), ("redis", BackendName::Redis)])
}

pub fn auth_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AuthMode, D::Error> {
    choice(deserializer, &[("none", AuthMode::None)])
}

pub fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LevelFilter, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("must be off, error, warn, info, debug or trace, got {text:?}"))
    })
}

pub fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.is_empty() {
        true => Err(D::Error::custom("must be a folder, or \":memory:\"; got an empty string")),
        false => Ok(text.into()),
    }
}

/// Origins as browsers write them.
pub fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let origins = Vec::<String>::deserialize(deserializer)?;
    let wrong = origins.iter().find(|origin| {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        *origin != "*" && host.is_none_or(|host| host.is_empty() || host.contains(['/', ' ', '?', '#', '@']))
    });
    match wrong {
        None => Ok(origins),
        Some(wrong) => Err(D::Error::custom(format!(
            "must be origins as browsers write them, such as \"https://app.example.com\" without a slash at the end, got {wrong:?}"
        ))),
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a URL, or an array of URLs of one cluster")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// One server, or some of a cluster's; in a variable these are separated by commas.
pub fn redis_urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let urls = match OneOrMany::deserialize(deserializer)? {
        // A password may hold a comma.
        OneOrMany::One(urls) => urls.replace(",redis", "\nredis").lines().map(str::to_owned).collect(),
        OneOrMany::Many(urls) => urls,
    };
    match !urls.is_empty()
        && urls.iter().all(|url| url.starts_with("redis://") || url.starts_with("rediss://"))
    {
        true => Ok(urls),
        // Not repeated: it may hold a password.
        false => Err(D::Error::custom(
            "must be redis://[user:password@]host:port[/db], or rediss://… with TLS; several of one cluster as an array",
        )),
    }
}

pub fn key_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let prefix = String::deserialize(deserializer)?;
    let allowed = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
    match prefix.len() <= 128 && prefix.chars().all(allowed) {
        true => Ok(prefix),
        false => Err(D::Error::custom(format!(
            "must be at most 128 visible ASCII characters other than {{ }} * ? [ ] \\, got {prefix:?}"
        ))),
    }
}
