//! A frugal Socket.IO client: one task, one small buffer. It comes back after every loss, as socket.io-client does,
//! and resumes from what it has seen.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::{
    tally::Latencies,
    trial::{Context, Signal},
    view::View,
    wire::{self, Packet},
};

/// The first and the longest pause before a client comes back.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How long a connection may take to open, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TcpStream>;

/// Where a client connects to, and what befalls it there.
#[derive(Default)]
pub struct Endpoint {
    /// One of them at each attempt, by turns.
    pub addresses: Vec<SocketAddr>,
    /// The client's own address, where it is not the system's choice.
    pub source: Option<IpAddr>,
    /// The token that it shows, where the gateway asks for one.
    pub token: Option<String>,
    /// Whether the network is there at all, for clients that lose it by themselves.
    pub network: Option<watch::Receiver<bool>>,
    /// Whether it reads, for one that stops now and then, and has hardly any buffer.
    pub reading: Option<watch::Receiver<bool>>,
    /// What takes the time of its deliveries.
    pub stopwatch: Option<Arc<Stopwatch>>,
}

/// How long deliveries of some jobs took.
pub struct Stopwatch {
    pub jobs: BTreeSet<usize>,
    pub latencies: Latencies,
}

/// A watcher on its way through the trial.
pub struct Client {
    view: View,
    endpoint: Endpoint,
    /// The name of its record, where that is not the socket's.
    id: Option<String>,
    context: Arc<Context>,
    signal: watch::Receiver<Signal>,
    random: fastrand::Rng,
    next_address: usize,
    drops: u64,
    caught_up: bool,
    settled: bool,
    /// Whether it has been in all its rooms on this connection.
    settled_here: bool,
}

/// One connection, and what it waits for.
struct Connection {
    socket: Socket,
    silence: Duration,
    /// When the server is given up, unless it is heard before.
    deadline: Instant,
    /// For each room when its answer is due, if one is.
    answers: Vec<Option<Instant>>,
    /// Rooms to ask for again, and when.
    again: Option<(Instant, Vec<usize>)>,
}

/// Why a connection ended.
enum End {
    /// The trial is over.
    Stopped,
    /// It was told to drop its connection.
    Dropped,
    Lost,
}

impl Client {
    pub fn new(view: View, endpoint: Endpoint, context: Arc<Context>, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let id = random.bool().then(|| view.name.replace(' ', "-"));
        let next_address = random.usize(0..endpoint.addresses.len());
        let signal = context.signal();
        Self {
            view,
            endpoint,
            id,
            context,
            signal,
            random,
            next_address,
            drops: 0,
            caught_up: false,
            settled: false,
            settled_here: false,
        }
    }

