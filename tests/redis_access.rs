//! Redis servers that do not let everybody in: passwords, ACL users, TLS.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jobcast::{Backend, Gateway, GatewayOptions, HistoryOptions, RedisOptions, StoreOptions};
use support::RedisServer;

fn options(url: String, ca_file: Option<PathBuf>) -> StoreOptions {
    let redis = RedisOptions { ca_file, key_prefix: "p:".to_owned(), ..RedisOptions::new(&url) };
    StoreOptions { backend: Backend::Redis(redis), history: HistoryOptions::default() }
}

async fn works(url: String, ca_file: Option<PathBuf>) {
    let gateway = Gateway::open(&options(url, ca_file), GatewayOptions::default()).await.unwrap();
    let published = gateway.emit_job_progress("a", 40.0, None).await.unwrap();
    let history = gateway.job_history(&"a".parse().unwrap(), None, None).await.unwrap();
    assert_eq!(history.len(), 1, "{published:?}");
    assert!(gateway.stop(std::time::Duration::from_secs(5)).await);
}

async fn is_refused(url: String, ca_file: Option<PathBuf>) -> String {
    let opened = Gateway::open(&options(url, ca_file), GatewayOptions::default()).await;
    let message = opened.expect_err("this must not be let in").to_string();
    assert!(message.contains("redis.url") && !message.contains("secret"), "{message}");
    message
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_password_opens() {
    let server = RedisServer::with(&["--requirepass", "secret"]).await;
    works(format!("redis://:secret@127.0.0.1:{}", server.port()), None).await;
    is_refused(format!("redis://127.0.0.1:{}", server.port()), None).await;
    is_refused(format!("redis://:secretive@127.0.0.1:{}", server.port()), None).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn an_acl_user_needs_only_its_own_keys_and_channels() {
    let user =
        ["--user", "jobcast", "on", ">secret", "~p:*", "&p:*", "+@all", "-@dangerous", "-@admin", "+info"];
    let server = RedisServer::with(&user).await;
    works(format!("redis://jobcast:secret@127.0.0.1:{}", server.port()), None).await;
    is_refused(format!("redis://jobcast:secrets@127.0.0.1:{}", server.port()), None).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn tls_trusts_the_authority_that_is_named_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let server = RedisServer::with_tls(&certificates.key, &certificates.certificate).await;
    let url = format!("rediss://localhost:{}", server.port());
    works(url.clone(), Some(certificates.certificate.clone())).await;
    is_refused(url.clone(), None).await;
    let message = is_refused_by_file(url, folder.path().join("absent.pem")).await;
    assert!(message.contains("redis.ca_file") && message.contains("absent.pem"), "{message}");
}

async fn is_refused_by_file(url: String, ca_file: PathBuf) -> String {
    let opened = Gateway::open(&options(url, Some(ca_file)), GatewayOptions::default()).await;
    opened.expect_err("there is no such file").to_string()
}

/// A key, and a certificate for localhost that vouches for itself.
struct Certificates {
    key: PathBuf,
    certificate: PathBuf,
}

impl Certificates {
    fn make(folder: &Path) -> Self {
        let made = Self { key: folder.join("key.pem"), certificate: folder.join("certificate.pem") };
        let status = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.certificate)
            .stderr(Stdio::null())
            .status()
            .expect("openssl must be installed");
        assert!(status.success());
        made
    }
}
