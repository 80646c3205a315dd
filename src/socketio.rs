//! The Socket.IO edge: the namespace `/jobs` (contract, section 2).

mod admission;
mod client_frames;
mod drain;
mod gate;
mod gated_socket;
mod inbox;
mod outlet;
mod packet;
mod poll_requests;
mod polling;
mod request;
mod upgrade;
mod wire;

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware};
use http::header;
use serde_json::value::RawValue;
use socketioxide::{
    ParserConfig, SocketIo, TransportType,
    extract::{SocketRef, TryData},
    handler::ConnectHandler,
};
use tower::ServiceBuilder;

/// What the fuzz targets of this repository use besides.
#[doc(hidden)]
pub mod internals {
    pub use super::{
        client_frames::{ClientFrames, Incoming, put_text_frame},
        gate::Gate,
        request::Request,
    };

    /// The most bytes by which a packet that stands for another one is longer.
    pub const MAX_REFUSAL: usize = super::MAX_REFUSAL;
}

pub use self::drain::Sockets;
use self::{
    admission::Admission,
    drain::ClosingPolls,
    inbox::Inbox,
    outlet::OutletShared,
    packet::FrameCache,
    poll_requests::PollState,
    polling::{PollingSession, PollingSessions},
    upgrade::UpgradeState,
};
use crate::{
    access::Pass,
    auth::Authenticator,
    error::{ApiError, ErrorCode},
    gateway::{Gateway, Peer},
    id::ClientId,
    json::Members,
    net::Limits,
    telemetry::EdgeLabel,
};

/// Options of the Socket.IO edge.
#[derive(Debug, Clone, Copy)]
pub struct SocketIoOptions {
    /// The interval between pings.
    pub ping_interval: Duration,
    /// How long the server waits for a pong.
    pub ping_timeout: Duration,
    /// How many clients may connect at once. The others wait in a queue.
    pub handshakes: usize,
    /// How long a client may take to connect, from its first request on.
    pub handshake_timeout: Duration,
    /// The largest message of a client, in bytes.
    pub max_payload: usize,
    /// How many packets wait for a slow client before it has to catch up from history.
    pub outbox: usize,
    /// How many bytes of packets wait before it has to.
    pub outbox_bytes: u64,
    /// How many messages a client may send a second, and at once.
    pub messages_per_second: u32,
    /// Whether sockets also join socketioxide's rooms of the same names, for an application that embeds the gateway
    /// and emits to them by [`Sockets::io`]. It costs memory for each socket, and a lock that all of them share.
    pub joins_rooms: bool,
}

impl Default for SocketIoOptions {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            handshakes: 512,
            handshake_timeout: Duration::from_secs(20),
            max_payload: 128 * 1024,
            outbox: 1024,
            outbox_bytes: 1024 * 1024,
            messages_per_second: 1000,
            joins_rooms: false,
        }
    }
}

/// How long a client waits for its record to be visible to all nodes. After that it connects anyway.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);

/// The read buffer of a WebSocket, in bytes. Nearly all messages of clients are shorter.
const READ_BUFFER: usize = 128;

/// The most bytes of a packet that stands for one which was refused.
const MAX_REFUSAL: usize = 1024;

/// How many packets socketioxide itself may have to say to a client that is full.
const OWN_PACKETS: usize = 32;

/// The path of Socket.IO.
const PATH: &str = "/socket.io";

/// The namespace of all sockets.
const NAMESPACE: &str = "/jobs";

/// Adds `/socket.io` to a router.
pub fn mount(
    router: Router,
    gateway: &Gateway,
    auth: &Authenticator,
    options: SocketIoOptions,
) -> (Router, Sockets) {
    let (service, io) = SocketIo::builder()
        .req_path(PATH)
        .ping_interval(options.ping_interval)
        .ping_timeout(options.ping_timeout)
        .connect_timeout(options.handshake_timeout)
        .max_payload(options.max_payload as u64)
        // The gate has the limit itself, and may put a somewhat larger packet in the place of a client's.
        .ws_max_message_size(options.max_payload + MAX_REFUSAL)
        .ws_max_frame_size(options.max_payload + MAX_REFUSAL)
        .ws_read_buffer_size(READ_BUFFER)
        // The outbox has the limit. There is always place for a ping, and for what an upgrade begins with.
        .max_buffer_size(options.outbox + OWN_PACKETS)
        // Nothing here takes binary attachments.
        .with_parser(ParserConfig::common().max_incoming_binaries(0).max_incoming_binary_buf_size(0))
        .build_svc();
    let sockets = Sockets::new(io.clone());
    open_namespace(&io, gateway, auth, options, sockets.closing_polls().clone());
    let admission = Admission::new(options.handshakes, gateway.tasks().clone());
    let polls = PollState { sessions: PollingSessions::default(), gateway: gateway.clone(), options };
    let upgrades = UpgradeState { service: service.clone(), gateway: gateway.clone(), options };
    let service = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(sockets.clone(), drain::end_polling))
        .layer(middleware::from_fn_with_state(admission, admission::admit))
        .layer(middleware::from_fn_with_state(polls, poll_requests::judge_requests))
        .layer(middleware::from_fn_with_state(upgrades, upgrade::upgrade_websockets))
        .service(service);
    // These layers apply to `/socket.io` only.
    let below = [PATH.to_owned(), format!("{PATH}/"), format!("{PATH}/{{*below}}")];
    let router = below.iter().fold(router, |router, path| router.route_service(path, service.clone()));
    (router, sockets)
}

