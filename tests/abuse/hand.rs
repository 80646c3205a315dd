//! A hand: one attacker, the raw connections that it opens, and what it notes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::{Failure, credentials};

/// How long a hand waits for an answer that it needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a hand that does not read looks whether it has been cut.
const GLANCE: Duration = Duration::from_millis(250);

/// The receive buffer of connections that are not read: what is sent there waits in the gateway.
const SMALL: u32 = 4096;

/// The longest answer that a hand reads whole.
const LONGEST: usize = 1 << 20;

/// What happened to the hands of one attack, by kind.
#[derive(Default)]
pub struct Notes(Mutex<BTreeMap<String, u64>>);

impl Notes {
    pub fn add(&self, what: &str) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *notes.entry(what.to_owned()).or_default() += 1;
    }

    /// All kinds and how often each was, in one line.
    pub fn told(&self) -> String {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<_> = notes.iter().map(|(what, count)| format!("{what} {count}")).collect();
        told.join(", ")
    }
}

/// One attacker.
#[derive(Clone)]
pub struct Hand {
    pub gateway: SocketAddr,
    /// The address that it comes from.
    pub source: IpAddr,
    /// Its number among the hands of its attack.
    pub number: usize,
    /// How often it has begun anew.
    pub round: u64,
    pub random: fastrand::Rng,
    pub notes: Arc<Notes>,
    /// The header that shows its credential, as a line; nothing where it has none.
    pub credential: Arc<str>,
}

impl Hand {
    /// Opens a connection that takes in hardly anything unread.
    pub async fn connect(&self) -> Result<Line, Failure> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SMALL)?;
        socket.bind((self.source, 0).into())?;
        let stream = timeout(PATIENCE, socket.connect(self.gateway)).await??;
        stream.set_nodelay(true)?;
        Ok(Line { stream })
    }

    /// The bytes of a request without a body.
    pub fn get(&self, path: &str, headers: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\n{}{headers}\r\n", self.own_headers()).into_bytes()
    }

    /// The head of a request whose body is to have so many bytes.
    pub fn post_head(&self, path: &str, length: usize, headers: &str) -> Vec<u8> {
        let own = self.own_headers();
        format!("POST {path} HTTP/1.1\r\n{own}Content-Length: {length}\r\n{headers}\r\n").into_bytes()
    }

    fn own_headers(&self) -> String {
        format!("Host: {}\r\n{}", self.gateway, self.credential)
    }

    /// The bytes of a request with a body.
    pub fn post(&self, path: &str, body: &[u8], headers: &str) -> Vec<u8> {
        [&self.post_head(path, body.len(), headers), body].concat()
    }

    /// Sends one request on a connection of its own, and answers its whole answer. The request should ask to close.
    pub async fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut line = self.connect().await?;
        line.send(request).await?;
        line.read_to_end().await
    }

    /// The same hand with another credential, or none.
    pub fn with(&self, credential: Option<String>) -> Self {
        Self { credential: credentials::header(credential.as_deref()).into(), ..self.clone() }
    }

    /// Waits, longer or shorter by up to a half.
    pub async fn pause(&mut self, millis: u64) {
        sleep(Duration::from_millis(millis).mul_f64(0.5 + self.random.f64())).await;
    }

    pub fn note(&self, what: &str) {
        self.notes.add(what);
    }
}

/// A raw connection.
pub struct Line {
    stream: TcpStream,
}

impl Line {
    /// Sends bytes; waits for ever where nobody takes them.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Ends its own side only.
    pub async fn end(&mut self) -> Result<(), Failure> {
        Ok(self.stream.shutdown().await?)
    }

    /// Reads what is there, at most so much; an error where the connection has ended.
    pub async fn take(&mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; most];
        let count = timeout(PATIENCE, self.stream.read(&mut bytes)).await??;
        bytes.truncate(count);
        if count == 0 { Err("ended".into()) } else { Ok(bytes) }
    }

    /// Reads until something has come.
    pub async fn until(&mut self, what: &str) -> Result<Vec<u8>, Failure> {
        let mut read = Vec::new();
        while !contains(&read, what) {
            read.extend(self.take(4096).await?);
            if read.len() > LONGEST {
                return Err("something else came, and much of it".into());
            }
        }
        Ok(read)
    }

    /// Reads to the end.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>, Failure> {
        let mut read = Vec::new();
        let mut limited = (&mut self.stream).take(LONGEST as u64);
        timeout(PATIENCE, limited.read_to_end(&mut read)).await??;
        Ok(read)
    }

    /// Reads what has come, without waiting.
    pub fn drain(&self) {
        let mut bytes = [0; 1 << 14];
        while self.stream.try_read(&mut bytes).is_ok_and(|count| count > 0) {}
    }

    /// Does not read; until the gateway cuts the connection, or so long.
    pub async fn hold(&self, span: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < span {
            sleep(GLANCE).await;
            self.is_there().await?;
        }
        Ok(())
    }

    /// An error where the gateway has cut the connection.
    async fn is_there(&self) -> Result<(), Failure> {
        let ready = timeout(Duration::ZERO, self.stream.ready(Interest::READABLE | Interest::ERROR)).await;
        let cut = match ready {
            Ok(ready) => {
                let ready = ready?;
                ready.is_read_closed() || ready.is_error()
            }
            Err(_) => false,
        };
        if cut { Err("cut".into()) } else { Ok(()) }
    }
}

/// Whether text is somewhere in bytes.
pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The status of an HTTP answer, as text.
pub fn status(answer: &[u8]) -> String {
    let words = answer.split(|byte| *byte == b' ').nth(1);
    words.map_or_else(|| "no answer".to_owned(), |status| String::from_utf8_lossy(status).into_owned())
}
