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

use super::{Io, gate::Gate, pipe::Pipe, reader::Reader};
use crate::tasks::Tasks;

/// How connections are accepted.
#[derive(Debug, Clone, Copy)]
pub struct AcceptOptions {
    /// How long a peer may take nothing of what is sent to it (Linux; RFC 5482).
    pub patience: Duration,
    /// How long a connection may take to its first request.
    pub handshake_timeout: Duration,
    /// How many connections may be open at once; the others are refused.
    pub connections: usize,
}

/// How long accepting rests after the system could not.
const REST: Duration = Duration::from_millis(100);

/// How often it is said that connections cannot be taken.
const COMPLAINTS: Duration = Duration::from_secs(60);

/// Accepts connections and sets them up.
#[derive(Debug)]
pub struct Acceptor {
    listener: Option<TcpListener>,
    address: SocketAddr,
    options: AcceptOptions,
    descriptors: Arc<Semaphore>,
    closing: CancellationToken,
    tasks: Tasks,
    /// When it was last said that a connection could not be taken: not for each.
    complained: Option<Instant>,
}

impl Acceptor {
    /// Accepts from `listener`, until `closing` is cancelled: then it is closed, after what waits there already
    /// has been accepted. What is sent to slow peers is sent by `tasks`.
    ///
    /// # Errors
    /// Whatever the system says of the listener.
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
            descriptors: Arc::new(Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS))),
            closing,
            tasks: tasks.clone(),
            complained: None,
        })
    }

    /// The next connection; `None` once the listener is to be closed and nothing waits there any more.
    async fn next(&self, listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        match self.closing.is_cancelled() {
            true => listener.accept().now_or_never(),
            false => match self.closing.run_until_cancelled(listener.accept()).await {
                Some(accepted) => Some(accepted),
                None => listener.accept().now_or_never(),
            },
        }
    }

    fn may_complain(&mut self) -> bool {
        let now = Instant::now();
        let due = self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAINTS);
        if due {
            self.complained = Some(now);
        }
        due
    }

    /// Sets a connection up, or refuses it where there are too many.
    fn admit(&mut self, stream: TcpStream) -> Option<Io> {
        let Ok(descriptor) = self.descriptors.clone().try_acquire_owned() else {
            if self.may_complain() {
                tracing::warn!(
                    open = self.options.connections,
                    "refusing connections: no more may be open; raise the limit of open files (ulimit -n)"
                );
            }
            return None;
        };
        let prepare = || {
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_user_timeout(Some(self.options.patience))
        };
        if let Err(error) = prepare() {
            tracing::debug!(%error, "could not set a connection up");
        }
        Some(Io {
            pipe: Arc::new(Pipe::new(stream, self.tasks.clone())),
            gate: Gate::new(self.options.handshake_timeout),
            reader: Reader::default(),
            _descriptor: descriptor,
        })
    }

    /// Rests where the system cannot accept, which for want of descriptors or memory may last.
    async fn rest(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        if self.may_complain() {
            tracing::warn!(%error, "cannot accept connections");
        }
        tokio::time::sleep(REST).await;
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
                    if let Some(io) = self.admit(stream) {
                        return (io, address);
                    }
                }
                Some(Err(error)) => self.rest(&error).await,
                None => self.listener = None,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
