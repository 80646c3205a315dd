//! A publisher's connection: opened when it is first needed, kept, and opened again where the server closed it
//! between two calls, as any HTTP client does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::error::Error;

/// A call under way.
#[derive(Clone, Copy)]
pub struct Call {
    /// The index of its first event, and how many it has.
    pub first: u64,
    pub events: usize,
    /// When it was handed over.
    pub sent: Instant,
}

/// One connection, with one call under way at the most.
pub struct Connection {
    server: SocketAddr,
    token: Token,
    stream: Option<TcpStream>,
    /// Whether this connection has carried an answer: only then may it be closed without that being a fault.
    proven: bool,
    /// The call's bytes, kept until they are answered, and how many of them are sent.
    request: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    call: Option<Call>,
}

impl Connection {
    /// To this server; not connected yet.
    pub fn new(server: SocketAddr, token: Token) -> Self {
        let (request, received) = (Vec::new(), Vec::new());
        Self { server, token, stream: None, proven: false, request, sent: 0, received, call: None }
    }

    /// What it waits for.
    pub fn call(&self) -> Option<Call> {
        self.call
    }

    /// Sends a call, whose bytes `write` appends. It never waits: what is not taken now goes out later.
    pub fn send(
        &mut self,
        registry: &Registry,
        call: Call,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Error> {
        self.call = Some(call);
        self.request.clear();
        write(&mut self.request);
        self.sent = 0;
        if self.stream.is_none() {
            self.open(registry)?;
        }
        let flushed = self.flush();
        self.settle(flushed, registry)
    }

    /// Sends and receives as much as goes without waiting.
    pub fn advance(&mut self, registry: &Registry) -> Result<(), Error> {
        let done = self.flush().and_then(|()| self.fill());
        self.settle(done, registry)
    }

    fn settle(&mut self, done: io::Result<()>, registry: &Registry) -> Result<(), Error> {
        match done {
            Ok(()) => Ok(()),
            Err(error) if is_end(&error) => self.closed(registry),
            Err(error) => Err(format!("a publisher's connection failed: {error}").into()),
        }
    }

    /// Takes a whole answer out of what came, if `read` finds one: it tells what it makes of it, and its length.
    pub fn take_answer<A>(
        &mut self,
        read: impl FnOnce(&[u8]) -> Result<Option<(A, usize)>, Error>,
    ) -> Result<Option<(Call, A)>, Error> {
        let Some((answer, length)) = read(&self.received)? else {
            let cut_short = self.call.is_some() && self.stream.is_none();
            return if cut_short {
                Err("the server closed a connection within an answer".into())
            } else {
                Ok(None)
            };
        };
        self.received.drain(..length);
        self.proven = true;
        let call = self.call.take().ok_or("an answer that nobody asked for")?;
        Ok(Some((call, answer)))
    }

    fn open(&mut self, registry: &Registry) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
        self.stream = Some(stream);
        self.proven = false;
        self.sent = 0;
        self.received.clear();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.call.is_some() && self.sent < self.request.len() {
            match stream.write(&self.request[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if is_not_yet(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut chunk = [0; 16 * 1024];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The server has closed it. That is nothing where nothing is waited for, or what came may be the whole answer. A
    /// call that found a kept connection closed, without a byte of an answer, is sent once more, on a new one.
    fn closed(&mut self, registry: &Registry) -> Result<(), Error> {
        self.stream = None;
        if self.call.is_none() || !self.received.is_empty() {
            return Ok(());
        }
        if !self.proven {
            return Err("the server closed a publisher's connection instead of answering".into());
        }
        self.open(registry)?;
        let flushed = self.flush();
        self.settle(flushed, registry)
    }
}

/// Whether the other side has ended the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Whether it goes on later: with the next news, or once the connection stands.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    fn call() -> Call {
        Call { first: 0, events: 1, sent: Instant::now() }
    }

    /// Turns until there is an answer of three bytes.
    fn answered(connection: &mut Connection, poll: &mut Poll) -> Result<(), Error> {
        let mut events = Events::with_capacity(8);
        for _ in 0..100 {
            poll.poll(&mut events, Some(Duration::from_millis(20)))?;
            connection.advance(poll.registry())?;
            if connection.take_answer(|bytes| Ok((bytes.len() >= 3).then_some(((), 3))))?.is_some() {
                return Ok(());
            }
        }
        Err("no answer".into())
    }

    /// A server that reads a call of four bytes on each connection, and answers those that it is told to.
    fn server(answers: &'static [bool]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answers in answers {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
                if *answers {
                    stream.write_all(b"yes").unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn a_kept_connection_that_was_closed_is_opened_again() {
        let mut poll = Poll::new().unwrap();
        let mut connection = Connection::new(server(&[true, true, true]), Token(0));
        for _ in 0..3 {
            connection.send(poll.registry(), call(), |request| request.extend_from_slice(b"call")).unwrap();
            answered(&mut connection, &mut poll).unwrap();
        }
    }

    #[test]
    fn a_new_connection_that_is_closed_without_an_answer_is_a_fault() {
        let mut poll = Poll::new().unwrap();
        let mut connection = Connection::new(server(&[true, false]), Token(0));
        connection.send(poll.registry(), call(), |request| request.extend_from_slice(b"call")).unwrap();
        answered(&mut connection, &mut poll).unwrap();
        let sent = connection.send(poll.registry(), call(), |request| request.extend_from_slice(b"call"));
        assert!(sent.and_then(|()| answered(&mut connection, &mut poll)).is_err());
    }
}
