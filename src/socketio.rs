//! The Socket.IO edge: the namespace `/jobs` (contract, section 2).

mod admission;
mod door;
mod inbox;
mod lines;
mod outlet;
mod packet;
mod request;
mod sockets;
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

pub use self::sockets::Sockets;
use self::{admission::Admission, door::Door, inbox::Inbox, lines::Lines, outlet::Sending, packet::Frames};
use crate::{
    connection::Most,
    gateway::{Gateway, Peer},
    id::ClientId,
    json::Members,
    refusal::Refusal,
    telemetry::EdgeLabel,
};

/// How Socket.IO connections are kept.
#[derive(Debug, Clone, Copy)]
pub struct SocketIoOptions {
    /// How often the server asks whether a client lives.
    pub ping_interval: Duration,
    /// How long it waits for the answer.
    pub ping_timeout: Duration,
    /// How many clients may be on their way into the namespace at once; the others wait for their turn.
    pub handshakes: usize,
    /// How long each may take, from its first request on.
    pub handshake_timeout: Duration,
    /// The largest message of a client, in bytes.
    pub max_payload: usize,
    /// How many packets wait for a slow client before it has to catch up from history.
    pub outbox: usize,
    /// How many bytes of them wait before it has to.
    pub outbox_bytes: u64,
    /// How many messages a client may send a second.
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

/// How long a client waits for its record to be visible to all nodes before it is let in without.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);

/// How many bytes of a client's messages are read at once: nearly all are shorter.
const READ_BUFFER: usize = 128;

/// Where Socket.IO lives.
const PATH: &str = "/socket.io";

/// The namespace of all sockets.
const NAMESPACE: &str = "/jobs";

/// Adds `/socket.io` to a router.
pub fn mount(router: Router, gateway: &Gateway, options: SocketIoOptions) -> (Router, Sockets) {
    let (service, io) = SocketIo::builder()
        .req_path(PATH)
        .ping_interval(options.ping_interval)
        .ping_timeout(options.ping_timeout)
        .connect_timeout(options.handshake_timeout)
        .max_payload(options.max_payload as u64)
        .ws_max_message_size(options.max_payload)
        .ws_max_frame_size(options.max_payload)
        .ws_read_buffer_size(READ_BUFFER)
        .max_buffer_size(options.outbox)
        // Nothing here takes binary attachments.
        .with_parser(ParserConfig::common().max_incoming_binaries(0).max_incoming_binary_buf_size(0))
        .build_svc();
    let lines = Lines::default();
    let (metrics, label) = (gateway.metrics(), EdgeLabel { edge: "socketio" });
    let sending = Arc::new(Sending {
        lines: lines.clone(),
        most: Most { frames: options.outbox, bytes: options.outbox_bytes },
        deliveries: metrics.deliveries.get_or_create(&label).clone(),
        connections: metrics.connections.get_or_create(&label).clone(),
        joins_rooms: options.joins_rooms,
        frames: Frames::default(),
    });
    let entrance = Arc::new(Entrance { gateway: gateway.clone(), options, sending });
    let admit = move |socket: SocketRef, auth: TryData<Box<RawValue>>| {
        let entrance = entrance.clone();
        async move { entrance.admit(socket, auth.0.ok().as_deref()).await }
    };
    let arrived = |socket: SocketRef| async move {
        let inbox = socket.extensions.get::<Arc<Inbox>>();
        if let Some(inbox) = inbox {
            inbox.open(&socket);
        }
        admission::through(&socket);
    };
    // A namespace of a fixed name with the adapter of this process cannot fail to be added.
    io.ns(NAMESPACE, arrived.with(admit));
    let sockets = Sockets::new(io, lines.clone());
    let door = Door { service: service.clone(), lines: lines.clone(), tasks: gateway.tasks().clone() };
    let service = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(sockets.clone(), sockets::end_polling))
        .layer(middleware::from_fn_with_state(Admission::new(options.handshakes), admission::wait))
        .layer(middleware::from_fn_with_state(lines, lines::follow))
        .layer(middleware::from_fn_with_state(door, door::open))
        .service(service);
    // Only what goes to them passes what belongs to them.
    let below = [PATH.to_owned(), format!("{PATH}/"), format!("{PATH}/{{*below}}")];
    let router = below.iter().fold(router, |router, path| router.route_service(path, service.clone()));
    (router, sockets)
}

struct Entrance {
    gateway: Gateway,
    options: SocketIoOptions,
    sending: Arc<Sending>,
}

impl Entrance {
    /// Lets a socket in, or says why not. All its handlers are in place before the client learns that it is in:
    /// otherwise a fast client's first event would be lost now and then.
    async fn admit(&self, socket: SocketRef, auth: Option<&RawValue>) -> Result<(), Refusal> {
        let peer = peer(&socket, auth)?;
        let inbox = Arc::new(Inbox::new(&self.gateway, peer, &self.options, self.sending.clone()));
        // A store that does not answer must not keep watchers out.
        let _in_time = tokio::time::timeout(RECORD_PATIENCE, self.gateway.records_published()).await;
        socket.extensions.insert(inbox.clone());
        socket.on_fallback(inbox::InOrder(inbox.clone()));
        socket.on_disconnect(move || async move { inbox.close() });
        Ok(())
    }
}

/// Who is at the other end, as far as the first request of the connection tells.
fn peer(socket: &SocketRef, auth: Option<&RawValue>) -> Result<Peer, Refusal> {
    let parts = socket.req_parts();
    let address = lines::first_connection(socket).map(|connection| connection.address().to_string());
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let client_id = auth.map_or(Ok(None), client_id)?;
    Ok(Peer {
        client_id: match client_id {
            Some(id) => id,
            // Socket ids have only letters, digits, - and _.
            None => socket.id.to_string().parse().map_err(Refusal::invalid)?,
        },
        user_id: None,
        address: address.unwrap_or_default(),
        // Kept in the store: no longer than anyone needs.
        user_agent: user_agent.unwrap_or_default().chars().take(256).collect(),
        transport: transport(socket),
    })
}

fn client_id(auth: &RawValue) -> Result<Option<ClientId>, Refusal> {
    let members = Members::of(auth).map_err(|error| Refusal::invalid(format!("auth: {error}")))?;
    let wrong = |problem: &dyn std::fmt::Display| Refusal::invalid(format!("clientId: {problem}"));
    let text = members.text("clientId").map_err(|problem| wrong(&problem))?;
    text.map(|text| text.parse()).transpose().map_err(|error| wrong(&error))
}

fn transport(socket: &SocketRef) -> &'static str {
    match socket.transport_type() {
        TransportType::Websocket => "websocket",
        TransportType::Polling => "polling",
    }
}