/// Lets sockets into the namespace of jobs.
fn open_namespace(
    io: &SocketIo,
    gateway: &Gateway,
    auth: &Authenticator,
    options: SocketIoOptions,
    closing_polls: ClosingPolls,
) {
    let (metrics, label) = (gateway.metrics(), EdgeLabel { edge: "socketio" });
    let shared = Arc::new(OutletShared {
        limits: Limits { frames: options.outbox, bytes: options.outbox_bytes },
        deliveries: metrics.deliveries.get_or_create(&label).clone(),
        connections: metrics.connections.get_or_create(&label).clone(),
        joins_rooms: options.joins_rooms,
        frames: FrameCache::default(),
        closing_polls,
    });
    let (gateway, auth) = (gateway.clone(), auth.clone());
    let middleware = Arc::new(ConnectMiddleware { gateway, auth, options, shared });
    let admit = move |socket: SocketRef, auth: TryData<Box<RawValue>>| {
        let middleware = middleware.clone();
        async move { middleware.admit(socket, auth.0.ok().as_deref()).await }
    };
    let connected = |socket: SocketRef| async move {
        let inbox = socket.extensions.get::<Arc<Inbox>>();
        if let Some(inbox) = inbox {
            inbox.open(&socket);
        }
        admission::release_admitted(&socket);
    };
    // This cannot fail: the name is fixed, and the adapter is local.
    io.ns(NAMESPACE, connected.with(admit));
}

struct ConnectMiddleware {
    gateway: Gateway,
    auth: Authenticator,
    options: SocketIoOptions,
    shared: Arc<OutletShared>,
}

impl ConnectMiddleware {
    /// Admits a socket, or says why not. All handlers are in place before the client learns that it is connected.
    /// Otherwise the first event of a fast client would sometimes be lost.
    async fn admit(&self, socket: SocketRef, auth: Option<&RawValue>) -> Result<(), ApiError> {
        let auth = auth.map_or(Ok(Auth::default()), Auth::read)?;
        let pass = self.pass(&socket, auth.token.as_deref()).await?;
        if let Some(name) = auth.client_id.as_ref().filter(|_| !self.auth.is_open()) {
            self.gateway.check_client_name(&pass.identity, name).await?;
        }
        let caller = (peer(&socket, auth.client_id)?, pass);
        let inbox = Inbox::new(&self.gateway, &self.auth, caller, &self.options, self.shared.clone())?;
        let inbox = Arc::new(inbox);
        if let Some(session) = PollingSession::of(&socket) {
            session.set_inbox(&inbox);
        }
        // A store that does not answer must not keep clients out.
        let _in_time = tokio::time::timeout(RECORD_PATIENCE, self.gateway.records_published()).await;
        socket.extensions.insert(inbox.clone());
        socket.on_fallback(inbox::OrderedHandler(inbox.clone()));
        socket.on_disconnect(move || async move { inbox.close() });
        Ok(())
    }

    /// What a socket may do. Its token comes in the payload of its connection, or with its first request.
    async fn pass(&self, socket: &SocketRef, token: Option<&str>) -> Result<Pass, ApiError> {
        let parts = socket.req_parts();
        if let Some(pass) = parts.extensions.get::<Pass>() {
            return Ok(pass.clone());
        }
        let pass = match token {
            Some(token) => self.auth.check(token).await?,
            None => {
                let pass = self.auth.authenticate(&parts.headers, parts.uri.query()).await?;
                pass.ok_or_else(|| {
                    let message = "this gateway asks for a token; give it as auth: { token }";
                    ApiError::new(ErrorCode::Unauthorized, message)
                })?
            }
        };
        self.gateway.check_pass(&pass)?;
        Ok(pass)
    }
}

/// The peer, as described by the first request of the connection.
fn peer(socket: &SocketRef, client_id: Option<ClientId>) -> Result<Peer, ApiError> {
    let parts = socket.req_parts();
    let address = polling::first_connection(socket).map(|connection| connection.address().to_string());
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Ok(Peer {
        client_id: match client_id {
            Some(id) => id,
            // Socket ids have only letters, digits, - and _.
            None => socket.id.to_string().parse().map_err(ApiError::invalid)?,
        },
        address: address.unwrap_or_default(),
        // It is kept in the store, so its length is bounded.
        user_agent: user_agent.unwrap_or_default().chars().take(256).collect(),
        transport: transport(socket),
    })
}

/// The payload with which a socket connects.
#[derive(Default)]
struct Auth {
    token: Option<String>,
    client_id: Option<ClientId>,
}

impl Auth {
    fn read(auth: &RawValue) -> Result<Self, ApiError> {
        let members = Members::of(auth).map_err(|error| ApiError::invalid(format!("auth: {error}")))?;
        let wrong =
            |name: &str, problem: &dyn std::fmt::Display| ApiError::invalid(format!("{name}: {problem}"));
        let text = |name: &str| members.text(name).map_err(|problem| wrong(name, &problem));
        let client_id = text("clientId")?.map(|text| text.parse()).transpose();
        Ok(Self { token: text("token")?, client_id: client_id.map_err(|error| wrong("clientId", &error))? })
    }
}

fn transport(socket: &SocketRef) -> &'static str {
    match socket.transport_type() {
        TransportType::Websocket => "websocket",
        TransportType::Polling => "polling",
    }
}