    /// Watches until the trial is over.
    pub async fn run(mut self) -> View {
        let mut pause = PAUSES.0;
        let mut over = self.signal.clone();
        loop {
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = stopped(&mut over) => return self.view,
            };
            let end = match connected {
                Ok(connection) => {
                    pause = PAUSES.0;
                    self.watch(connection).await
                }
                Err(_) => End::Lost,
            };
            match end {
                End::Stopped => return self.view,
                End::Dropped => {}
                End::Lost => {
                    self.context.counts.losses.add(1);
                    let jittered = pause.mul_f64(0.5 + self.random.f64());
                    if timeout(jittered, stopped(&mut over)).await.is_ok() {
                        return self.view;
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
            self.network().await;
        }
    }

    /// Waits until the client has a network.
    async fn network(&mut self) {
        if let Some(network) = &mut self.endpoint.network {
            // It ends with the trial.
            let _over = network.wait_for(|there| *there).await;
        }
    }

    async fn connect(&mut self) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        self.next_address = (self.next_address + 1) % self.endpoint.addresses.len();
        let address = self.endpoint.addresses[self.next_address];
        let opened = timeout(PATIENCE, async {
            let stream = self.dial(address).await?;
            stream.set_nodelay(true)?;
            let limits = WebSocketConfig::default().read_buffer_size(2048).write_buffer_size(0);
            let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
            let (mut socket, _) = client_async_with_config(url, stream, Some(limits)).await?;
            let mut silence = PATIENCE;
            loop {
                let frame = socket.next().await.ok_or("closed")??;
                let Message::Text(text) = frame else { continue };
                match wire::read(&text) {
                    Some(Packet::Open { silence: told }) => {
                        silence = told;
                        socket
                            .send(Message::text(wire::join(
                                self.id.as_deref(),
                                self.endpoint.token.as_deref(),
                            )))
                            .await?;
                    }
                    Some(Packet::Joined) => break,
                    Some(Packet::Ping) => socket.send(Message::text(wire::PONG)).await?,
                    _ => return Err("not let in".into()),
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((socket, silence))
        });
        let (socket, silence) = opened.await??;
        self.context.counts.connections.add(1);
        self.view.connected();
        self.settled_here = false;
        let rooms = self.view.rooms.len();
        let deadline = Instant::now() + silence;
        let mut connection =
            Connection { socket, silence, deadline, answers: vec![None; rooms], again: None };
        connection.subscribe(&self.view, 0..rooms).await?;
        Ok(connection)
    }

    async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = self.endpoint.source {
            socket.bind((source, 0).into())?;
        }
        if self.endpoint.reading.is_some() {
            socket.set_recv_buffer_size(4096)?;
        }
        socket.connect(address).await
    }

    async fn watch(&mut self, mut connection: Connection) -> End {
        loop {
            let mut network = self.endpoint.network.clone();
            let next_deadline = connection.next_deadline();
            tokio::select! {
                frame = connection.socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        connection.deadline = Instant::now() + connection.silence;
                        if !self.take(&mut connection, &text).await {
                            return End::Lost;
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Lost,
                    Some(Ok(_)) => {}
                },
                () = sleep_until(next_deadline) => {
                    if connection.is_overdue() {
                        self.context.counts.silent.add(1);
                        return End::Lost;
                    }
                    if connection.ask_again(&self.view).await.is_err() {
                        return End::Lost;
                    }
                }
                changed = self.signal.changed() => {
                    let signal = self.signal.borrow_and_update().clone();
                    if changed.is_err() || signal.stop {
                        return End::Stopped;
                    }
                    if std::mem::replace(&mut self.drops, signal.drops) != signal.drops {
                        return End::Dropped;
                    }
                }
                () = gone(&mut network) => {
                    // Like a lost network: without a farewell.
                    let _ = socket2::SockRef::from(connection.socket.get_ref()).set_linger(Some(Duration::ZERO));
                    return End::Lost;
                }
            }
            self.note_progress(&connection);
            if let Some(reading) = &mut self.endpoint.reading {
                // An error says that the trial is over.
                let _over = reading.wait_for(|reads| *reads).await;
            }
        }
    }

    /// Takes what the server sent. Answers whether the connection is still of use.
    async fn take(&mut self, connection: &mut Connection, text: &str) -> bool {
        match wire::read(text) {
            Some(Packet::Ping) => return connection.socket.send(Message::text(wire::PONG)).await.is_ok(),
            Some(Packet::Event(event, positions)) => {
                if let Some((job, sent)) = self.view.event(event, &positions, &self.context.ledger) {
                    if let Some(stopwatch) =
                        self.endpoint.stopwatch.as_ref().filter(|watch| watch.jobs.contains(&job))
                    {
                        stopwatch.latencies.note(sent);
                    }
                    // What one that does not read gets late says nothing of the gateway.
                    if self.endpoint.reading.is_none() {
                        self.context.latencies.note(sent);
                    }
                }
                self.context.counts.deliveries.add(1);
            }
            Some(Packet::Gap(gap, positions)) => self.view.gap(&gap, &positions, &self.context.ledger),
            Some(Packet::Ack(room, answer)) if room < connection.answers.len() => {
                connection.answers[room] = None;
                if answer.success {
                    self.view.joined(room, &answer, &self.context.ledger);
                } else {
                    self.context.counts.refused_rooms.add(1);
                    let soon = Instant::now() + PAUSES.0.mul_f64(1.0 + self.random.f64());
                    connection.again.get_or_insert((soon, Vec::new())).1.push(room);
                }
            }
            Some(Packet::Left) => return false,
            Some(_) => {}
            None => {
                self.context
                    .ledger
                    .tell(format!("{}: was sent {text:?}, which is no packet", self.view.name));
                return false;
            }
        }
        true
    }

    fn note_progress(&mut self, connection: &Connection) {
        if !self.settled_here && connection.is_settled() {
            self.settled_here = true;
            self.context.settlings.add(1);
            if !std::mem::replace(&mut self.settled, true) {
                self.context.settled.add(1);
            }
        }
        if self.caught_up {
            return;
        }
        let reached = self.signal.borrow().last.as_ref().is_some_and(|last| self.view.has_reached(last));
        if reached && connection.is_settled() {
            self.caught_up = true;
            self.context.caught_up.add(1);
        }
    }
}

impl Connection {
    async fn subscribe(
        &mut self,
        view: &View,
        rooms: impl IntoIterator<Item = usize>,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        for room in rooms {
            self.answers[room] = Some(Instant::now() + PATIENCE);
            self.socket.send(Message::text(wire::subscribe(room, &view.subscription(room)))).await?;
        }
        Ok(())
    }

    async fn ask_again(&mut self, view: &View) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        match self.again.take_if(|(at, _)| *at <= Instant::now()) {
            Some((_, rooms)) => self.subscribe(view, rooms).await,
            None => Ok(()),
        }
    }

    /// Whether all rooms are joined.
    fn is_settled(&self) -> bool {
        self.again.is_none() && self.answers.iter().all(Option::is_none)
    }

    fn is_overdue(&self) -> bool {
        let now = Instant::now();
        self.deadline <= now || self.answers.iter().flatten().any(|due| *due <= now)
    }

    fn next_deadline(&self) -> Instant {
        let again = self.again.as_ref().map(|(at, _)| *at);
        self.answers.iter().copied().flatten().chain(again).fold(self.deadline, Instant::min)
    }
}

/// Waits for the end of the trial.
async fn stopped(signal: &mut watch::Receiver<Signal>) {
    // An error says that the trial has ended too.
    let _over = signal.wait_for(|signal| signal.stop).await;
}

/// Waits until the network is gone; for ever where it is not of that kind.
async fn gone(network: &mut Option<watch::Receiver<bool>>) {
    let gone = match network {
        Some(network) => network.wait_for(|there| !*there).await.is_ok(),
        None => false,
    };
    if !gone {
        std::future::pending::<()>().await;
    }
}
