//! The WebSocket handshake (RFC 6455, section 4.2). A library then reads and writes the frames.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Buf, Bytes};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::handshake::derive_accept_key;

use super::Io;

/// An accepted upgrade.
pub struct Upgrade {
    /// The response to the request.
    pub response: Response,
    upgrading: OnUpgrade,
}

/// Accepts a valid upgrade to a WebSocket. `None` for any other request.
pub fn upgrade(request: &mut Request) -> Option<Upgrade> {
    let headers = request.headers();
    let has_token = |name: HeaderName, what: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(what))
    };
    let is_upgrade = request.method() == Method::GET
        && has_token(header::CONNECTION, "upgrade")
        && has_token(header::UPGRADE, "websocket")
        && has_token(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_upgrade)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    let upgrading = request.extensions_mut().remove::<OnUpgrade>()?;
    let headers = HeaderMap::from_iter([
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    Some(Upgrade { response: (StatusCode::SWITCHING_PROTOCOLS, headers).into_response(), upgrading })
}

impl Upgrade {
    /// The response, and the WebSocket once that has been sent.
    pub fn split(self) -> (Response, impl Future<Output = Option<WebSocket>> + Send + 'static) {
        let upgrading = self.upgrading;
        (self.response, async move { upgrading.await.ok().map(WebSocket::of) })
    }
}

/// The byte stream of a WebSocket's frames.
pub struct WebSocket {
    /// What hyper has read beyond the request.
    read_ahead: Bytes,
    carrier: Carrier,
}

enum Carrier {
    /// A connection of our own listener. The fan-out writes to it as well.
    Own(Io),
    /// A connection of an application that serves the router itself.
    Foreign(TokioIo<Upgraded>),
}

impl WebSocket {
    fn of(upgraded: Upgraded) -> Self {
        match upgraded.downcast::<TokioIo<Io>>() {
            Ok(parts) => {
                let io = parts.io.into_inner();
                io.outbox.start_websocket();
                // A copy, because a slice would keep hyper's whole read buffer alive.
                Self { read_ahead: Bytes::copy_from_slice(&parts.read_buf), carrier: Carrier::Own(io) }
            }
            Err(upgraded) => {
                Self { read_ahead: Bytes::new(), carrier: Carrier::Foreign(TokioIo::new(upgraded)) }
            }
        }
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.has_remaining() {
            let count = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        match &mut self.carrier {
            Carrier::Own(io) => Pin::new(io).poll_read(context, buffer),
            Carrier::Foreign(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.carrier {
            Carrier::Own(io) => Poll::Ready(io.outbox.write_frames(bytes)),
            Carrier::Foreign(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Own(_) => Poll::Ready(Ok(())),
            Carrier::Foreign(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Own(io) => Pin::new(io).poll_shutdown(context),
            Carrier::Foreign(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
