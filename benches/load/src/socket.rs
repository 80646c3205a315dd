//! One watcher's connection: from the call to connect until it watches its room, and what it makes of packets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Type};

use crate::credential::Credential;
use crate::latency::micros;
use crate::names::Names;
use crate::over::Over;
use crate::room::Room;
use crate::stage::Server;
use crate::stats::Stats;
use crate::wire::{self, Frame, Packet};

const UPGRADE: &[u8] = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: jobcast-load\r\n\r\n";

/// What a watcher is to do.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Which of the servers it connects to.
    pub server: usize,
    /// The room that it subscribes to.
    pub room: Room,
    /// The jobs whose events it then gets.
    pub jobs: Range<u32>,
}

/// How far a watcher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not connected.
    Away,
    /// Waits for TCP.
    Dialling,
    /// Waits for the WebSocket.
    Upgrading,
    /// Waits for Engine.IO.
    Opening,
    /// Waits for the namespace.
    Joining,
    /// Waits for the answer to its subscription.
    Subscribing,
    /// Is there.
    Watching,
}

/// One watcher.
pub struct Socket {
    pub assignment: Assignment,
    pub state: State,
    stream: Option<TcpStream>,
    /// What it shows.
    credential: Credential,
    /// The beginning of a frame whose end is not there yet.
    rest: Vec<u8>,
    unsent: Vec<u8>,
    /// When it called connect, in microseconds; stays through refusals until it has been served.
    set_out: Option<u64>,
    /// How many events are still to come until it is up to date.
    replaying: u64,
}

impl Socket {
    /// A watcher that is not connected.
    pub fn new(assignment: Assignment) -> Self {
        Self {
            assignment,
            state: State::Away,
            stream: None,
            credential: Credential::None,
            rest: Vec::new(),
            unsent: Vec::new(),
            set_out: None,
            replaying: 0,
        }
    }

    /// Begins to connect, from one of the loopback addresses, so that ports do not run short.
    pub fn dial(&mut self, registry: &Registry, token: Token, to: Server, from: Ipv4Addr) -> io::Result<()> {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddrV4::new(from, 0).into())?;
        self.set_out.get_or_insert_with(micros);
        self.credential = to.credential;
        match socket.connect(&to.address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.stream = Some(stream);
        self.state = State::Dialling;
        Ok(())
    }

    /// Hangs up without a word, like a lost network.
    pub fn drop_line(&mut self) {
        self.stream = None;
        self.state = State::Away;
        self.replaying = 0;
        self.rest = Vec::new();
        self.unsent = Vec::new();
    }

    /// Leaves as a stock client does: the namespace, then the WebSocket, then TCP.
    pub fn leave(&mut self) {
        let mut goodbye = Vec::new();
        wire::put_text(&mut goodbye, b"41/jobs,");
        wire::put_close(&mut goodbye);
        // Who does not take a goodbye is hung up on.
        let _ = self.send(&goodbye);
        self.drop_line();
        self.set_out = None;
    }

    /// Acts on the news that the connection may be read from or written to. `closing`: the other side has said that
    /// nothing follows. `buffer` is where everything is read into.
    pub fn serve(
        &mut self,
        index: usize,
        closing: bool,
        buffer: &mut [u8],
        stats: &mut Stats,
    ) -> Result<(), Over> {
        if self.state == State::Dialling && !self.dialled()? {
            return Ok(());
        }
        if !self.unsent.is_empty() {
            self.send(&[])?;
        }
        loop {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            self.rest.clear();
            let read = self.read(&mut buffer[kept..])?;
            let filled = kept + read.unwrap_or(0);
            let used = if read.is_some() { self.take(index, &buffer[..filled], stats)? } else { 0 };
            if used == 0 && filled == buffer.len() {
                return Err(Over("a frame that is larger than anything expected"));
            }
            self.rest.extend_from_slice(&buffer[used..filled]);
            // A read that does not fill the buffer has emptied the socket: the next news comes by itself.
            if read.is_none() || (filled < buffer.len() && !closing) {
                return Ok(());
            }
        }
    }

