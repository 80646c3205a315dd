//! Accepts connections, sets socket options, and refuses connections beyond the limit of open files.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::{Io, first_request_deadline::FirstRequestDeadline, outbox::Outbox, reader::AdaptiveReader};
use crate::tasks::Tasks;

/// How connections are accepted.
#[derive(Debug, Clone, Copy)]
pub struct AcceptOptions {
    /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`; Linux, RFC 5482).
    pub write_timeout: Duration,
    /// How long a connection may take until its first request has arrived.
    pub handshake_timeout: Duration,
    /// How many connections may be open at once. Further ones are refused.
    pub connections: usize,
}

/// Pause after `accept` failed for want of resources.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// At most one warning in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Accepts connections and sets them up.
#[derive(Debug)]
pub struct Acceptor {
    listener: Option<TcpListener>,
    address: SocketAddr,
    options: AcceptOptions,
    permits: Arc<Semaphore>,
    closing: CancellationToken,
    tasks: Tasks,
    /// When the last warning was logged. Not every refused connection is logged.
    last_logged: Option<Instant>,
}

impl Acceptor {
    /// Accepts from `listener` until `closing` is cancelled. Connections that wait in its backlog by then are still
    /// accepted. `tasks` runs the writers of slow peers.
    ///
    /// # Errors
    /// The error of the listener.
    pub fn new(
        listener: TcpListener,
        options: AcceptOptions,
        closing: CancellationToken,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        Ok(Self {
            address: listener.local_addr()?,
            listener: Some(listener),
            options,
            permits: Arc::new(Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS))),
            closing,
            tasks: tasks.clone(),
            last_logged: None,
        })
    }

    /// The next connection. `None` once the listener is to be closed and its backlog is empty.
    async fn next(&self, listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        match self.closing.is_cancelled() {
            true => listener.accept().now_or_never(),
            false => match self.closing.run_until_cancelled(listener.accept()).await {
                Some(accepted) => Some(accepted),
                None => listener.accept().now_or_never(),
            },
        }
    }

    fn may_log(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last_logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if due {
            self.last_logged = Some(now);
        }
        due
    }

    /// Sets a connection up, or refuses it if too many are open.
    fn set_up(&mut self, stream: TcpStream) -> Option<Io> {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            if self.may_log() {
                tracing::warn!(
                    open = self.options.connections,
                    "refusing connections: no more may be open; raise the limit of open files (ulimit -n)"
                );
            }
            return None;
        };
        let prepare = || {
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_user_timeout(Some(self.options.write_timeout))
        };
        if let Err(error) = prepare() {
            tracing::debug!(%error, "could not set a connection up");
        }
        Some(Io {
            outbox: Arc::new(Outbox::new(stream, self.tasks.clone())),
            deadline: FirstRequestDeadline::new(self.options.handshake_timeout),
            reader: AdaptiveReader::default(),
            _permit: permit,
        })
    }

    /// Waits before the next attempt: a lack of descriptors or memory may last.
    async fn back_off(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        if self.may_log() {
            tracing::warn!(%error, "cannot accept connections");
        }
        tokio::time::sleep(ACCEPT_BACKOFF).await;
    }
}

impl axum::serve::Listener for Acceptor {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        loop {
            let Some(listener) = &self.listener else { return pending().await };
            match self.next(listener).await {
                Some(Ok((stream, address))) => {
                    if let Some(io) = self.set_up(stream) {
                        return (io, address);
                    }
                }
                Some(Err(error)) => self.back_off(&error).await,
                None => self.listener = None,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
