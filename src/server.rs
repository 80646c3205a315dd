//! The server: all edges on one listener, from the first accepted connection to the orderly end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Acceptor, Connection},
    gateway::Gateway,
    http::{self, CorsOptions, Draining, HttpOptions},
    socketio::{self, SocketIoOptions, Sockets},
};

/// What the server and its edges need to know.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
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
    (http::with_front(router, &options.cors), sockets)
}

/// How much of the grace is left for the sockets, before the rest is cut off.
const SOCKETS_SHARE: f64 = 0.5;

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
        let listener = TcpListener::bind(options.listen).await?;
        Ok(Self { address: listener.local_addr()?, listener, gateway, options })
    }

    /// The address that is bound, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves, and then ends in order: takes no new connections, finishes what is
    /// accepted, tells clients, closes. Returns within the grace.
    ///
    /// # Errors
    /// Whatever the system says of the listener.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let Self { listener, gateway, options, .. } = self;
        let (draining, stop) = (Draining::default(), CancellationToken::new());
        let (router, sockets) = edges(&gateway, &options, draining.clone());
        let patience = options.socketio.ping_interval + options.socketio.ping_timeout;
        let acceptor = Acceptor::new(listener, patience);
        let service = router.into_make_service_with_connect_info::<Connection>();
        let serving = axum::serve(acceptor, service).with_graceful_shutdown(stop.clone().cancelled_owned());
        let mut serving = std::pin::pin!(serving.into_future());
        tokio::select! {
            ended = &mut serving => return ended,
            () = shutdown => {}
        }
        let deadline = Instant::now() + options.shutdown_grace;
        let left = || deadline.saturating_duration_since(Instant::now());
        tracing::info!("shutting down");
        draining.begin();
        stop.cancel();
        // What is accepted is finished before the gateway itself stops.
        let (served, ()) = tokio::join!(
            tokio::time::timeout(left(), serving),
            sockets.close(left().mul_f64(SOCKETS_SHARE)),
        );
        let stopped = gateway.stop(left()).await;
        if !stopped || served.is_err() {
            tracing::warn!("not everything ended within server.shutdown_grace; what is left is cut off");
        }
        served.unwrap_or(Ok(()))
    }
}
