//! Whose request a proxy hands on: the client's address by `X-Forwarded-For`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose `X-Forwarded-For` counts. Cloning is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// A text that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} must be an address such as \"10.0.0.7\", or a network such as \"10.0.0.0/8\"")]
pub struct InvalidNetwork(String);

impl TrustedProxies {
    /// Proxies by their addresses or networks.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, InvalidNetwork> {
        texts.into_iter().map(|text| network(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address is one of these proxies'.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client: what the peer is, or where that is a trusted proxy, whom it names; and so on, from the right. What a
    /// proxy has put there that is no address leaves the proxy itself.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // Several headers are one list (RFC 9110, section 5.3).
        let values = headers.get_all(FORWARDED_FOR).iter();
        let named = values.rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for text in named {
            if !self.contains(client) {
                break;
            }
            let Some(address) = address(text) else { break };
            client = address;
        }
        client
    }
}

fn network(text: &str) -> Result<IpNet, InvalidNetwork> {
    let network =
        text.parse::<IpNet>().or_else(|_| text.parse().map(|address: IpAddr| address.to_canonical().into()));
    network.map_err(|_| InvalidNetwork(text.to_owned()))
}

/// An address, to which some proxies add a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let address = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let value = |text: &&str| (FORWARDED_FOR, HeaderValue::from_str(text).unwrap());
        let headers = forwarded.iter().map(value).collect();
        TrustedProxies::new(trusted).unwrap().client(peer.parse().unwrap(), &headers).to_string()
    }

    const PROXIES: [&str; 4] = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::ffff:198.51.100.1"];

    #[test]
    fn the_client_is_the_right_most_address_that_is_no_proxy() {
        for (peer, forwarded, expected) in [
            ("10.1.2.3", &["203.0.113.7"][..], "203.0.113.7"),
            ("10.1.2.3", &["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
            ("10.1.2.3", &["6.6.6.6, 203.0.113.7, 192.0.2.1,10.9.9.9"], "203.0.113.7"),
            ("10.1.2.3", &["6.6.6.6", "203.0.113.7", "192.0.2.1"], "203.0.113.7"),
            ("10.1.2.3", &["203.0.113.7:4711"], "203.0.113.7"),
            ("2001:db8::7", &["[2001:db9::1]:4711, ::ffff:192.0.2.1"], "2001:db9::1"),
            ("::ffff:10.0.0.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
            ("198.51.100.1", &["203.0.113.7"], "203.0.113.7"),
            // Not by a proxy.
            ("203.0.113.9", &["6.6.6.6"], "203.0.113.9"),
            ("10.1.2.3", &[], "10.1.2.3"),
            // Proxies alone.
            ("10.1.2.3", &["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            // What is no address.
            ("10.1.2.3", &["203.0.113.7, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["203.0.113.7, unknown, 10.0.0.8"], "10.0.0.8"),
            ("10.1.2.3", &[""], "10.1.2.3"),
            ("10.1.2.3", &["203.0.113.7,"], "10.1.2.3"),
            ("10.1.2.3", &["203.0.113.7 10.0.0.8"], "10.1.2.3"),
        ] {
            assert_eq!(client(&PROXIES, peer, forwarded), expected, "{peer} {forwarded:?}");
        }
        assert_eq!(client(&[], "127.0.0.1", &["6.6.6.6"]), "127.0.0.1");
    }

    #[test]
    fn takes_addresses_and_networks_alone() {
        for text in ["", "proxy.example", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "*"] {
            assert_eq!(TrustedProxies::new([text]), Err(InvalidNetwork(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn nobody_outside_decides_who_they_are(forged in "[ -~]{0,60}", by_proxies in 0_usize..3) {
            let hops = ["203.0.113.7", "10.0.0.8", "10.0.0.9"];
            let forwarded = format!("{forged},{}", hops[..=by_proxies].join(", "));
            prop_assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[&forwarded]), "203.0.113.7");
            prop_assert_eq!(client(&["10.0.0.0/8"], "203.0.113.7", &[&forwarded]), "203.0.113.7");
        }
    }
}
