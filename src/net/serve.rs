//! Serves HTTP/1.1 on one connection.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{ConnectInfo, Request},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    Connection, Io,
    body::RequestBody,
    outbox::Outbox,
    proxies::TrustedProxies,
    reader::MAX_READ,
    reading::{Phase, Refusal},
};

/// What a connection beyond the limit may ask for.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Serves the requests of one connection.
#[derive(Clone)]
pub struct Serving {
    outbox: Arc<Outbox>,
    peer: IpAddr,
    proxies: TrustedProxies,
    is_probe: bool,
    router: Router,
}

/// Serves a connection until it ends. Once `stop` is cancelled, only the request in progress is answered.
pub async fn serve(io: Io, serving: Serving, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    // `Io` keeps the deadlines of heads, and of peers that have closed their sending side.
    http.keep_alive(!serving.is_probe).max_buf_size(MAX_READ).header_read_timeout(None);
    let service = service_fn(move |request| {
        // Here, because the future is polled only after the next read.
        serving.outbox.reading.begin_request();
        serving.clone().answer(request)
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), service).with_upgrades());
    let outcome = match stop.run_until_cancelled(connection.as_mut()).await {
        Some(outcome) => outcome,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended");
    }
}

impl Serving {
    /// Serves `io`, beyond the limit or not.
    pub fn new(io: &Io, peer: IpAddr, proxies: TrustedProxies, is_probe: bool, router: Router) -> Self {
        Self { outbox: io.outbox.clone(), peer, proxies, is_probe, router }
    }

    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        let response = if self.is_probe && !PROBES.contains(&request.uri().path()) {
            let detail = "the gateway has as many connections as it may; try again later";
            problem(StatusCode::SERVICE_UNAVAILABLE, "limit_reached", detail)
        } else {
            let mut request = request.map(|body| match body.is_end_stream() {
                true => Body::empty(),
                false => Body::new(RequestBody::new(body, self.outbox.clone())),
            });
            let address = self.proxies.client(self.peer, request.headers());
            let is_proxy = self.proxies.contains(address);
            let connection = Connection { address, is_proxy, outbox: Arc::downgrade(&self.outbox) };
            request.extensions_mut().insert(ConnectInfo(connection));
            let Ok(response) = self.router.call(request).await;
            self.outbox.reading.take_refusal().map_or(response, refused)
        };
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let is_stream = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        self.outbox.reading.set_phase(match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => Phase::Upgraded,
            _ if is_stream => Phase::Streaming,
            _ => Phase::Answering,
        });
        let outbox = self.outbox;
        Ok(response.map(|body| AnswerBody { body, outbox }))
    }
}

/// The answer to a request that was refused while its body was read.
fn refused(refusal: Refusal) -> Response {
    let (status, code, detail) = match refusal {
        Refusal::SlowBody => (
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "the body came more slowly than limits.min_rate allows",
        ),
        Refusal::OverBudget => (
            StatusCode::SERVICE_UNAVAILABLE,
            "limit_reached",
            "the gateway holds as many bytes as it may (limits.memory); try again later",
        ),
    };
    problem(status, code, detail)
}

/// An error as `application/problem+json` (RFC 9457), after which the connection closes.
fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let number = status.as_u16();
    let json = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":"{detail}","code":"{code}"}}"#
    );
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONNECTION, HeaderValue::from_static("close")),
        (header::RETRY_AFTER, HeaderValue::from_static("1")),
    ];
    (status, headers, json).into_response()
}

/// The body of an answer. Notes when the library has got all of it.
pub struct AnswerBody {
    body: Body,
    outbox: Arc<Outbox>,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.outbox.answered();
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
