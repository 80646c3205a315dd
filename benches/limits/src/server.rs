//! The event loop: who is ready is read and answered, then what there is to deliver is delivered.

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Instant,
};

use mio::{Events, Interest, Poll, Token, event::Event, net::TcpListener};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::{
    clock::Clock,
    connection::{Connection, Protocol, Reading},
    delivery::Delivery,
    event::Draft,
    heartbeat::Heartbeat,
    http,
    input::Input,
    rooms::Rooms,
    socketio::{self, Packet, RoomName},
    websocket::{self, Message},
};

const LISTENER: Token = Token(usize::MAX);

/// How many connections may wait to be accepted: a thousand of them come at once.
const BACKLOG: i32 = 4096;

/// How many connections one turn looks after at the most.
const READY_AT_ONCE: usize = 1024;

/// A connection that is to be closed.
struct Ended;

/// What a request asks for.
enum Call<'a> {
    OpenWebSocket { key: &'a str },
    Publish { job: &'a str },
    PublishBatch,
}

impl<'a> Call<'a> {
    fn of(request: &http::Request<'a>) -> Option<Self> {
        match (request.method, request.path) {
            ("GET", path) if path.starts_with("/socket.io") => {
                Some(Call::OpenWebSocket { key: request.websocket_key? })
            }
            ("POST", "/api/events") => Some(Call::PublishBatch),
            ("POST", path) => {
                Some(Call::Publish { job: path.strip_prefix("/api/jobs/")?.strip_suffix("/progress")? })
            }
            _ => None,
        }
    }
}

/// All of the server.
pub struct Server<D> {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    accepted: u64,
    rooms: Rooms,
    delivery: D,
    heartbeat: Heartbeat,
    clock: Clock,
    input: Input,
    /// What the connection that is read is about to be answered.
    answers: Vec<u8>,
    /// The frame of the event that is published, and the body of a publisher's answer.
    frame: Vec<u8>,
    body: Vec<u8>,
}

impl<D: Delivery> Server<D> {
    /// Listens on the loopback address.
    pub fn bind(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Slab::new(),
            accepted: 0,
            rooms: Rooms::new(),
            delivery: D::default(),
            heartbeat: Heartbeat::default(),
            clock: Clock::new(),
            input: Input::new(),
            answers: Vec::new(),
            frame: Vec::new(),
            body: Vec::new(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until something fails that is not a client's.
    pub fn run(mut self) -> io::Result<Infallible> {
        let mut events = Events::with_capacity(READY_AT_ONCE);
        loop {
            match self.poll.poll(&mut events, self.heartbeat.pause()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(key) => self.look_after(key, event),
                }
            }
            self.delivery.end_turn(&self.rooms, &mut self.connections);
            self.ping();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    // Such as too many open files: a yardstick that refuses clients measures nothing.
                    _ => return Err(error),
                },
            };
            stream.set_nodelay(true)?;
            let place = self.connections.vacant_entry();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(place.key()), both)?;
            self.accepted += 1;
            place.insert(Connection::new(stream, self.accepted));
        }
    }

    fn look_after(&mut self, key: usize, event: &Event) {
        // It may have been closed in this very turn.
        let Some(connection) = self.connections.get_mut(key) else { return };
        if event.is_writable() {
            connection.resume();
        }
        if event.is_readable() && self.read(key, event.is_read_closed()).is_err() {
            self.close(key);
        }
    }

    fn read(&mut self, key: usize, is_closed: bool) -> Result<(), Ended> {
        let mut input = self.input.take();
        let read = self.connections[key].read(&mut input, is_closed).map_err(|_| Ended);
        let understood = read.and_then(|reading| {
            let understood = self.understand(key, input.filled());
            self.connections[key].send(&self.answers);
            self.answers.clear();
            self.connections[key].keep(&input.filled()[understood?..]);
            if reading == Reading::Open { Ok(()) } else { Err(Ended) }
        });
        self.input = input;
        understood
    }

    /// Does and answers what is whole, and says how much of the input that was.
    fn understand(&mut self, key: usize, input: &mut [u8]) -> Result<usize, Ended> {
        let mut done = 0;
        loop {
            let rest = &mut input[done..];
            let length = match self.connections[key].protocol {
                Protocol::Http => self.understand_request(key, rest)?,
                Protocol::WebSocket | Protocol::Jobs => self.understand_frame(key, rest)?,
            };
            match length {
                Some(length) => done += length,
                None => return Ok(done),
            }
        }
    }

    fn understand_request(&mut self, key: usize, input: &[u8]) -> Result<Option<usize>, Ended> {
        let Ok(read) = http::read(input) else {
            http::write_refusal("400 Bad Request", &mut self.answers);
            return Err(Ended);
        };
        let Some((request, length)) = read else { return Ok(None) };
        match Call::of(&request) {
            Some(Call::OpenWebSocket { key: websocket_key }) => self.upgrade(key, websocket_key),
            Some(Call::Publish { job }) => self.publish_one(job, request.body),
            Some(Call::PublishBatch) => self.publish_batch(request.body),
            None => http::write_refusal("404 Not Found", &mut self.answers),
        }
        Ok(Some(length))
    }

    fn upgrade(&mut self, key: usize, websocket_key: &str) {
        let connection = &mut self.connections[key];
        let serial = connection.serial;
        connection.protocol = Protocol::WebSocket;
        self.heartbeat.plan(key, serial);
        http::write_upgrade(&websocket::accept(websocket_key), &mut self.answers);
        websocket::write_text(&mut self.answers, |out| socketio::write_open(serial, out));
    }

    fn publish_one(&mut self, job: &str, body: &[u8]) {
        match Draft::read(body, job) {
            Some(draft) => {
                self.publish(&draft);
                self.answer();
            }
            None => http::write_refusal("422 Unprocessable Content", &mut self.answers),
        }
    }

    fn publish_batch(&mut self, body: &[u8]) {
        let Some(drafts) = Draft::read_batch(body) else {
            http::write_refusal("422 Unprocessable Content", &mut self.answers);
            return;
        };
        self.body.extend_from_slice(br#"{"results":["#);
        for (number, draft) in drafts.iter().enumerate() {
            if number > 0 {
                self.body.push(b',');
            }
            self.publish(draft);
        }
        self.body.extend_from_slice(b"]}");
        self.answer();
    }

    /// Hands an event over to its watchers, and adds what its publisher is told to the body.
    fn publish(&mut self, draft: &Draft<'_>) {
        let at = self.clock.now();
        let (seq, reached) = self.rooms.next_event(draft.job(), draft.user(), &at);
        self.frame.clear();
        websocket::write_text(&mut self.frame, |out| draft.write_packet(&at, seq, out));
        self.delivery.take(&self.frame, reached, &self.rooms, &mut self.connections);
        draft.write_answer(&at, seq, &mut self.body);
    }

    fn answer(&mut self) {
        http::write_ok(&self.body, &mut self.answers);
        self.body.clear();
    }

    fn understand_frame(&mut self, key: usize, input: &mut [u8]) -> Result<Option<usize>, Ended> {
        let Some((message, length)) = websocket::read(input).map_err(|_| Ended)? else { return Ok(None) };
        self.connections[key].is_alive = true;
        match message {
            Message::Text(text) => self.understand_packet(key, Packet::read(text))?,
            Message::Ping(payload) => websocket::write_pong(payload, &mut self.answers),
            Message::Pong => {}
            Message::Close => {
                websocket::write_close(&mut self.answers);
                return Err(Ended);
            }
        }
        Ok(Some(length))
    }

    fn understand_packet(&mut self, key: usize, packet: Packet<'_>) -> Result<(), Ended> {
        let connection = &mut self.connections[key];
        match (packet, connection.protocol) {
            (Packet::Connect, _) => {
                connection.protocol = Protocol::Jobs;
                let serial = connection.serial;
                websocket::write_text(&mut self.answers, |out| socketio::write_connected(serial, out));
            }
            (Packet::Subscribe { ack, room }, Protocol::Jobs) => self.subscribe(key, ack, room),
            (Packet::Pong, _) => {}
            (Packet::Subscribe { .. } | Packet::Close | Packet::Unknown, _) => return Err(Ended),
        }
        Ok(())
    }

    fn subscribe(&mut self, key: usize, ack: &str, name: RoomName<'_>) {
        let room = self.rooms.room(name);
        if self.connections[key].enter(room) {
            self.rooms.join(room, key);
        }
        if !ack.is_empty() {
            websocket::write_text(&mut self.answers, |out| socketio::write_subscribed(ack, name, out));
        }
    }

    fn ping(&mut self) {
        let now = Instant::now();
        while let Some(beat) = self.heartbeat.next_due(now) {
            let Some(connection) = self.connections.get_mut(beat.key) else { continue };
            if connection.serial != beat.serial {
                continue;
            }
            if !std::mem::take(&mut connection.is_alive) {
                self.close(beat.key);
                continue;
            }
            self.frame.clear();
            websocket::write_text(&mut self.frame, |out| out.extend_from_slice(socketio::PING.as_bytes()));
            connection.send(&self.frame);
            self.heartbeat.plan(beat.key, beat.serial);
        }
    }

    fn close(&mut self, key: usize) {
        let mut connection = self.connections.remove(key);
        for &room in connection.rooms() {
            self.rooms.leave(room, key);
        }
        // Closing the socket does the same, unless this fails for a reason that does not matter then.
        let _closed_anyway = self.poll.registry().deregister(connection.stream());
    }
}
