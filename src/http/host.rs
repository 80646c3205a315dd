//! Checks `Host`: by which names the gateway may be called. A web page whose name suddenly leads to this machine (DNS
//! rebinding) still calls by that name, and is refused.

use std::{fmt, net::IpAddr, str::FromStr};

use axum::{
    extract::Request,
    http::{HeaderValue, header},
};

use crate::error::{ApiError, ErrorCode};

/// The names by which the gateway may be called.
///
/// They are checked if any is named, or if the check is `required`. `localhost` and IP addresses are always among them,
/// because no page can have them and come from elsewhere. `/healthz` and `/readyz` answer by any name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Names, each with a port or for all ports.
    pub names: Vec<Host>,
    /// Whether to check even if no name is given. It must be so where callers are not authenticated.
    pub required: bool,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { names: Vec::new(), required: true }
    }
}

/// A host as a URL names it (RFC 3986, section 3.2.2), with its port if that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: Name,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// In lower case, without a dot at the end.
    Domain(String),
    Address(IpAddr),
}

/// A text that names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a name or an address, such as \"jobs.example.com\", \"jobs.example.com:8443\" or \"[::1]:3000\""
)]
pub struct InvalidHost;

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let end = match text.starts_with('[') {
            true => text.find(']').map(|end| end + 1),
            false => Some(text.find(':').unwrap_or(text.len())),
        };
        let (name, rest) = end.and_then(|end| text.split_at_checked(end)).ok_or(InvalidHost)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(parse_port(port).ok_or(InvalidHost)?),
            None if rest.is_empty() => None,
            None => return Err(InvalidHost),
        };
        Ok(Self { name: parse_name(name).ok_or(InvalidHost)?, port })
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn parse_name(name: &str) -> Option<Name> {
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']')?.parse();
        return address.ok().map(|address| Name::Address(IpAddr::V6(address)));
    }
    if let Ok(address) = name.parse() {
        return Some(Name::Address(IpAddr::V4(address)));
    }
    let domain = name.strip_suffix('.').unwrap_or(name);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_allowed);
    // Where the last label is a number, browsers take the whole for an IPv4 address.
    let ends_in_letters = !domain.rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    let is_domain = domain.len() <= 253 && domain.split('.').all(is_label) && ends_in_letters;
    is_domain.then(|| Name::Domain(domain.to_ascii_lowercase()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Domain(domain) => f.write_str(domain)?,
            Name::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            Name::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Host {
    /// Whether this name of ours is the one that a request gives. A request leaves out its scheme's port.
    fn covers(&self, called: &Host) -> bool {
        let port_fits = match (self.port, called.port) {
            (None, _) => true,
            (Some(80 | 443), None) => true,
            (ours, given) => ours == given,
        };
        self.name == called.name && port_fits
    }
}

/// The paths that answer by any name: load balancers ask them, and they tell nothing.
const FREE: [&str; 2] = ["/healthz", "/readyz"];

impl HostOptions {
    /// Checks the host in the request's target, if there is one, and in its header. Both must be ours.
    pub(super) fn check(&self, request: &Request) -> Option<ApiError> {
        if (!self.required && self.names.is_empty()) || FREE.contains(&request.uri().path()) {
            return None;
        }
        let target = request.uri().authority().map(|authority| authority.as_str());
        let header = request.headers().get(header::HOST).map(HeaderValue::as_bytes).map(std::str::from_utf8);
        if target.is_none() && header.is_none() {
            return Some(forbidden("the request names no host; send a Host header"));
        }
        let header = header.map(Result::unwrap_or_default);
        let foreign = target.into_iter().chain(header).find(|text| !self.allows(text))?;
        Some(forbidden(&format!(
            "the host {foreign:.200?} is not one of this gateway's: call it by localhost or an IP address, or name the \
             host in server.hosts"
        )))
    }

    fn allows(&self, text: &str) -> bool {
        let Ok(called) = text.parse::<Host>() else { return false };
        match &called.name {
            Name::Address(_) => true,
            Name::Domain(domain) if domain == "localhost" => true,
            Name::Domain(_) => self.names.iter().any(|name| name.covers(&called)),
        }
    }
}

fn forbidden(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use proptest::prelude::*;

    use super::*;

    fn options(names: &[&str]) -> HostOptions {
        HostOptions { names: names.iter().map(|name| name.parse().unwrap()).collect(), required: true }
    }

    const OURS: [&str; 12] = [
        "localhost",
        "LocalHost:3000",
        "localhost.",
        "localhost.:1",
        "127.0.0.1",
        "192.0.2.7:65535",
        "[::1]",
        "[2001:DB8::1]:3000",
        "jobs.example.com",
        "JOBS.example.COM.:8443",
        "one-port.example:8443",
        "default.example",
    ];

    const FOREIGN: [&str; 40] = [
        "",
        " ",
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "localhost.localdomain",
        "jobs.example.com.evil.example",
        "xjobs.example.com",
        "one-port.example",
        "one-port.example:84430",
        "one-port.example:08444",
        "default.example:8443",
        "localhost..",
        ".localhost",
        ".",
        "localhost:",
        "localhost:+1",
        "localhost: 1",
        "localhost:65536",
        "localhost:3000:3000",
        "localhost:3000/",
        "localhost/",
        "localhost,evil.example",
        "user@localhost",
        "localhost@evil.example",
        "evil.example#localhost",
        "evil.example\\localhost",
        "http://localhost",
        "local%68ost",
        "::1",
        "[::1",
        "[::1]x",
        "[::1].evil.example",
        "[::1%eth0]",
        "[127.0.0.1]",
        "[localhost]",
        "127.0.0.1.evil.example",
        "127.1",
        "0127.0.0.1",
        "127.0.0.1.",
    ];

    #[test]
    fn knows_its_own_names() {
        let options = options(&["jobs.example.com", "One-Port.example:8443", "default.example:443"]);
        for ours in OURS {
            assert!(options.allows(ours), "{ours:?}");
        }
        for foreign in FOREIGN {
            assert!(!options.allows(foreign), "{foreign:?}");
        }
    }

    fn check(options: &HostOptions, target: &str, host: Option<&str>) -> bool {
        let request =
            host.into_iter().fold(Request::get(target), |request, host| request.header("host", host));
        options.check(&request.body(Body::empty()).unwrap()).is_none()
    }

    #[test]
    fn the_target_and_the_header_must_both_be_ours() {
        let required = options(&["jobs.example.com"]);
        for (target, host, passes) in [
            ("/", Some("localhost:3000"), true),
            ("/", Some("evil.example"), false),
            ("/", None, false),
            ("/healthz", Some("evil.example"), true),
            ("/readyz", None, true),
            ("/readyz/", Some("evil.example"), false),
            ("/metrics", Some("evil.example"), false),
            ("http://evil.example/", Some("localhost"), false),
            ("http://evil.example/healthz", None, true),
            ("http://localhost:3000/", Some("evil.example"), false),
            ("http://user@localhost/", Some("localhost"), false),
            ("http://localhost:3000/", Some("localhost:3000"), true),
            ("http://jobs.example.com/", None, true),
        ] {
            assert_eq!(check(&required, target, host), passes, "{target} {host:?}");
        }
    }

    #[test]
    fn nothing_is_checked_unless_required_or_named() {
        let open = HostOptions { names: Vec::new(), required: false };
        let named = HostOptions { required: false, ..options(&["jobs.example.com"]) };
        assert!(check(&open, "/", Some("evil.example")) && check(&open, "/", None));
        assert!(!check(&named, "/", Some("evil.example")) && check(&named, "/", Some("jobs.example.com")));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "([a-z0-9._-]{1,12}|\\[[0-9a-f:]{2,9}\\])(:[0-9]{1,5})?") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert_eq!(host.to_string().parse(), Ok(host));
            }
        }

        #[test]
        fn no_text_makes_another_host_ours(text in "\\PC{0,40}") {
            let ours = options(&[]).allows(&text);
            let name = text.to_ascii_lowercase();
            let is_local = name.starts_with("localhost") || name.starts_with('[') || name.starts_with(|c: char| c.is_ascii_digit());
            prop_assert!(!ours || is_local, "{:?}", text);
        }

        #[test]
        fn letters_before_and_after_make_it_foreign(before in "[a-z.-]{0,5}", after in "[a-z.-]{0,5}") {
            let text = format!("{before}localhost{after}");
            let name = text.strip_suffix('.').unwrap_or(&text);
            prop_assert_eq!(options(&[]).allows(&text), name == "localhost");
        }
    }
}
