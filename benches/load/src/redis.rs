//! A Redis server of one's own that keeps nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::interrupt;
use crate::process::Process;

const START: Duration = Duration::from_secs(10);

/// A running server.
pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// Starts one on a free port, with its files in `folder`.
    pub fn start(folder: &Path) -> Result<Self, Error> {
        // It cannot be told to choose a port itself.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxclients", "10000"]);
        command.args(["--port", &port.to_string()]).arg("--dir").arg(folder).stdout(Stdio::null());
        let mut redis = Self { process: Process::start(&mut command, folder.join("redis.log"))?, port };
        let deadline = Instant::now() + START;
        while !redis.answers() {
            interrupt::check()?;
            redis.process.check()?;
            if Instant::now() > deadline {
                return Err(format!("redis-server does not answer within {START:?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }

    fn answers(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let pong = || -> std::io::Result<[u8; 5]> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        pong().is_ok_and(|answer| &answer == b"+PONG")
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
