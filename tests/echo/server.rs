//! An echo server on the gateway's own accept loop, upgrade and connection queue, for the suites of protocols: WebSocket at
//! `/echo`, Engine.IO at `/engine.io` and Socket.IO at `/echo.io`. The gate of `/socket.io` does not stand in front of these.

use std::{fmt::Debug, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{self, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use engineioxide::{
    DisconnectReason, Socket, Str, config::EngineIoConfig, handler::EngineIoHandler, service::EngineIoService,
};
use futures_util::{SinkExt, StreamExt};
use jobcast::{
    Authenticator, Backend, Gateway, GatewayOptions, Server, ServerOptions, StoreOptions,
    internals::net::{WebSocket, upgrade},
};
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, SocketRef, TryData},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use tower::{Service, ServiceBuilder};

/// What the suites expect.
const PING_INTERVAL: Duration = Duration::from_millis(300);
const PING_TIMEOUT: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_PAYLOAD: usize = 1_000_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = StoreOptions { backend: Backend::Memory, ..StoreOptions::default() };
    let gateway = Gateway::open(&store, GatewayOptions::default()).await?;
    let options = ServerOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServerOptions::default() };
    let routes = Router::new().route("/echo", get(echo)).merge(engine_io()).merge(socket_io());
    let server = Server::bind(gateway, Authenticator::default(), options).await?.merge(routes);
    println!("listening on http://{}", server.address());
    server.run(std::future::pending()).await?;
    Ok(())
}

/// Sends each message back.
async fn echo(mut request: Request) -> Response {
    let Some(upgrade) = upgrade(&mut request) else { return StatusCode::BAD_REQUEST.into_response() };
    let (response, upgraded) = upgrade.split();
    tokio::spawn(async move {
        let Some(socket) = upgraded.await else { return };
        let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    response
}

#[derive(Debug)]
struct EngineEcho;

impl EngineIoHandler for EngineEcho {
    type Data = ();

    fn on_connect(self: Arc<Self>, _: Arc<Socket<()>>) {}

    fn on_disconnect(&self, _: Arc<Socket<()>>, _: DisconnectReason) {}

    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<Socket<()>>) {
        let _closed = socket.emit(message);
    }

    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket<()>>) {
        let _closed = socket.emit_binary(data);
    }
}

fn engine_io() -> Router {
    let config = EngineIoConfig::builder()
        .req_path("/engine.io")
        .ping_interval(PING_INTERVAL)
        .ping_timeout(PING_TIMEOUT)
        .max_payload(MAX_PAYLOAD as u64)
        .build();
    let service = EngineIoService::with_config(Arc::new(EngineEcho), config);
    let upgraded = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(Upgraded(service.clone()), upgrade_websockets))
        .service(service);
    Router::new().route_service("/engine.io/", upgraded)
}

fn socket_io() -> Router {
    let (service, io) = SocketIo::builder()
        .req_path("/echo.io")
        .ping_interval(PING_INTERVAL)
        .ping_timeout(PING_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .max_payload(MAX_PAYLOAD as u64)
        .build_svc();
    let connected = |socket: SocketRef, auth: TryData<Value>| async move {
        let _full = socket.emit("auth", &auth.0.unwrap_or(json!({})));
        socket.on("message", send_back);
        socket.on("message-with-ack", acknowledge);
    };
    io.ns("/", connected);
    io.ns("/custom", connected);
    let upgraded = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(Upgraded(service.clone()), upgrade_websockets))
        .service(service);
    Router::new().route_service("/echo.io/", upgraded)
}

/// The arguments of the suites' events are two attachments, three values, or one.
async fn send_back(
    socket: SocketRef,
    attachments: TryData<(Bytes, Bytes)>,
    three: TryData<(Value, Value, Value)>,
    one: TryData<(Value,)>,
) {
    let _full = match (attachments.0, three.0, one.0) {
        (Ok(arguments), ..) => socket.emit("message-back", &arguments),
        (_, Ok(arguments), _) => socket.emit("message-back", &arguments),
        (_, _, Ok(arguments)) => socket.emit("message-back", &arguments),
        _ => Ok(()),
    };
}

async fn acknowledge(
    attachments: TryData<(Bytes, Bytes)>,
    three: TryData<(Value, Value, Value)>,
    acknowledgement: AckSender,
) {
    let _full = match (attachments.0, three.0) {
        (Ok(arguments), _) => acknowledgement.send(&arguments),
        (_, Ok(arguments)) => acknowledgement.send(&arguments),
        _ => Ok(()),
    };
}

/// What serves upgraded WebSockets.
#[derive(Clone)]
struct Upgraded<S>(S);

/// Upgrades WebSocket requests by the gateway's own upgrade, as `/socket.io` does.
async fn upgrade_websockets<S>(
    State(Upgraded(mut service)): State<Upgraded<S>>,
    mut request: Request,
    next: Next,
) -> Response
where
    S: Service<(WebSocket, http::Request<()>), Error: Debug, Future: Send> + Clone + Send + Sync + 'static,
{
    let query = request.uri().query().unwrap_or_default();
    let is_engine_io = ["EIO=4", "transport=websocket"].iter().all(|is| query.split('&').any(|it| it == *is));
    let Some(upgrade) = is_engine_io.then(|| upgrade(&mut request)).flatten() else {
        return next.run(request).await;
    };
    let (response, upgraded) = upgrade.split();
    let head = http::Request::from_parts(request.into_parts().0, ());
    tokio::spawn(async move {
        if let Some(socket) = upgraded.await {
            let _closed = service.call((socket, head)).await;
        }
    });
    response
}
