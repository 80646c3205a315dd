//! The configuration: the sum of the components' options, read from a file and the environment (contract,
//! section 11). Precedence: flags, environment, file, defaults.

mod parse;
mod sources;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use serde::Deserialize;

pub use self::sources::{ConfigError, Environment};
use crate::{
    gateway::GatewayOptions,
    http::{CorsOptions, HttpOptions},
    server::ServerOptions,
    socketio::SocketIoOptions,
    store::{Backend, HistoryOptions, RedisOptions, StoreOptions},
    telemetry::LogFormat,
};

/// The file that is read from the working directory when it is there and no other is named.
pub const DEFAULT_FILE: &str = "config.toml";

/// All that can be configured. Every value in it is possible by itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    server: Server,
    /// How to log.
    pub log: Log,
    cors: Cors,
    store: Store,
    redis: Redis,
    history: History,
    auth: Auth,
    limits: Limits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Server {
    #[serde(deserialize_with = "parse::text")]
    listen: SocketAddr,
    #[serde(deserialize_with = "parse::size::<_, 1024, 1_073_741_824>")]
    max_payload: ByteSize,
    #[serde(deserialize_with = "parse::size::<_, 1024, 1_073_741_824>")]
    max_batch: ByteSize,
    #[serde(deserialize_with = "parse::span::<_, 0, 3_600_000>")]
    shutdown_grace: Duration,
    #[serde(deserialize_with = "parse::span::<_, 0, 3_600_000>")]
    drain_notice: Duration,
    #[serde(deserialize_with = "parse::span::<_, 0, 3_600_000>")]
    drain_window: Duration,
    #[serde(deserialize_with = "parse::span::<_, 100, 3_600_000>")]
    ping_interval: Duration,
    #[serde(deserialize_with = "parse::span::<_, 100, 3_600_000>")]
    ping_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            max_payload: ByteSize::kib(128),
            max_batch: ByteSize::mib(8),
            shutdown_grace: Duration::from_secs(10),
            drain_notice: Duration::from_millis(500),
            drain_window: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// How to log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    #[serde(deserialize_with = "parse::log_format")]
    pub format: LogFormat,
    /// What is worth a line.
    #[serde(deserialize_with = "parse::level")]
    pub level: tracing::level_filters::LevelFilter,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: tracing::level_filters::LevelFilter::INFO }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cors {
    #[serde(deserialize_with = "parse::origins")]
    origins: Vec<String>,
    credentials: bool,
}

