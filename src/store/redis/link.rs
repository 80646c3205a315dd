//! How this node speaks to the Redis server: one shared connection for commands, that comes back by itself.

use std::{future::Future, path::PathBuf, time::Duration};

use redis::{
    Client, IntoConnectionInfo, ProtocolVersion, RedisResult, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::{TcpSettings, socket2},
};

use crate::store::{OpenError, StoreError};

/// How long a command may take, the wait for a connection included, before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How often a reconnect is tried before the commands that wait for it are told.
const RETRIES: usize = 16;

/// Where the Redis server is, and how to speak to it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://` or, with TLS, `rediss://`; may name an ACL user and a password.
    pub url: String,
    /// A file with the certificates of the authorities to trust, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// What comes before every key and channel.
    pub key_prefix: String,
}

/// Connections to one Redis server.
#[derive(Clone)]
pub struct Link {
    client: Client,
    commands: ConnectionManager,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl From<redis::RedisError> for StoreError {
    fn from(error: redis::RedisError) -> Self {
        StoreError(format!("redis: {error}"))
    }
}

impl From<redis::ParsingError> for StoreError {
    fn from(error: redis::ParsingError) -> Self {
        StoreError(format!("redis: unexpected answer: {error}"))
    }
}

impl Link {
    /// Connects, and fails if the server does not answer soon.
    pub async fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        let failed = |error: redis::RedisError| {
            OpenError(format!(
                "cannot use the Redis server of redis.url ({}): {error}",
                without_password(&options.url)
            ))
        };
        let client = client(options)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(RETRIES)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(MAX_PAUSE)
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(2)));
        // Probed first, because the manager itself would go on trying for long.
        let probe = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<()>(&mut connection).await
        };
        match tokio::time::timeout(DEADLINE, probe).await {
            Ok(answer) => answer.map_err(failed)?,
            Err(_) => {
                return Err(OpenError(format!(
                    "redis.url ({}) does not answer",
                    without_password(&options.url)
                )));
            }
        }
        let commands = ConnectionManager::new_with_config(client.clone(), config).await.map_err(failed)?;
        Ok(Self { client, commands })
    }

    /// The connection for commands. Nothing that blocks may be sent on it.
    pub fn commands(&self) -> ConnectionManager {
        self.commands.clone()
    }

    /// What other connections are made from.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for an answer, at most until the deadline.
    pub async fn within_deadline<T>(
        &self,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(StoreError("redis: no answer in time".to_owned())),
        }
    }
}

fn client(options: &RedisOptions) -> Result<Client, OpenError> {
    let wrong = |error: redis::RedisError| {
        OpenError(format!("redis.url must be redis://[user:password@]host:port[/db] or rediss://…: {error}"))
    };
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(socket2::TcpKeepalive::new().with_time(Duration::from_secs(10)));
    let info = options.url.as_str().into_connection_info().map_err(wrong)?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    let info = info.set_tcp_settings(tcp).set_redis_settings(settings);
    let Some(path) = &options.ca_file else { return Client::open(info).map_err(wrong) };
    let root_cert = std::fs::read(path)
        .map_err(|error| OpenError(format!("cannot read redis.ca_file ({}): {error}", path.display())))?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
        .map_err(wrong)
}

/// The URL as it may stand in a log.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}
