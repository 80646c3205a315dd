//! One Redis server, and connections to it that are made anew when they break.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, PushInfo, PushKind, RedisError,
    RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::Batches;

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take before the connection counts as broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a server that could not be reached is not tried again.
const COOLDOWN: Duration = Duration::from_millis(50);

/// How many pipelines of publishes are on their way at once: while the server executes one, the next is on the line.
const PIPELINES: usize = 2;

/// How many connections wait for replicas. While one waits, nothing else can be sent on it.
const WAITING_LINES: usize = 8;

/// How long a publish waits for replicas.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(1);

/// How many commands the library queues, and how many bytes it gathers before it writes them out.
const QUEUED_COMMANDS: usize = 512;
const WRITTEN_AT_ONCE: usize = 64 << 10;

/// A command as it goes to a server.
pub struct Outgoing {
    pub command: Cmd,
    /// Whether the server's run is to be its last argument.
    pub tells_run: bool,
    /// Whether the server is just taking over the slot.
    pub asking: bool,
}

/// What became of one command.
pub struct Answer {
    pub value: RedisResult<Value>,
    /// Whether enough replicas have it, where that was asked for.
    pub replicated: bool,
}

/// What became of a pipeline that was not answered.
#[derive(Debug, Clone)]
pub enum Unanswered {
    /// Nothing was sent.
    Unreachable(RedisError),
    /// It may have been executed.
    Cut(RedisError),
}

/// One server.
pub struct Server {
    address: String,
    client: Client,
    /// How many replicas a publish waits for.
    replicas: u32,
    commands: Line,
    waiting: [Line; WAITING_LINES],
    turn: AtomicUsize,
    publishes: Batches<Outgoing, Answer, Unanswered>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.address).finish()
    }
}

impl Server {
    /// A server that nothing is connected to yet.
    pub fn new(client: Client, replicas: u32) -> Self {
        Self {
            address: client.get_connection_info().addr().to_string(),
            client,
            replicas,
            commands: Line::default(),
            waiting: Default::default(),
            turn: AtomicUsize::new(0),
            publishes: Batches::new(if replicas > 0 { WAITING_LINES } else { PIPELINES }),
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

    /// Asks this very server, whatever it holds, and lets go of a connection that gives no answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let (mut connected, cell) = self.commands.borrow(&self.client).await?;
        let answer = command.query_async(&mut connected.connection).await;
        answer.inspect_err(|_| self.commands.discard(&cell))
    }

    /// Lets go of all connections. Those that are made next know as what the server runs now.
    pub fn reconnect(&self) {
        for line in self.waiting.iter().chain([&self.commands]) {
            line.state().current = Arc::default();
        }
    }

    /// Lets go of all connections if the server has come to run as something else under them.
    pub async fn recheck(&self) {
        let known = self.commands.state().current.get().map(|connected| connected.run.clone());
        if let (Some(known), Ok((mut connected, _))) = (known, self.commands.borrow(&self.client).await)
            && run(&mut connected.connection).await.is_ok_and(|run| run != known)
        {
            self.reconnect();
        }
    }

    /// Sends commands in one pipeline. The answers are in order.
    ///
    /// # Errors
    /// [`Unanswered`] says what may have become of them.
    pub async fn send(&self, commands: Vec<Outgoing>) -> Result<Vec<Answer>, Unanswered> {
        self.transmit(&self.commands, 0, commands).await
    }

    /// Sends publishers' commands in pipelines that they share, and waits for replicas where that is asked for.
    ///
    /// # Errors
    /// As [`Server::send`].
    pub async fn publish(self: &Arc<Self>, commands: Vec<Outgoing>) -> Result<Vec<Answer>, Unanswered> {
        let server = self.clone();
        let transmit = |commands| async move {
            let line = match server.replicas {
                0 => &server.commands,
                _ => &server.waiting[server.turn.fetch_add(1, Ordering::Relaxed) % WAITING_LINES],
            };
            server.transmit(line, server.replicas, commands).await
        };
        self.publishes.send(commands, transmit).await
    }

    async fn transmit(
        &self,
        line: &Line,
        replicas: u32,
        commands: Vec<Outgoing>,
    ) -> Result<Vec<Answer>, Unanswered> {
        let (mut connected, cell) = line.borrow(&self.client).await.map_err(Unanswered::Unreachable)?;
        let mut pipe = Pipeline::with_capacity(commands.len());
        for Outgoing { mut command, tells_run, asking } in commands {
            if tells_run {
                command.arg(&*connected.run);
            }
            if asking {
                pipe.cmd("ASKING").ignore();
            }
            pipe.add_command(command);
        }
        pipe.ignore_errors();
        let mut same_connection = connected.connection.clone();
        // Side by side, because what was executed has to be known also where the wait comes to nothing.
        let (answers, replicated) = tokio::join!(
            pipe.query_async::<Vec<RedisResult<Value>>>(&mut connected.connection),
            replicated(replicas, &mut same_connection),
        );
        let answers = answers.map_err(|error| {
            line.discard(&cell);
            Unanswered::Cut(error)
        })?;
        Ok(answers.into_iter().map(|value| Answer { value, replicated }).collect())
    }
}

/// Waits until so many replicas have what was sent on a connection before.
async fn replicated(replicas: u32, connection: &mut MultiplexedConnection) -> bool {
    if replicas == 0 {
        return true;
    }
    let timeout = u64::try_from(REPLICAS_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let mut wait = redis::cmd("WAIT");
    let wait = wait.arg(replicas).arg(timeout).query_async::<u32>(connection).await;
    wait.is_ok_and(|count| count >= replicas)
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

#[derive(Debug, Clone)]
struct Connected {
    connection: MultiplexedConnection,
    /// Names the server's run: another one after each of its starts and promotions.
    run: Arc<str>,
    /// Set when the connection is known to be cut, before anybody sends on it in vain.
    cut: Arc<AtomicBool>,
}

impl Line {
    async fn borrow(&self, client: &Client) -> Result<(Connected, Arc<OnceCell<Connected>>), RedisError> {
        let cell = self.current()?;
        match cell.get_or_try_init(|| connect(client)).await {
            Ok(connected) => Ok((connected.clone(), cell)),
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
        .set_pipeline_buffer_size(QUEUED_COMMANDS)
        .set_write_backpressure_boundary(WRITTEN_AT_ONCE)
        .set_push_sender(note);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let run = run(&mut connection).await?;
    Ok(Connected { connection, run, cut })
}

/// As what a server runs: its process, and the history of writes that it has taken up.
async fn run(connection: &mut MultiplexedConnection) -> Result<Arc<str>, RedisError> {
    let mut named = String::new();
    for (section, name) in [("server", "run_id:"), ("replication", "master_replid:")] {
        let info: String = redis::cmd("INFO").arg(section).query_async(connection).await?;
        named += info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    }
    Ok(format!("{:08x}", xxh3_64(named.as_bytes()) as u32).into())
}