    fn dialled(&mut self) -> Result<bool, Over> {
        let Some(stream) = &self.stream else { return Ok(false) };
        if !matches!(stream.take_error(), Ok(None)) {
            return Err(Over("connection refused"));
        }
        match stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(_) => return Err(Over("connection refused")),
        }
        self.state = State::Upgrading;
        self.send(UPGRADE)?;
        Ok(true)
    }

    /// How many bytes there were; `None` while there are none.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Over> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        loop {
            match stream.read(buffer) {
                Ok(0) => return Err(Over("closed by the server")),
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over("cut by the server")),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        self.unsent.extend_from_slice(bytes);
        let mut sent = 0;
        while sent < self.unsent.len() {
            match stream.write(&self.unsent[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over("cut by the server")),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    fn send_text(&mut self, text: &[u8]) -> Result<(), Over> {
        let mut frame = Vec::with_capacity(text.len() + 14);
        wire::put_text(&mut frame, text);
        self.send(&frame)
    }

    /// Acts on all that is complete in `bytes`; tells how much that was.
    fn take(&mut self, index: usize, bytes: &[u8], stats: &mut Stats) -> Result<usize, Over> {
        let mut used = 0;
        if self.state == State::Upgrading {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                return Err(Over("refused by the server"));
            }
            used = end + 4;
            self.state = State::Opening;
        }
        let now = micros();
        while let Some((frame, length)) = wire::frame(&bytes[used..])? {
            used += length;
            match frame {
                Frame::Text(text) => self.act_on(index, wire::packet(text, &stats.names), now, stats)?,
                Frame::Ping(payload) => {
                    let mut pong = Vec::new();
                    wire::put_pong(&mut pong, payload);
                    self.send(&pong)?;
                }
                Frame::Close => return Err(Over("closed by the server")),
                Frame::Other => {}
            }
        }
        Ok(used)
    }

    fn act_on(&mut self, index: usize, packet: Packet<'_>, now: u64, stats: &mut Stats) -> Result<(), Over> {
        match packet {
            Packet::Delivery(delivery) => {
                stats.delivery(index, delivery, now)?;
                self.replayed(now, stats);
            }
            Packet::Ping => self.send_text(b"3")?,
            Packet::Gap { from, to } => stats.gap(from, to),
            Packet::Open if self.state == State::Opening => {
                self.state = State::Joining;
                let join = self.credential.join(self.assignment.room, &stats.names);
                self.send_text(join.as_bytes())?;
            }
            Packet::Joined if self.state == State::Joining => {
                self.state = State::Subscribing;
                let since = stats.resume(index, self.assignment.room);
                self.send_text(&subscription(self.assignment.room, &stats.names, since))?;
            }
            Packet::Answer(answer) if self.state == State::Subscribing => {
                let answer = wire::subscribed(answer).ok_or(Over("the subscription failed"))?;
                self.state = State::Watching;
                stats.watching += 1;
                stats.begin(index, answer.position);
                // One more, which is done at once.
                self.replaying = answer.replaying + 1;
                self.replayed(now, stats);
            }
            Packet::Refused => return Err(Over("put out of the namespace")),
            Packet::Closed => return Err(Over("closed by the server")),
            _ => {}
        }
        Ok(())
    }

    /// One event less is to come.
    fn replayed(&mut self, now: u64, stats: &mut Stats) {
        if self.replaying == 0 {
            return;
        }
        self.replaying -= 1;
        if self.replaying == 0
            && let Some(set_out) = self.set_out.take()
        {
            stats.served(now.saturating_sub(set_out));
        }
    }
}

/// The subscription to a room; `since` is where its watcher goes on, as JSON.
fn subscription(room: Room, names: &Names, since: Option<String>) -> Vec<u8> {
    let member = match room {
        Room::Job(job) => Some(format!(r#""jobId":"{}""#, names.job(job))),
        Room::User(user) => Some(format!(r#""userId":"{}""#, names.user(user))),
        Room::All => None,
    };
    let since = since.map(|since| format!(r#""since":{since}"#));
    let members: Vec<_> = member.into_iter().chain(since).collect();
    format!(r#"42/jobs,1["subscribe:jobs",{{{}}}]"#, members.join(",")).into_bytes()
}
