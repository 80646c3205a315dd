//! The server: all edges on one listener, from the first accepted connection to the orderly end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Authenticator,
    drain::Draining,
    fd_limit,
    gateway::Gateway,
    http::{self, CallerRules, CorsOptions, HostOptions, HttpOptions},
    net::{Acceptor, NetOptions, Supervisor, Tls},
    socketio::{self, SocketIoOptions, Sockets},
};

/// Options of the server and its edges.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The address to listen on. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// How long the node reports that it is not ready before it disconnects anybody. At most a quarter of the grace.
    pub drain_notice: Duration,
    /// How long disconnecting many clients may take. At most half of the grace.
    pub drain_window: Duration,
    /// The TLS to speak; plain HTTP without.
    pub tls: Option<Tls>,
    /// The bounds of connections.
    pub net: NetOptions,
    /// The names by which the gateway may be called. An application that mounts the [`router`] and authenticates callers
    /// itself may leave the check out.
    pub hosts: HostOptions,
    /// The other origins that may call the gateway.
    pub cors: CorsOptions,
    /// The HTTP edge.
    pub http: HttpOptions,
    /// The Socket.IO edge.
    pub socketio: SocketIoOptions,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            shutdown_grace: Duration::from_secs(10),
            drain_notice: Duration::from_millis(500),
            drain_window: Duration::from_secs(5),
            tls: None,
            net: NetOptions::default(),
            hosts: HostOptions::default(),
            cors: CorsOptions::default(),
            http: HttpOptions::default(),
            socketio: SocketIoOptions::default(),
        }
    }
}

/// All edges as one router for another axum application, and a handle with which that application closes the sockets at
/// its end.
///
/// Where that application is served by `axum::serve`, the addresses of clients are unknown, connections have no bounds, and
/// neither have the bytes that wait for a slow one. [`Server::merge`] adds routes to a server that has all of that.
pub fn router(gateway: &Gateway, auth: &Authenticator, options: &ServerOptions) -> (Router, Sockets) {
    edges(gateway, auth, options, Draining::default())
}

fn edges(
    gateway: &Gateway,
    auth: &Authenticator,
    options: &ServerOptions,
    draining: Draining,
) -> (Router, Sockets) {
    let router = http::routes(gateway.clone(), options.http, auth.clone(), draining);
    let (router, sockets) = socketio::mount(router, gateway, auth, options.socketio);
    let callers = CallerRules {
        hosts: options.hosts.clone(),
        cors: options.cors.clone(),
        speaks_tls: options.tls.is_some(),
    };
    (http::with_middleware(router, gateway, callers), sockets)
}

/// The listen backlog. The kernel may cap it.
const BACKLOG: u32 = 8192;

/// How long long-polling clients have to ask once more. The pause between two polls is short.
const LAST_POLL: Duration = Duration::from_secs(1);

/// Shares of the grace for the steps of a shutdown. The rest is for requests and writes in progress.
mod grace_share {
    /// The node reports that it is not ready.
    pub const NOTICE: f64 = 0.25;
    /// Clients are disconnected one by one.
    pub const WINDOW: f64 = 0.5;
    /// Long-polling clients ask once more.
    pub const LAST_POLL: f64 = 0.125;
    /// Of the remaining time: requests in progress. The rest is for the gateway.
    pub const REQUESTS: f64 = 0.75;
    /// Of the remaining time: sockets that have not closed yet.
    pub const SOCKETS: f64 = 0.5;
}

/// A server that is bound to its address and does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    gateway: Gateway,
    auth: Authenticator,
    options: ServerOptions,
    others: Router,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// The error of the system, for example if the address is in use.
    pub async fn bind(gateway: Gateway, auth: Authenticator, options: ServerOptions) -> io::Result<Self> {
        let socket = if options.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the connections of the process before.
        socket.set_reuseaddr(true)?;
        socket.bind(options.listen)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { address: listener.local_addr()?, listener, gateway, auth, options, others: Router::new() })
    }

    /// Serves other routes as well. Their requests have the client's address in `ConnectInfo` of
    /// [`Connection`](crate::Connection).
    ///
    /// # Panics
    /// If a path is in both.
    pub fn merge(mut self, routes: Router) -> Self {
        self.others = self.others.merge(routes);
        self
    }

    /// The bound address, with its actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL: `https` with TLS, and the bound address.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `shutdown` resolves, and then ends in order: reports that it is not ready, accepts no new
    /// connections, disconnects clients one by one, finishes requests in progress, closes. Returns within the grace.
    ///
    /// # Errors
    /// The error of the listener.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let Self { listener, gateway, auth, options, others, .. } = self;
        let (draining, closing, stop) =
            (Draining::default(), CancellationToken::new(), CancellationToken::new());
        let (router, sockets) = edges(&gateway, &auth, &options, draining.clone());
        let acceptor = acceptor(&gateway, &options);
        let serving = acceptor.run(listener, router.merge(others), closing.clone(), stop.clone());
        let mut serving = std::pin::pin!(serving);
        let shutdown = async {
            shutdown.await;
            let deadline = Instant::now() + options.shutdown_grace;
            tracing::info!("shutting down");
            draining.begin();
            let notice = options.shutdown_grace.mul_f64(grace_share::NOTICE).min(options.drain_notice);
            tokio::time::sleep(notice).await;
            closing.cancel();
            let window = options.shutdown_grace.mul_f64(grace_share::WINDOW).min(options.drain_window);
            let schedule = draining.schedule(gateway.sessions(), window);
            let timeout = options.shutdown_grace.mul_f64(grace_share::LAST_POLL).min(LAST_POLL);
            sockets.drain(schedule, timeout).await;
            // SSE streams end by themselves in this time.
            schedule.wait_until(1.0).await;
            deadline
        };
        let deadline = tokio::select! {
            () = &mut serving => return Ok(()),
            deadline = shutdown => deadline,
        };
        let left = || deadline.saturating_duration_since(Instant::now());
        stop.cancel();
        // Accepted requests finish before the gateway stops.
        let (served, ()) = tokio::join!(
            tokio::time::timeout(left().mul_f64(grace_share::REQUESTS), serving),
            sockets.close(left().mul_f64(grace_share::SOCKETS)),
        );
        let stopped = gateway.stop(left()).await;
        if !stopped || served.is_err() {
            tracing::warn!("not everything ended within server.shutdown_grace; what is left is cut off");
        }
        Ok(())
    }
}

fn acceptor(gateway: &Gateway, options: &ServerOptions) -> Acceptor {
    let (metrics, net) = (gateway.metrics(), options.net.clone());
    let cut = metrics.connections_cut.clone();
    let supervisor = Supervisor::start(gateway.tasks(), gateway.budget(), net.min_rate, cut);
    let write_timeout = options.socketio.ping_interval + options.socketio.ping_timeout;
    let refused = metrics.connections_refused.clone();
    let acceptor = Acceptor::new(net, fd_limit::max_connections(), write_timeout, supervisor, refused);
    let Some(tls) = options.tls.clone() else { return acceptor };
    let watching = tls.clone().watch(gateway.tasks().clone(), metrics.tls_certificate_expires.clone());
    gateway.tasks().spawn_until_stop("certificate", watching);
    acceptor.with_tls(tls, metrics.tls_handshakes.clone())
}
