//! Clients that write and read every byte themselves.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// No answer takes longer, by far.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

fn read_head(stream: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "the connection has ended: {head}");
    }
    head
}

/// Whoever watches, in the namespace `/jobs`.
pub struct Watcher(pub BufReader<TcpStream>);

impl Watcher {
    pub fn connect(address: &str) -> Self {
        let mut stream = connect(address);
        let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        let mut watcher = Self(stream);
        let open = watcher.next();
        assert!(open.starts_with(r#"0{"sid":""#) && open.contains(r#""pingInterval":25000"#), "{open}");
        watcher.send("40/jobs,{}");
        let connected = watcher.next();
        assert!(connected.starts_with(r#"40/jobs,{"sid":""#), "{connected}");
        watcher
    }

    /// Joins a room in which nothing has happened yet.
    pub fn subscribe(&mut self, payload: &str, room: &str) {
        self.send(&format!(r#"42/jobs,3["subscribe:jobs",{payload}]"#));
        let ack = format!(
            r#"43/jobs,3[{{"success":true,"room":"{room}","message":"subscribed to {room}","latest":null}}]"#
        );
        assert_eq!(self.next(), ack);
    }

    pub fn send(&mut self, text: &str) {
        let mask = [7, 0, 255, 31];
        let masked = text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        assert!(text.len() < 126);
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
        frame.extend(mask);
        frame.extend(masked);
        // In two pieces: the server has to wait for the rest.
        let (first, second) = frame.split_at(3);
        self.0.get_mut().write_all(first).unwrap();
        self.0.get_mut().write_all(second).unwrap();
    }

    /// The next packet that is no ping; pings are answered.
    pub fn next(&mut self) -> String {
        loop {
            match self.next_frame() {
                ping if ping == "2" => self.send("3"),
                packet => return packet,
            }
        }
    }

    fn next_frame(&mut self) -> String {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81);
        let length = match head[1] {
            126 => {
                let mut long = [0; 2];
                self.0.read_exact(&mut long).unwrap();
                usize::from(u16::from_be_bytes(long))
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        String::from_utf8(payload).unwrap()
    }
}

/// Whoever publishes, over one connection.
pub struct Publisher(pub BufReader<TcpStream>);

impl Publisher {
    pub fn connect(address: &str) -> Self {
        Self(connect(address))
    }

    pub fn send(&mut self, path: &str, body: &str) {
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// The next answer's status line and body.
    pub fn answer(&mut self) -> (String, String) {
        let head = read_head(&mut self.0);
        let (status, headers) = head.split_once("\r\n").unwrap();
        let (_, length) = headers.split_once("content-length: ").unwrap();
        let mut body = vec![0; length.split_once("\r\n").unwrap().0.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (status.to_owned(), String::from_utf8(body).unwrap())
    }

    /// Publishes, and answers the body of what must be a success.
    pub fn publish(&mut self, path: &str, body: &str) -> serde_json::Value {
        self.send(path, body);
        let (status, body) = self.answer();
        assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
        serde_json::from_str(&body).unwrap()
    }
}
