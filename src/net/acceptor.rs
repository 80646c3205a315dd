//! Accepts connections, within the limits of the node and of each address.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use futures_util::FutureExt;
use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    Io,
    addresses::{AddressLimits, AddressPlace, Addresses},
    certificate::Tls,
    handshake,
    outbox::Outbox,
    proxies::TrustedProxies,
    reader::AdaptiveReader,
    reading::{Patience, ReadDeadline},
    serve::{Serving, serve},
    stream::Stream,
    supervisor::Supervisor,
};
use crate::telemetry::{LogInterval, OutcomeLabel, ReasonLabel};

/// The bounds of connections, and whose they are.
#[derive(Debug, Clone)]
pub struct NetOptions {
    /// How long a connection may take to its first request, and every later request's head from its first byte to its
    /// last.
    pub handshake_timeout: Duration,
    /// How long a connection may pause between two requests.
    pub idle: Duration,
    /// The least rate at which a peer sends a body and takes an answer, in bytes a second. It counts over some 10
    /// seconds.
    pub min_rate: u64,
    /// How many connections may be open at once. `None` for as many as there are files.
    pub connections: Option<usize>,
    /// How many of them one address may have; an IPv6 network of 64 bits counts as one. `None` for 10,000, and for any
    /// number from this machine. A trusted proxy has no such bound.
    pub connections_per_address: Option<usize>,
    /// How many new ones an address may open in a second. `None` for 1,000, and for any number from this machine.
    pub connections_per_second: Option<u32>,
    /// The proxies that say whose request they hand on.
    pub trusted_proxies: TrustedProxies,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(20),
            idle: Duration::from_secs(75),
            min_rate: 1024,
            connections: None,
            connections_per_address: None,
            connections_per_second: None,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

impl NetOptions {
    /// Many clients of this machine may come by one proxy.
    fn of_address(&self, address: SocketAddr) -> AddressLimits {
        if self.trusted_proxies.contains(address.ip()) {
            return AddressLimits { open: usize::MAX, per_second: u32::MAX };
        }
        let is_local = address.ip().to_canonical().is_loopback();
        let (open, per_second) = if is_local { (usize::MAX, u32::MAX) } else { (10_000, 1000) };
        AddressLimits {
            open: self.connections_per_address.unwrap_or(open),
            per_second: self.connections_per_second.unwrap_or(per_second),
        }
    }
}

/// How many connections beyond the limit may ask whether the node lives.
pub const FOR_PROBES: usize = 16;

/// How long such a connection may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Pause after `accept` failed for want of resources.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A connection's place within the limits. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _address: Option<AddressPlace>,
}

impl Place {
    pub fn new(permit: OwnedSemaphorePermit, address: Option<AddressPlace>) -> Self {
        Self { _permit: permit, _address: address }
    }
}

/// Accepts connections and serves them.
#[derive(Debug)]
pub struct Acceptor {
    options: NetOptions,
    write_timeout: Duration,
    limit: usize,
    places: Arc<Semaphore>,
    /// Places beyond the limit.
    probes: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    supervisor: Arc<Supervisor>,
    refused: Family<ReasonLabel, Counter>,
    tls: Option<Tls>,
    handshakes: Family<OutcomeLabel, Counter>,
    /// Not every refused connection is logged.
    log: LogInterval,
}

impl Acceptor {
    /// At most `files` connections are open at once. Sent data may stay unacknowledged for `write_timeout`. What is
    /// refused is counted.
    pub fn new(
        options: NetOptions,
        files: usize,
        write_timeout: Duration,
        supervisor: Arc<Supervisor>,
        refused: Family<ReasonLabel, Counter>,
    ) -> Self {
        let files = files.saturating_sub(FOR_PROBES).clamp(1, Semaphore::MAX_PERMITS);
        let limit = options.connections.map_or(files, |connections| connections.min(files));
        Self {
            options,
            write_timeout,
            limit,
            places: Arc::new(Semaphore::new(limit)),
            probes: Arc::new(Semaphore::new(FOR_PROBES)),
            addresses: Arc::default(),
            supervisor,
            refused,
            tls: None,
            handshakes: Family::default(),
            log: LogInterval::default(),
        }
    }

