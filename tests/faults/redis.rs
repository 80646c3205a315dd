//! A redis-server of the trial's own, killed and started again on the same port and files.

use std::{
    fs::OpenOptions,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{Failure, gateway::signal};

/// How long it may take to start and to load its files.
const START: Duration = Duration::from_secs(60);

pub struct Redis {
    process: Child,
    folder: PathBuf,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts one on a free port, with its files in that folder, and waits until it answers.
    pub async fn start(folder: PathBuf, arguments: &[&str]) -> Result<Self, Failure> {
        std::fs::create_dir_all(&folder)?;
        let port = free_port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = spawn(&folder, port, &arguments).await?;
        Ok(Self { process, folder, port, arguments })
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again on the same port and files.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            match spawn(&self.folder, self.port, &self.arguments).await {
                Ok(process) => {
                    self.process = process;
                    return Ok(());
                }
                // The port may be a client's own for a moment.
                Err(error) if begun.elapsed() > START => return Err(error),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Sends it a signal, such as STOP and CONT.
    pub fn signal(&self, name: &str) -> Result<(), Failure> {
        signal(&self.process, name)
    }

    /// Runs one command, whatever its answer.
    pub async fn done(&self, words: &[&str]) -> Result<(), Failure> {
        self.command::<redis::Value>(words).await.map(drop)
    }

    /// The keys that match a pattern.
    pub async fn keys(&self, pattern: &str) -> Result<Vec<String>, Failure> {
        self.command(&["KEYS", pattern]).await
    }

    /// What it says of itself.
    pub async fn info(&self, section: &str) -> Result<String, Failure> {
        self.command(&["INFO", section]).await
    }

    /// Runs one command.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, Failure> {
        let client = redis::Client::open(format!("redis://{}", self.address()))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let (name, arguments) = words.split_first().ok_or("no command")?;
        Ok(redis::cmd(name).arg(arguments).query_async(&mut connection).await?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A free port below those that the system gives to outgoing connections: a server that is started again must find
/// its port free.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(15_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

async fn spawn(folder: &PathBuf, port: u16, arguments: &[String]) -> Result<Child, Failure> {
    let log = OpenOptions::new().create(true).append(true).open(folder.join("redis.log"))?;
    let mut process = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .spawn()
        .map_err(|error| format!("redis-server must be installed: {error}"))?;
    let begun = Instant::now();
    while !answers(port).await {
        if process.try_wait()?.is_some() || begun.elapsed() > START {
            let _ = process.kill();
            process.wait()?;
            return Err(format!("redis-server does not start; see {}/redis.log", folder.display()).into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(process)
}

/// Whether a server answers on that port, with all its data loaded.
async fn answers(port: u16) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(&answer == b"+PONG")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Ok(true)))
}
