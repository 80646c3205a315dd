//! The configuration: the sum of the components' options, read from a file and the environment (contract,
//! section 11). Precedence: flags, environment, file, defaults.

mod auth;
mod parse;
mod settings;
mod sources;
mod value;

use std::{net::SocketAddr, path::Path, time::Duration};

pub use self::{settings::ConfigError, sources::Environment};
use self::{
    settings::{Place, Settings},
    value::Value,
};
use crate::{
    auth::{AuthMode, AuthOptions},
    gateway::GatewayOptions,
    http::{CorsOptions, HostOptions, HttpOptions},
    net::{NetOptions, Tls, TlsError},
    server::ServerOptions,
    socketio::SocketIoOptions,
    store::{Backend, HistoryOptions, RedisOptions, StoreOptions},
    telemetry::LogFormat,
};

/// The file that is read from the working directory when it is there and no other is named.
pub const DEFAULT_FILE: &str = "config.toml";

/// The file that is read: the named one, or the default one where it is there.
pub fn file(named: Option<&Path>) -> Option<&Path> {
    named.or_else(|| Some(Path::new(DEFAULT_FILE)).filter(|file| file.exists()))
}

/// All that can be configured. Every value in it is possible by itself, and goes with the others.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to log.
    pub log: Log,
    /// The options of the store.
    pub store: StoreOptions,
    /// The options of the gateway itself.
    pub gateway: GatewayOptions,
    /// Who is asked for what.
    pub auth: AuthOptions,
    /// The options of the server and its edges.
    pub server: ServerOptions,
}

/// How to log.
#[derive(Debug, Clone)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is worth a line.
    pub level: tracing::level_filters::LevelFilter,
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
    /// [`ConfigError`] says everything that is wrong: where it was written, which key, and what would be right.
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut settings = Settings::default();
        sources::add_file(&mut settings, file);
        sources::add_environment(&mut settings, environment);
        if let Some(listen) = overrides.listen {
            settings.add("server.listen", Place::Flag("--listen"), Value::Variable(listen.to_string()));
        }
        let config = Self::read(&mut settings);
        settings.finish().map(|()| config)
    }

    /// Every key is named here, and nowhere else in the code.
    fn read(settings: &mut Settings) -> Self {
        let (auth, ownerless_jobs) = auth::read(settings);
        let server = read_server(settings, &auth);
        let formats = parse::choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let log = Log {
            format: settings.get("log.format", formats, LogFormat::Text),
            level: settings.get("log.level", parse::level, tracing::level_filters::LevelFilter::INFO),
        };
        let store = read_store(settings);
        let default = GatewayOptions::default();
        let gateway = GatewayOptions {
            rooms_per_client: settings.get(
                "limits.rooms_per_client",
                parse::integer(1..=1_000_000),
                default.rooms_per_client,
            ),
            behind: settings.get("limits.behind", parse::span(SECOND..=HOUR), default.behind),
            ownerless_jobs,
            memory: settings.get("limits.memory", parse::size(16 * MIB..=1024 * GIB), default.memory),
        };
        Self { log, store, gateway, auth, server }
    }
}

const MOMENT: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * 1024 * 1024;

fn read_server(settings: &mut Settings, auth: &AuthOptions) -> ServerOptions {
    let default = ServerOptions::default();
    let max_payload = settings.get("server.max_payload", parse::size(KIB..=GIB), default.http.max_payload);
    let outbox = settings.get("limits.outbox", parse::integer(128..=1_000_000), default.http.outbox);
    let outbox_bytes = settings.get("limits.outbox_bytes", parse::size(KIB..=GIB), default.http.outbox_bytes);
    let net = read_net(settings, default.net.clone());
    let edge = default.socketio;
    let socketio = SocketIoOptions {
        ping_interval: settings.get("server.ping_interval", parse::span(MOMENT..=HOUR), edge.ping_interval),
        ping_timeout: settings.get("server.ping_timeout", parse::span(MOMENT..=HOUR), edge.ping_timeout),
        handshakes: settings.get("limits.handshakes", parse::integer(1..=1_000_000), edge.handshakes),
        handshake_timeout: net.handshake_timeout,
        max_payload,
        outbox,
        outbox_bytes,
        messages_per_second: settings.get(
            "limits.messages_per_second",
            parse::integer(1..=1_000_000),
            edge.messages_per_second,
        ),
        joins_rooms: false,
    };
    let max_batch = settings.get("server.max_batch", parse::size(KIB..=GIB), default.http.max_batch);
    let asks = matches!(auth.mode, AuthMode::Jwt(_));
    let (shutdown_grace, drain_notice, drain_window) = read_stop(settings, &default);
    ServerOptions {
        listen: read_listen(settings, default.listen, asks),
        shutdown_grace,
        drain_notice,
        drain_window,
        tls: read_tls(settings),
        net,
        hosts: read_hosts(settings, asks),
        cors: read_cors(settings),
        http: HttpOptions { max_payload, max_batch, outbox, outbox_bytes },
        socketio,
    }
}

