//! Where Redis is, and how a connection is made.

use std::{path::PathBuf, time::Duration};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult,
    TlsCertificates,
    io::tcp::{TcpSettings, socket2},
};

use super::error::Error;

/// Where the Redis servers are, and how to speak to them.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://` or, with TLS, `rediss://`; may name an ACL user and a password. One server, or some of those of
    /// one cluster.
    pub urls: Vec<String>,
    /// A file with the certificates of the authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What comes before every key and channel.
    pub key_prefix: String,
    /// How many replicas must have an event before it is answered; 0 for none.
    pub wait_replicas: u32,
}

impl RedisOptions {
    /// One server, with no prefix.
    pub fn new(url: &str) -> Self {
        Self { urls: vec![url.to_owned()], ca_file: None, key_prefix: String::new(), wait_replicas: 0 }
    }
}

/// How every server is spoken to.
#[derive(Debug)]
pub struct Dialer {
    info: ConnectionInfo,
    authorities: Option<Vec<u8>>,
}

impl Dialer {
    /// Speaks to servers as the first URL says.
    pub fn new(options: &RedisOptions) -> Result<Self, Error> {
        let url =
            options.urls.first().ok_or_else(|| Error::Options("redis.url names no server".to_owned()))?;
        let read = |path: &PathBuf| {
            let wrong =
                |error| Error::Options(format!("cannot read redis.ca_file ({}): {error}", path.display()));
            std::fs::read(path).map_err(wrong)
        };
        Ok(Self { info: connection_info(url)?, authorities: options.ca_file.as_ref().map(read).transpose()? })
    }

    /// The server of a URL.
    pub fn url(&self, url: &str) -> Result<Client, Error> {
        let wrong = |error| Error::Options(format!("redis.url cannot be used: {error}"));
        self.client(connection_info(url)?).map_err(wrong)
    }

    /// The server of a host and port.
    pub fn address(&self, host: &str, port: u16) -> RedisResult<Client> {
        let host = host.to_owned();
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.client(self.info.clone().set_addr(address))
    }

    fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        match self.authorities.clone() {
            Some(root) => {
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root) })
            }
            None => Client::open(info),
        }
    }
}

fn connection_info(url: &str) -> Result<ConnectionInfo, Error> {
    let info = url.into_connection_info().map_err(|error| {
        Error::Options(format!(
            "redis.url must be redis://[user:password@]host:port[/db] or rediss://…: {error}"
        ))
    })?;
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(socket2::TcpKeepalive::new().with_time(Duration::from_secs(10)));
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    Ok(info.set_tcp_settings(tcp).set_redis_settings(settings))
}

/// The URL as it may stand in a log.
pub fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}
