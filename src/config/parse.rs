//! How each kind of value is written. A value that is not right is answered with what would be, in words that
//! follow "must be".

use std::{fs, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use tracing::level_filters::LevelFilter;

use super::value::Value;
use crate::{http::Host, net::TrustedProxies};

/// An address and a port.
pub fn address(value: &Value) -> Result<SocketAddr, String> {
    let address = value.text().and_then(|text| text.parse().ok());
    address.ok_or_else(|| "an address and a port such as \"127.0.0.1:3000\"".to_owned())
}

/// `true` or `false`.
pub fn boolean(value: &Value) -> Result<bool, String> {
    value.boolean().ok_or_else(|| "a boolean, true or false".to_owned())
}

/// An integer within `bounds`.
pub fn integer<T: TryFrom<i128>>(bounds: RangeInclusive<i128>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let integer = value.integer().filter(|integer| bounds.contains(integer));
        let integer = integer.and_then(|integer| T::try_from(integer).ok());
        integer.ok_or_else(|| format!("an integer from {} to {}", bounds.start(), bounds.end()))
    }
}

/// A span of time within `bounds`, written as `"10s"`, `"24h"` or `"1m 30s"`.
pub fn span(bounds: RangeInclusive<Duration>) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let span = value.text().and_then(|text| humantime::parse_duration(text).ok());
        span.filter(|span| bounds.contains(span)).ok_or_else(|| {
            let [least, most] = [bounds.start(), bounds.end()].map(|bound| written_span(*bound));
            format!("a span of time such as \"10s\" or \"24h\", from {least} to {most}")
        })
    }
}

/// A span of time as it is written.
pub fn written_span(span: Duration) -> String {
    format!("\"{}\"", humantime::format_duration(span))
}

/// A number of bytes within `bounds`, written as `"128KiB"` or `"8MiB"`, or as an integer.
pub fn size<T: TryFrom<u64>>(bounds: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let bytes = match value.integer() {
            Some(integer) => u64::try_from(integer).ok(),
            None => value.text().and_then(|text| text.parse::<ByteSize>().ok()).map(|size| size.as_u64()),
        };
        let bytes = bytes.filter(|bytes| bounds.contains(bytes)).and_then(|bytes| T::try_from(bytes).ok());
        bytes.ok_or_else(|| {
            let [least, most] = [bounds.start(), bounds.end()].map(|bound| ByteSize(*bound));
            format!("a number of bytes such as \"128KiB\" or \"8MiB\", from \"{least}\" to \"{most}\"")
        })
    }
}

/// One of a few words, each of which means a value.
pub fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let meant = words.iter().find(|(word, _)| value.text() == Some(word)).map(|(_, meant)| *meant);
        meant.ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            words.join(" or ")
        })
    }
}

/// What is worth a line in the log.
pub fn level(value: &Value) -> Result<LevelFilter, String> {
    let level = value.text().and_then(|text| text.parse().ok());
    level.ok_or_else(|| r#""off", "error", "warn", "info", "debug" or "trace""#.to_owned())
}

/// The embedded store's folder.
pub fn folder(value: &Value) -> Result<PathBuf, String> {
    match value.text() {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("the text of a folder's path, or \":memory:\"".to_owned()),
    }
}

/// The path of a file.
pub fn file(value: &Value) -> Result<Option<PathBuf>, String> {
    match value.text() {
        Some(path) if !path.is_empty() => Ok(Some(path.into())),
        _ => Err("the text of a file's path".to_owned()),
    }
}

/// A file that is there and has certificates.
pub fn certificates(value: &Value) -> Result<Option<PathBuf>, String> {
    let expected = "the path of a file with PEM certificates";
    let path = value.text().ok_or(expected)?;
    match fs::read_to_string(path) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => Ok(Some(path.into())),
        Ok(_) => Err(format!("{expected} (it has none)")),
        Err(error) => Err(format!("{expected} ({error})")),
    }
}

/// The texts of an array; in a variable these may also be separated by commas.
fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Variable(text) => {
            value.texts().or_else(|| Some(text.split(',').map(|part| part.trim().to_owned()).collect()))
        }
        _ => value.texts(),
    }
}

/// Origins as browsers write them.
pub fn origins(value: &Value) -> Result<Vec<String>, String> {
    let is_origin = |origin: &String| {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let is_host = |host: &str| !host.is_empty() && !host.contains(['/', ' ', '?', '#', '@']);
        origin == "*" || host.is_some_and(is_host)
    };
    list(value).filter(|origins| origins.iter().all(is_origin)).ok_or_else(|| {
        "an array of origins as browsers write them, such as \"https://app.example.com\" without a slash at the end"
            .to_owned()
    })
}

/// Names of the gateway, with or without a port.
pub fn hosts(value: &Value) -> Result<Vec<Host>, String> {
    let hosts = list(value).and_then(|hosts| hosts.iter().map(|host| host.parse().ok()).collect());
    hosts.ok_or_else(|| {
        "an array of hosts such as \"jobs.example.com\" or \"jobs.example.com:8443\", without a scheme"
            .to_owned()
    })
}

/// Addresses and networks of proxies.
pub fn proxies(value: &Value) -> Result<TrustedProxies, String> {
    let proxies = list(value).and_then(|networks| TrustedProxies::new(networks).ok());
    proxies
        .ok_or_else(|| "an array of addresses and networks such as \"10.0.0.7\" or \"10.0.0.0/8\"".to_owned())
}

/// One server, or some of a cluster's; in a variable these are separated by commas.
pub fn redis_urls(value: &Value) -> Result<Vec<String>, String> {
    let urls = value.texts().or_else(|| {
        // A password may hold a comma.
        value.text().map(|urls| urls.replace(",redis", "\nredis").lines().map(str::to_owned).collect())
    });
    let is_url = |url: &String| url.starts_with("redis://") || url.starts_with("rediss://");
    urls.filter(|urls| !urls.is_empty() && urls.iter().all(is_url)).ok_or_else(|| {
        "redis://[user:password@]host:port[/db], or rediss://… with TLS; an array of URLs is one cluster"
            .to_owned()
    })
}

/// What comes before every key and channel.
pub fn key_prefix(value: &Value) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
    let prefix = value.text().filter(|prefix| prefix.len() <= 128 && prefix.chars().all(allowed));
    prefix
        .map(str::to_owned)
        .ok_or_else(|| "text of at most 128 visible ASCII characters other than { } * ? [ ] \\".to_owned())
}
