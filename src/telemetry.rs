//! Metrics and logs.

use std::{
    fmt::Write,
    io::IsTerminal,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, filter::FilterFn, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    budget::Budget,
    log_writer::{LogFlush, LogWriter},
    tasks::Tasks,
};

/// The label for the edge: `socketio` or `sse`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EdgeLabel {
    /// The edge.
    pub edge: &'static str,
}

/// The label for the kind of event: its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind.
    pub kind: &'static str,
}

/// The label for the reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason.
    pub reason: &'static str,
}

/// The label for the limit: its key below `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabel {
    /// The limit.
    pub limit: &'static str,
}

/// The label for the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// The outcome.
    pub outcome: &'static str,
}

/// No label, for a metric that is absent until it is known.
pub type NoLabels = [(&'static str, &'static str); 0];

/// The metrics of one gateway. Fields are public so that each component counts where things happen.
#[derive(Debug)]
pub struct Metrics {
    /// Open connections (an SSE stream is one).
    pub connections: Family<EdgeLabel, Gauge>,
    /// Sessions of this node.
    pub sessions: Gauge,
    /// Rooms with at least one session of this node.
    pub rooms: Gauge,
    /// Rooms that the feed covers for this node.
    pub feed_rooms: Gauge,
    /// Sessions that are behind in some room.
    pub sessions_behind: Gauge,
    /// How long the session that is behind for the longest has been behind, in seconds.
    pub behind_longest: Gauge<f64, AtomicU64>,
    /// Bytes that wait in the outboxes of all sessions.
    pub outbox: Gauge,
    /// Bytes that wait in the fullest outbox.
    pub outbox_largest: Gauge,
    /// Events accepted from publishers of this node.
    pub accepted: Family<KindLabel, Counter>,
    /// Events handed to sessions.
    pub deliveries: Family<EdgeLabel, Counter>,
    /// Catch-ups begun, by what made the session fall behind.
    pub catch_ups: Family<ReasonLabel, Counter>,
    /// How long catch-ups took, by what made the session fall behind.
    pub catch_up_seconds: Family<ReasonLabel, Histogram>,
    /// Connections that were not accepted, by the limit that they would have exceeded.
    pub connections_refused: Family<ReasonLabel, Counter>,
    /// Connections cut by the gateway.
    pub connections_cut: Family<ReasonLabel, Counter>,
    /// TLS handshakes, by how they ended.
    pub tls_handshakes: Family<OutcomeLabel, Counter>,
    /// When the certificate in use expires, in seconds since the epoch. Absent without TLS.
    pub tls_certificate_expires: Family<NoLabels, Gauge>,
    /// Sessions closed by the gateway.
    pub closed: Family<ReasonLabel, Counter>,
    /// Requests that failed, by error code.
    pub errors: Family<ReasonLabel, Counter>,
    /// What limits of users, publishers, addresses and jobs refused.
    pub limited: Family<LimitLabel, Counter>,
    /// How long it took to accept publishes.
    pub publish_seconds: Histogram,
    /// Calls of the store that failed.
    pub store_errors: Counter,
    /// Interruptions of the feed.
    pub feed_interruptions: Counter,
    /// Fetches of the JWKS, by outcome.
    pub jwks_fetches: Family<OutcomeLabel, Counter>,
    /// When the JWKS was last fetched, in seconds since 1970. 0 for never.
    pub jwks_fetched_at: Gauge,
    registry: Registry,
}

