//! The server: all edges on one listener, from the first accepted connection to the orderly end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, middleware};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{self, AcceptOptions, Acceptor, Connection},
    descriptors,
    draining::Draining,
    gateway::Gateway,
    http::{self, CorsOptions, HttpOptions},
    socketio::{self, SocketIoOptions, Sockets},
};

/// What the server and its edges need to know.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// For how long before it the node says that it is not ready, and goes on all the same; at most a quarter of
    /// the grace.
    pub drain_notice: Duration,
    /// Over how long many clients are spread when they have to leave; at most half of the grace.
    pub drain_window: Duration,
    /// How long a connection may take to its first request.
    pub handshake_timeout: Duration,
    /// Which other origins are welcome.
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
            handshake_timeout: Duration::from_secs(20),
            cors: CorsOptions::default(),
            http: HttpOptions::default(),
            socketio: SocketIoOptions::default(),
        }
    }
}

/// All edges of a gateway as one router, to mount in an application of one's own, and a handle on the sockets,
/// which its end has to close.
///
/// Serve it with connect info of [`Connection`] where clients' addresses are of interest.
pub fn router(gateway: &Gateway, options: &ServerOptions) -> (Router, Sockets) {
    edges(gateway, options, Draining::default())
}

fn edges(gateway: &Gateway, options: &ServerOptions, draining: Draining) -> (Router, Sockets) {
    let router = http::routes(gateway.clone(), options.http, draining);
    let (router, sockets) = socketio::mount(router, gateway, options.socketio);
    (http::with_front(router, gateway, &options.cors), sockets)
}

/// How many connections the system keeps for us until they are accepted, if it is willing to.
const BACKLOG: u32 = 8192;

/// How long long-polling clients have to ask once more; between two requests there is hardly any time.
const LAST_POLL: Duration = Duration::from_secs(1);

/// What the parts of an orderly end may take of the grace: what they leave is for the requests and writes that are
/// still under way.
mod share {
    /// Saying that the node is not ready any more.
    pub const NOTICE: f64 = 0.25;
    /// Clients that leave one after the other.
    pub const WINDOW: f64 = 0.5;
    /// Long-polling clients that have to ask once more, to be told.
    pub const LAST_POLL: f64 = 0.125;
    /// Of what is left then: requests under way. The rest is the gateway's.
    pub const REQUESTS: f64 = 0.75;
    /// Of what is left then: sockets that have not taken their end yet.
    pub const SOCKETS: f64 = 0.5;
}

/// A server that is bound to its address and does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    gateway: Gateway,
    options: ServerOptions,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// Whatever the system says, such as that the address is in use.
    pub async fn bind(gateway: Gateway, options: ServerOptions) -> io::Result<Self> {
        let socket = if options.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the connections of the process before.
        socket.set_reuseaddr(true)?;
        socket.bind(options.listen)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { address: listener.local_addr()?, listener, gateway, options })
    }

    /// The address that is bound, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves, and then ends in order: says that it is not ready any more, takes no new
    /// connections, tells clients and lets them go one after the other, finishes what is accepted, closes. Returns
    /// within the grace.
    ///
    /// # Errors
    /// Whatever the system says of the listener.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let Self { listener, gateway, options, .. } = self;
        let (draining, closing, stop) =
            (Draining::default(), CancellationToken::new(), CancellationToken::new());
        let (router, sockets) = edges(&gateway, &options, draining.clone());
        let acceptor = Acceptor::new(listener, accepting(&options), closing.clone(), gateway.tasks())?;
        let service = router
            .layer(middleware::from_fn(connection::greet))
            .into_make_service_with_connect_info::<Connection>();
        let serving = axum::serve(acceptor, service).with_graceful_shutdown(stop.clone().cancelled_owned());
        let mut serving = std::pin::pin!(serving.into_future());
        let shutdown = async {
            shutdown.await;
            let deadline = Instant::now() + options.shutdown_grace;
            tracing::info!("shutting down");
            draining.announce();
            let notice = options.shutdown_grace.mul_f64(share::NOTICE).min(options.drain_notice);
            tokio::time::sleep(notice).await;
            closing.cancel();
            let window = options.shutdown_grace.mul_f64(share::WINDOW).min(options.drain_window);
            let departures = draining.depart(gateway.sessions(), window);
            let patience = options.shutdown_grace.mul_f64(share::LAST_POLL).min(LAST_POLL);
            sockets.leave(departures, patience).await;
            // Streams leave by themselves.
            departures.at(1.0).await;
            deadline
        };
        let deadline = tokio::select! {
            ended = &mut serving => return ended,
            deadline = shutdown => deadline,
        };
        let left = || deadline.saturating_duration_since(Instant::now());
        stop.cancel();
        // What is accepted is finished before the gateway itself stops.
        let (served, ()) = tokio::join!(
            tokio::time::timeout(left().mul_f64(share::REQUESTS), serving),
            sockets.close(left().mul_f64(share::SOCKETS)),
        );
        let stopped = gateway.stop(left()).await;
        if !stopped || served.is_err() {
            tracing::warn!("not everything ended within server.shutdown_grace; what is left is cut off");
        }
        served.unwrap_or(Ok(()))
    }
}

fn accepting(options: &ServerOptions) -> AcceptOptions {
    AcceptOptions {
        patience: options.socketio.ping_interval + options.socketio.ping_timeout,
        handshake_timeout: options.handshake_timeout,
        connections: descriptors::for_connections(),
    }
}
