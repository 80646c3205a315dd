//! Real servers for tests, started here and stopped with the test.

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
        let log = folder.path().join("log");
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(arguments)
            .current_dir(folder.path())
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("redis-server must be installed");
        let server = Self { process, port, folder };
        let begun = Instant::now();
        while !server.log().contains("Ready to accept connections") {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "redis-server does not start: {}",
                server.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
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

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