impl Metrics {
    /// A fresh registry that also shows `tasks` and `budget`.
    pub fn new(tasks: &Tasks, budget: &Budget) -> Self {
        let buckets =
            [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        let mut metrics = Self {
            connections: Family::default(),
            sessions: Gauge::default(),
            rooms: Gauge::default(),
            feed_rooms: Gauge::default(),
            sessions_behind: Gauge::default(),
            behind_longest: Gauge::default(),
            outbox: Gauge::default(),
            outbox_largest: Gauge::default(),
            accepted: Family::default(),
            deliveries: Family::default(),
            catch_ups: Family::default(),
            catch_up_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.01, 0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0])
            }),
            connections_refused: Family::default(),
            connections_cut: Family::default(),
            tls_handshakes: Family::default(),
            tls_certificate_expires: Family::default(),
            closed: Family::default(),
            errors: Family::default(),
            limited: Family::default(),
            publish_seconds: Histogram::new(buckets),
            store_errors: Counter::default(),
            feed_interruptions: Counter::default(),
            jwks_fetches: Family::default(),
            jwks_fetched_at: Gauge::default(),
            registry: Registry::with_prefix("jobcast"),
        };
        metrics.register(tasks, budget);
        metrics
    }

    fn register(&mut self, tasks: &Tasks, budget: &Budget) {
        let registry = &mut self.registry;
        registry.register("connections", "Open connections by edge", self.connections.clone());
        registry.register("sessions", "Sessions that the hub knows", self.sessions.clone());
        registry.register("rooms", "Rooms with a session of this node", self.rooms.clone());
        registry.register("feed_rooms", "Rooms that the feed covers for this node", self.feed_rooms.clone());
        registry.register("sessions_behind", "Sessions behind in some room", self.sessions_behind.clone());
        registry.register("events_accepted", "Events accepted by kind", self.accepted.clone());
        registry.register("deliveries", "Events handed to sessions by edge", self.deliveries.clone());
        registry.register("catch_ups", "Catch-ups begun by reason", self.catch_ups.clone());
        let behind = ("behind_longest", "For how long the session has been behind that has been for longest");
        registry.register_with_unit(behind.0, behind.1, Unit::Seconds, self.behind_longest.clone());
        let outbox = ("outbox", "Bytes that wait in the outboxes of all sessions");
        registry.register_with_unit(outbox.0, outbox.1, Unit::Bytes, self.outbox.clone());
        let largest = ("outbox_largest", "Bytes that wait in the outbox that holds the most");
        registry.register_with_unit(largest.0, largest.1, Unit::Bytes, self.outbox_largest.clone());
        let took = ("catch_up", "Time that catch-ups took by reason");
        registry.register_with_unit(took.0, took.1, Unit::Seconds, self.catch_up_seconds.clone());
        let (refused, cut) = (self.connections_refused.clone(), self.connections_cut.clone());
        registry.register("connections_refused", "Connections not accepted by limit", refused);
        registry.register("connections_cut", "Connections cut by the gateway by reason", cut);
        registry.register("tls_handshakes", "TLS handshakes by outcome", self.tls_handshakes.clone());
        let expires = ("tls_certificate_expires", "When the certificate in use expires, as Unix time");
        registry.register_with_unit(
            expires.0,
            expires.1,
            Unit::Seconds,
            self.tls_certificate_expires.clone(),
        );
        registry.register("sessions_closed", "Sessions closed by the gateway", self.closed.clone());
        registry.register("errors", "Requests that failed by error code", self.errors.clone());
        registry.register("limited", "Requests refused by limit", self.limited.clone());
        let publish = ("publish", "Time from a publish to its acceptance");
        registry.register_with_unit(publish.0, publish.1, Unit::Seconds, self.publish_seconds.clone());
        registry.register("store_errors", "Calls of the store that failed", self.store_errors.clone());
        registry.register("feed_interruptions", "Interruptions of the feed", self.feed_interruptions.clone());
        registry.register("jwks_fetches", "Fetches of the JWKS by outcome", self.jwks_fetches.clone());
        let fetched = ("jwks_fetched_timestamp", "When the JWKS was last fetched, in Unix time");
        registry.register_with_unit(fetched.0, fetched.1, Unit::Seconds, self.jwks_fetched_at.clone());
        let held = ("memory_held", "Bytes that count against limits.memory by purpose");
        registry.register_with_unit(held.0, held.1, Unit::Bytes, budget.held().clone());
        registry.register("tasks", "Tasks alive by name", tasks.alive().clone());
    }

    /// Counts a failed request under its code.
    pub fn count_error(&self, code: &'static str) {
        self.errors.get_or_create(&ReasonLabel { reason: code }).inc();
    }

    /// Counts what a limit refused, by the limit's key below `limits`.
    pub fn count_limited(&self, limit: &'static str) {
        self.limited.get_or_create(&LimitLabel { limit }).inc();
    }

    /// All metrics in the OpenMetrics text format, which Prometheus reads.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // This fails only if a metric cannot be encoded. The scrape then says so.
        if let Err(error) = text::encode(&mut out, &self.registry) {
            let _ = write!(out, "# encoding failed: {error}\n# EOF\n");
        }
        out
    }
}

/// Lets one line a minute into the log.
#[derive(Debug, Default)]
pub struct LogInterval(Option<Instant>);

impl LogInterval {
    /// Whether a line may be written now.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.0.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(60));
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// How logs are written to standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error, until what this answers is dropped. `RUST_LOG`, where set, wins over `level`. A second
/// call does nothing. A log that cannot be written is lost, and harms nobody.
pub fn start_logging(format: LogFormat, level: LevelFilter) -> LogFlush {
    // The embedded store logs the engine's errors itself, except those of background workers.
    let default = format!("{level},fjall=off,fjall::worker_pool=error,lsm_tree=off");
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::builder().parse_lossy(directives),
        _ => EnvFilter::builder().parse_lossy(default),
    };
    let (writer, flush) = LogWriter::start(std::io::stderr());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // It would report errors of the writer, which has none, to standard error, and panic where that fails.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let harmless = FilterFn::new(is_harmless).with_max_level_hint(LevelFilter::TRACE);
    let registry = tracing_subscriber::registry().with(filter).with(harmless);
    let _already_started = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    flush
}

/// Whether something may be logged, whatever `RUST_LOG` says. Below info libraries tell what clients send, and so their tokens.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("jobcast") || *metadata.level() <= Level::INFO
}
