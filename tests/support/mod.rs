//! Real servers for tests, started here and stopped with the test.

#[allow(dead_code, reason = "each test binary uses its own part of this module")]
pub mod cluster;
#[allow(dead_code, reason = "each test binary uses its own part of this module")]
pub mod follower;
#[allow(dead_code, reason = "each test binary uses its own part of this module")]
pub mod watcher;

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A redis-server of the test's own, on a free port, that keeps nothing.
pub struct RedisServer {
    process: Child,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

#[allow(dead_code, reason = "each test binary uses its own part of this module")]
impl RedisServer {
    /// Starts it and waits until it takes connections.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        Self::spawn(port, &[&["--port", &port_text], arguments].concat()).await
    }

    /// With TLS only, on a certificate of its own.
    pub async fn with_tls(key: &Path, certificate: &Path) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
        let tls =
            ["--port", "0", "--tls-port", &port_text, "--tls-auth-clients", "no", "--tls-key-file", key];
        let trust = ["--tls-cert-file", certificate, "--tls-ca-cert-file", certificate];
        Self::spawn(port, &[tls.as_slice(), &trust].concat()).await
    }

    async fn spawn(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = launch(&folder, &arguments);
        let server = Self { process, port, folder, arguments };
        server.ready().await;
        server
    }

    async fn ready(&self) {
        let server = self;
        let begun = Instant::now();
        while !server.log().contains("Ready to accept connections") {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "redis-server does not start: {}",
                server.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after [`RedisServer::kill`], on the same port and folder.
    pub async fn start_again(&mut self) {
        self.process = launch(&self.folder, &self.arguments);
        self.ready().await;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection to look at what is stored.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        redis::Client::open(self.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(folder: &TempDir, arguments: &[String]) -> Child {
    let program = std::env::var_os("JOBCAST_REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    Command::new(program)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(arguments)
        .current_dir(folder.path())
        .stdout(File::create(folder.path().join("log")).unwrap())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("redis-server must be installed")
}

/// A free port below those that the system gives to outgoing connections: a server that is started again must find
/// its port free.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(15_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