fn read_net(settings: &mut Settings, default: NetOptions) -> NetOptions {
    let many = 1..=10_000_000;
    let some = |value: &Value| parse::integer(many.clone())(value).map(Some);
    NetOptions {
        handshake_timeout: settings.get(
            "limits.handshake_timeout",
            parse::span(MOMENT..=HOUR),
            default.handshake_timeout,
        ),
        idle: settings.get("limits.idle", parse::span(MOMENT..=HOUR), default.idle),
        min_rate: settings.get("limits.min_rate", parse::size(1..=GIB), default.min_rate),
        connections: settings.get("limits.connections", some, default.connections),
        connections_per_address: settings.get(
            "limits.connections_per_address",
            some,
            default.connections_per_address,
        ),
        connections_per_second: settings.get(
            "limits.connections_per_second",
            |value| parse::integer(many.clone())(value).map(Some),
            default.connections_per_second,
        ),
        trusted_proxies: settings.get("server.trusted_proxies", parse::proxies, default.trusted_proxies),
    }
}

/// The grace of a stop, and the parts of it that are for telling others. A part that is not set is as long as its
/// default where the grace allows it; the server sees to that.
fn read_stop(settings: &mut Settings, default: &ServerOptions) -> (Duration, Duration, Duration) {
    const GRACE: &str = "server.shutdown_grace";
    let mut span = |key, default| settings.get(key, parse::span(Duration::ZERO..=HOUR), default);
    let grace = span(GRACE, default.shutdown_grace);
    let notice = span("server.drain_notice", default.drain_notice);
    let window = span("server.drain_window", default.drain_window);
    for (key, part, most, share) in [
        ("server.drain_notice", notice, grace / 4, "a quarter"),
        ("server.drain_window", window, grace / 2, "half"),
    ] {
        settings.rule(&[key, GRACE], part <= most, || {
            let [most, part] = [most, part].map(parse::written_span);
            format!("must be at most {share} of {GRACE}, which is {most}, got {part}")
        });
    }
    (grace, notice, window)
}

fn read_listen(settings: &mut Settings, default: SocketAddr, asks: bool) -> SocketAddr {
    let listen = settings.get("server.listen", parse::address, default);
    let anonymous = settings.get("auth.allow_anonymous", parse::boolean, false);
    let keys = ["server.listen", "auth.allow_anonymous", "auth.mode"];
    settings.rule(&keys, asks || listen.ip().is_loopback() || anonymous, || {
        format!(
            "with auth.mode = \"none\" anybody who reaches {listen} could read and publish everything; listen on a \
             loopback address such as 127.0.0.1, set auth.mode = \"jwt\", or set auth.allow_anonymous = true to mean it"
        )
    });
    listen
}

fn read_hosts(settings: &mut Settings, asks: bool) -> HostOptions {
    let names = settings.get("server.hosts", parse::hosts, Vec::new());
    HostOptions { required: !asks || !names.is_empty(), names }
}

fn read_tls(settings: &mut Settings) -> Option<Tls> {
    const FILES: [&str; 2] = ["server.tls_cert_file", "server.tls_key_file"];
    let [cert, key] = FILES.map(|file| settings.get(file, parse::file, None));
    for (file, other) in [(FILES[0], FILES[1]), (FILES[1], FILES[0])] {
        settings.rule(&[file, other], cert.is_some() == key.is_some(), || {
            format!("goes with {other}, which is not set")
        });
    }
    let error = match Tls::load(&cert?, &key?) {
        Ok(tls) => return Some(tls),
        Err(error) => error,
    };
    let file = match error {
        TlsError::Certificate { .. } => FILES[0],
        TlsError::Key { .. } => FILES[1],
    };
    settings.rule(&[file], false, || error.to_string());
    None
}

fn read_cors(settings: &mut Settings) -> CorsOptions {
    let default = CorsOptions::default();
    let origins = settings.get("cors.origins", parse::origins, default.origins);
    let credentials = settings.get("cors.credentials", parse::boolean, default.credentials);
    let everybody = origins.iter().any(|origin| origin == "*");
    settings.rule(&["cors.origins", "cors.credentials"], !(everybody && credentials), || {
        "\"*\" cannot go with cors.credentials = true; name the origins, or set it to false".to_owned()
    });
    CorsOptions { origins, credentials }
}

#[derive(Debug, Clone, Copy)]
enum BackendName {
    Embedded,
    Redis,
}

fn read_store(settings: &mut Settings) -> StoreOptions {
    let names = parse::choice(&[("embedded", BackendName::Embedded), ("redis", BackendName::Redis)]);
    let name = settings.get("store.backend", names, BackendName::Embedded);
    let path = settings.get("store.path", parse::folder, "data".into());
    let default = RedisOptions::new("redis://127.0.0.1:6379");
    let redis = RedisOptions {
        urls: settings.get("redis.url", parse::redis_urls, default.urls),
        ca_file: settings.get("redis.ca_file", parse::certificates, default.ca_file),
        key_prefix: settings.get("redis.key_prefix", parse::key_prefix, default.key_prefix),
        wait_replicas: settings.get("redis.wait_replicas", parse::integer(0..=100), default.wait_replicas),
    };
    let backend = match name {
        BackendName::Redis => Backend::Redis(redis),
        BackendName::Embedded if path.as_os_str() == ":memory:" => Backend::Memory,
        BackendName::Embedded => Backend::Embedded(path),
    };
    let default = HistoryOptions::default();
    let history = HistoryOptions {
        max_events: settings.get("history.max_events", parse::integer(1..=100_000), default.max_events),
        retention: settings.get("history.retention", parse::span(SECOND..=YEAR), default.retention),
        room_entries: settings.get(
            "history.room_entries",
            parse::integer(1..=10_000_000),
            default.room_entries,
        ),
    };
    StoreOptions { backend, history }
}

#[cfg(test)]
mod tests;