impl Default for Cors {
    fn default() -> Self {
        let CorsOptions { origins, credentials } = CorsOptions::default();
        Self { origins, credentials }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackendName {
    Embedded,
    Redis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Store {
    #[serde(deserialize_with = "parse::backend")]
    backend: BackendName,
    #[serde(deserialize_with = "parse::path")]
    path: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        Self { backend: BackendName::Embedded, path: "data".into() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Redis {
    #[serde(rename = "url", deserialize_with = "parse::redis_urls")]
    urls: Vec<String>,
    ca_file: Option<PathBuf>,
    #[serde(deserialize_with = "parse::key_prefix")]
    key_prefix: String,
    #[serde(deserialize_with = "parse::whole::<_, 0, 100>")]
    wait_replicas: u64,
}

impl Default for Redis {
    fn default() -> Self {
        let RedisOptions { urls, ca_file, key_prefix, wait_replicas } =
            RedisOptions::new("redis://127.0.0.1:6379");
        Self { urls, ca_file, key_prefix, wait_replicas: wait_replicas.into() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct History {
    #[serde(deserialize_with = "parse::whole::<_, 1, 100_000>")]
    max_events: u64,
    #[serde(deserialize_with = "parse::span::<_, 1_000, 31_536_000_000>")]
    retention: Duration,
    #[serde(deserialize_with = "parse::whole::<_, 1, 10_000_000>")]
    room_entries: u64,
}

impl Default for History {
    fn default() -> Self {
        let HistoryOptions { max_events, retention, room_entries } = HistoryOptions::default();
        Self { max_events: max_events as u64, retention, room_entries: room_entries as u64 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthMode {
    None,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Auth {
    #[serde(rename = "mode", deserialize_with = "parse::auth_mode")]
    _mode: AuthMode,
    allow_anonymous: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self { _mode: AuthMode::None, allow_anonymous: false }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    #[serde(deserialize_with = "parse::whole::<_, 1, 1_000_000>")]
    rooms_per_client: u64,
    #[serde(deserialize_with = "parse::whole::<_, 1, 1_000_000>")]
    messages_per_second: u64,
    #[serde(deserialize_with = "parse::whole::<_, 128, 1_000_000>")]
    outbox: u64,
    #[serde(deserialize_with = "parse::size::<_, 1024, 1_073_741_824>")]
    outbox_bytes: ByteSize,
    #[serde(deserialize_with = "parse::span::<_, 1_000, 3_600_000>")]
    behind: Duration,
    #[serde(deserialize_with = "parse::whole::<_, 1, 1_000_000>")]
    handshakes: u64,
    #[serde(deserialize_with = "parse::span::<_, 100, 3_600_000>")]
    handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (gateway, server) = (GatewayOptions::default(), ServerOptions::default());
        let socketio = server.socketio;
        Self {
            rooms_per_client: gateway.rooms_per_client as u64,
            messages_per_second: socketio.messages_per_second.into(),
            outbox: socketio.outbox as u64,
            outbox_bytes: ByteSize(socketio.outbox_bytes),
            behind: gateway.behind,
            handshakes: socketio.handshakes as u64,
            handshake_timeout: server.handshake_timeout,
        }
    }
}

/// What flags say; they win over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// Reads the file (the default one if it is there, the named one in any case) and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] says which file or variable, which key, and what would be right.
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut config = sources::read(file, environment)?;
        if let Some(listen) = overrides.listen {
            config.server.listen = listen;
        }
        let set_by = |variable: &str| match environment.contains_key(variable) {
            true => variable.to_owned(),
            false => file.unwrap_or(Path::new(DEFAULT_FILE)).display().to_string(),
        };
        let listen = || match overrides.listen {
            Some(_) => "--listen".to_owned(),
            None => set_by("JOBCAST_SERVER__LISTEN"),
        };
        config.check_listen().map_err(|problem| ConfigError::new(format!("{}: {problem}", listen())))?;
        let origins = || set_by("JOBCAST_CORS__ORIGINS");
        config.check_origins().map_err(|problem| ConfigError::new(format!("{}: {problem}", origins())))?;
        Ok(config)
    }

    /// An address that only goes with other settings.
    fn check_listen(&self) -> Result<(), String> {
        match self.server.listen.ip().is_loopback() || self.auth.allow_anonymous {
            true => Ok(()),
            false => Err(format!(
                "server.listen: with auth.mode = \"none\" anybody who reaches {} could read and publish everything; \
                 listen on a loopback address such as 127.0.0.1, or set auth.allow_anonymous = true to mean it",
                self.server.listen
            )),
        }
    }

    /// Origins that only go with other settings.
    fn check_origins(&self) -> Result<(), &'static str> {
        match self.cors.credentials && self.cors.origins.iter().any(|origin| origin == "*") {
            true => Err(
                "cors.origins: \"*\" cannot go with cors.credentials = true; name the origins, or set it to false",
            ),
            false => Ok(()),
        }
    }

    /// The options of the store.
    pub fn store(&self) -> StoreOptions {
        let backend = match self.store.backend {
            BackendName::Redis => Backend::Redis(RedisOptions {
                urls: self.redis.urls.clone(),
                ca_file: self.redis.ca_file.clone(),
                key_prefix: self.redis.key_prefix.clone(),
                wait_replicas: u32::try_from(self.redis.wait_replicas).unwrap_or(u32::MAX),
            }),
            BackendName::Embedded if self.store.path.as_os_str() == ":memory:" => Backend::Memory,
            BackendName::Embedded => Backend::Embedded(self.store.path.clone()),
        };
        let History { max_events, retention, room_entries } = self.history;
        let (max_events, room_entries) = (count(max_events), count(room_entries));
        StoreOptions { backend, history: HistoryOptions { max_events, retention, room_entries } }
    }

    /// The options of the gateway itself.
    pub fn gateway(&self) -> GatewayOptions {
        GatewayOptions { rooms_per_client: count(self.limits.rooms_per_client), behind: self.limits.behind }
    }

    /// The options of the server and its edges.
    pub fn server(&self) -> ServerOptions {
        let (server, limits) = (&self.server, &self.limits);
        let max_payload = count(server.max_payload.as_u64());
        let max_batch = count(server.max_batch.as_u64());
        let (outbox, outbox_bytes) = (count(limits.outbox), limits.outbox_bytes.as_u64());
        ServerOptions {
            listen: server.listen,
            shutdown_grace: server.shutdown_grace,
            drain_notice: server.drain_notice,
            drain_window: server.drain_window,
            handshake_timeout: limits.handshake_timeout,
            cors: CorsOptions { origins: self.cors.origins.clone(), credentials: self.cors.credentials },
            http: HttpOptions { max_payload, max_batch, outbox, outbox_bytes },
            socketio: SocketIoOptions {
                ping_interval: server.ping_interval,
                ping_timeout: server.ping_timeout,
                handshakes: count(limits.handshakes),
                handshake_timeout: limits.handshake_timeout,
                max_payload,
                outbox,
                outbox_bytes,
                messages_per_second: u32::try_from(limits.messages_per_second).unwrap_or(u32::MAX),
                joins_rooms: false,
            },
        }
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
