//! One Redis server, and connections to it that are made anew when they break.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, PushInfo, PushKind, RedisError,
    aio::MultiplexedConnection,
};
use tokio::sync::OnceCell;

use super::fence::Run;

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take before the connection counts as broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a server that could not be reached is not tried again.
const COOLDOWN: Duration = Duration::from_millis(50);

/// How many connections wait for replicas. While one waits, nothing else can be sent on it.
const WAITING_LINES: usize = 8;

/// One server.
#[derive(Debug)]
pub struct Node {
    address: String,
    client: Client,
    commands: Line,
    waiting: [Line; WAITING_LINES],
    turn: AtomicUsize,
}

impl Node {
    /// A server that nothing is connected to yet.
    pub fn new(client: Client) -> Self {
        Self {
            address: client.get_connection_info().addr().to_string(),
            client,
            commands: Line::default(),
            waiting: Default::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What other connections to it are made from.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A connection for commands that do not block.
    ///
    /// # Errors
    /// Why the server cannot be reached: then nothing has been sent.
    pub async fn commands(&self) -> Result<Borrowed<'_>, RedisError> {
        self.commands.borrow(&self.client).await
    }

    /// Asks this very server, whatever it holds, and lets go of a connection that gives no answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut line = self.commands().await?;
        let answer = command.query_async(&mut line.connection).await;
        answer.inspect_err(|_| line.discard())
    }

    /// A connection for commands that end with a wait for replicas.
    ///
    /// # Errors
    /// As [`Node::commands`].
    pub async fn waiting(&self) -> Result<Borrowed<'_>, RedisError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.waiting[turn % WAITING_LINES].borrow(&self.client).await
    }
}

/// A place for one connection at a time.
#[derive(Debug, Default)]
struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Made by the first who needs it; the others wait for the same.
    current: Arc<OnceCell<Connected>>,
    failed: Option<(Instant, RedisError)>,
}

#[derive(Debug)]
struct Connected {
    connection: MultiplexedConnection,
    run: Run,
    /// Set when the connection is known to be cut, before anybody sends on it in vain.
    cut: Arc<AtomicBool>,
}

/// A connection in use.
pub struct Borrowed<'a> {
    line: &'a Line,
    cell: Arc<OnceCell<Connected>>,
    pub connection: MultiplexedConnection,
    /// Which run of the server it leads to.
    pub run: Run,
}

impl Borrowed<'_> {
    /// Sees to it that nobody borrows this connection any more.
    pub fn discard(&self) {
        self.line.discard(&self.cell);
    }
}

impl Line {
    async fn borrow(&self, client: &Client) -> Result<Borrowed<'_>, RedisError> {
        let cell = self.current()?;
        match cell.get_or_try_init(|| connect(client)).await {
            Ok(connected) => {
                let (connection, run) = (connected.connection.clone(), connected.run.clone());
                Ok(Borrowed { line: self, cell, connection, run })
            }
            Err(error) => {
                self.state().failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Result<Arc<OnceCell<Connected>>, RedisError> {
        let mut state = self.state();
        if state.current.get().is_some_and(|connected| connected.cut.load(Ordering::Acquire)) {
            state.current = Arc::default();
        }
        match &state.failed {
            Some((at, error)) if at.elapsed() < COOLDOWN && state.current.get().is_none() => {
                Err(error.clone())
            }
            _ => Ok(state.current.clone()),
        }
    }

    fn discard(&self, cell: &Arc<OnceCell<Connected>>) {
        let mut state = self.state();
        if Arc::ptr_eq(&state.current, cell) {
            state.current = Arc::default();
        }
    }
}

async fn connect(client: &Client) -> Result<Connected, RedisError> {
    let cut = Arc::new(AtomicBool::new(false));
    let noted = cut.clone();
    let note = move |push: PushInfo| -> Result<(), redis::aio::SendError> {
        if push.kind == PushKind::Disconnection {
            noted.store(true, Ordering::Release);
        }
        Ok(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT))
        .set_push_sender(note);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    Ok(Connected { connection, run: run(&info), cut })
}

fn run(info: &str) -> Run {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim().into()
}