    /// Speaks TLS. Handshakes are counted.
    pub fn with_tls(self, tls: Tls, handshakes: Family<OutcomeLabel, Counter>) -> Self {
        Self { tls: Some(tls), handshakes, ..self }
    }

    /// Serves the router until `stop` is cancelled, and then until all requests in progress are answered. No connection
    /// is accepted once `closing` is cancelled, but for those that wait in the backlog by then.
    pub async fn run(
        mut self,
        listener: TcpListener,
        router: Router,
        closing: CancellationToken,
        stop: CancellationToken,
    ) {
        let (open, while_open) = watch::channel(());
        let router = router.with_state(());
        while let Some(accepted) = next(&listener, &closing).await {
            match accepted {
                Ok((stream, address)) => {
                    if let Some((io, is_probe)) = self.set_up(stream, address) {
                        let proxies = self.options.trusted_proxies.clone();
                        let serving = Serving::new(&io, address.ip(), proxies, is_probe, router.clone());
                        let served = self.serve(io, serving, stop.clone());
                        let while_open = while_open.clone();
                        self.supervisor.tasks().spawn_until_stop("connections", async move {
                            served.await;
                            drop(while_open);
                        });
                    }
                }
                Err(error) => self.back_off(&error).await,
            }
        }
        drop((listener, while_open));
        stop.cancelled().await;
        open.closed().await;
    }

    /// Serves a connection, after the TLS handshake if there has to be one.
    fn serve(
        &self,
        io: Io,
        serving: Serving,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (patience, handshakes) = (io.deadline.patience().head, self.handshakes.clone());
        async move {
            let handshake = handshake::complete(io.outbox.stream(), patience, &handshakes);
            if stop.run_until_cancelled(handshake).await == Some(true) {
                serve(io, serving, stop).await;
            }
        }
    }

    /// Sets a connection up, or refuses it. Says whether it is one beyond the limit.
    fn set_up(&mut self, stream: TcpStream, address: SocketAddr) -> Option<(Io, bool)> {
        let limits = self.options.of_address(address);
        let (place, is_probe) = match self.places.clone().try_acquire_owned() {
            Ok(permit) => {
                let Some(place) = self.addresses.enter(address.ip(), limits, Instant::now()) else {
                    return self.refuse("address", Some(address));
                };
                (Place::new(permit, Some(place)), false)
            }
            Err(_) => match self.probes.clone().try_acquire_owned() {
                Ok(permit) => (Place::new(permit, None), true),
                Err(_) => return self.refuse("node", None),
            },
        };
        let patience = match is_probe {
            true => Patience { head: PROBE_PATIENCE, idle: PROBE_PATIENCE },
            false => Patience { head: self.options.handshake_timeout, idle: self.options.idle },
        };
        let stream = Stream::new(stream, self.write_timeout);
        let stream = match &self.tls {
            None => stream,
            Some(tls) => stream.with_tls(tls.config()).ok()?,
        };
        let io = Io {
            outbox: Arc::new(Outbox::new(stream, self.supervisor.clone(), place)),
            deadline: ReadDeadline::new(patience),
            reader: AdaptiveReader::default(),
        };
        Some((io, is_probe))
    }

    fn refuse<T>(&mut self, reason: &'static str, address: Option<SocketAddr>) -> Option<T> {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
        if self.log.is_due() {
            match address {
                Some(address) => tracing::warn!(
                    address = %address.ip(),
                    "refusing connections of an address that opens too many (limits.connections_per_address, \
                     limits.connections_per_second)"
                ),
                None => tracing::warn!(
                    open = self.limit,
                    "refusing connections: no more may be open (limits.connections, and the limit of open files, \
                     ulimit -n)"
                ),
            }
        }
        None
    }

    /// Waits before the next attempt: a lack of descriptors or memory may last.
    async fn back_off(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        if self.log.is_due() {
            tracing::warn!(%error, "cannot accept connections");
        }
        tokio::time::sleep(ACCEPT_BACKOFF).await;
    }
}

/// The next connection. `None` once no more are accepted and the backlog is empty.
async fn next(
    listener: &TcpListener,
    closing: &CancellationToken,
) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    match closing.run_until_cancelled(listener.accept()).await {
        Some(accepted) => Some(accepted),
        None => listener.accept().now_or_never(),
    }
}
