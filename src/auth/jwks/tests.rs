//! Tests of the JWKS against a small HTTP server.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    auth::{
        Pass,
        claims::Expected,
        tests::{Signer, metrics},
        token::{Refusal, TokenVerifier},
    },
    timestamp::Timestamp,
};

/// A server that answers every request with the same text, which may change.
struct Server {
    url: JwksUrl,
    answer: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
    /// A request is answered when it gets this.
    gate: Arc<tokio::sync::Semaphore>,
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn set(keys: &[Value]) -> String {
    ok(&json!({"keys": keys}).to_string())
}

impl Server {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?secret=1", listener.local_addr().unwrap()).parse().unwrap();
        let server = Self {
            url,
            answer: Arc::new(Mutex::new(answer)),
            requests: Arc::default(),
            gate: Arc::new(tokio::sync::Semaphore::new(1000)),
        };
        let (answer, requests, gate) = (server.answer.clone(), server.requests.clone(), server.gate.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                requests.fetch_add(1, Ordering::SeqCst);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                gate.acquire().await.unwrap().forget();
                let text = answer.lock().unwrap().clone();
                // The client hangs up on what is too large.
                let _sent = socket.write_all(text.as_bytes()).await;
            }
        });
        server
    }

    fn answers(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A verifier by the server's keys alone.
struct Setup {
    verifier: TokenVerifier,
    tasks: Tasks,
    metrics: Metrics,
}

impl Setup {
    fn new(server: &Server, schedule: Schedule) -> Self {
        let tasks = Tasks::new();
        let metrics = metrics(&tasks);
        let jwks = Jwks::start(&server.url, schedule, &tasks, &metrics).unwrap();
        Self { verifier: TokenVerifier::new(Vec::new(), Some(jwks), Expected::default()), tasks, metrics }
    }

    async fn verify(&self, token: &str) -> Result<Pass, Refusal> {
        self.verifier.verify(token, Timestamp::now()).await
    }

    fn count(&self, outcome: &'static str) -> u64 {
        self.metrics.jwks_fetches.get_or_create(&OutcomeLabel { outcome }).get()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// A fetch may begin at any time.
const EAGER: Schedule =
    Schedule { refresh: HOUR, throttle: Duration::ZERO, timeout: Duration::from_secs(20), max_age: HOUR };

#[tokio::test]
async fn keys_rotate() {
    let (old, new) = (Signer::ec(), Signer::ed());
    let server = Server::start(set(&[old.jwk("old")])).await;
    let setup = Setup::new(&server, EAGER);
    let (by_old, by_new) = (old.token_of("old"), new.token_of("new"));
    assert!(setup.verify(&by_old).await.is_ok());
    assert_eq!(server.requests(), 1, "the first fetch is waited for");
    server.answers(set(&[old.jwk("old"), new.jwk("new")]));
    assert!(setup.verify(&by_new).await.is_ok());
    assert!(setup.verify(&by_old).await.is_ok());
    server.answers(set(&[new.jwk("new")]));
    assert_eq!(setup.verify(&old.token_of("other")).await, Err(Refusal::UnknownKey));
    assert_eq!(
        setup.verify(&by_old).await,
        Err(Refusal::UnknownKey),
        "a withdrawn key leaves, also what it verified"
    );
    assert!(setup.verify(&by_new).await.is_ok());
    assert!(setup.metrics.text().contains("jobcast_jwks_fetches_total{outcome=\"ok\"}"));
    assert!(setup.metrics.jwks_fetched_at.get() > 0);
}

#[tokio::test]
async fn keys_are_fetched_again_by_themselves() {
    let (old, new) = (Signer::ec(), Signer::ec());
    let server = Server::start(set(&[old.jwk("a")])).await;
    let setup = Setup::new(&server, Schedule { refresh: Duration::from_millis(1), throttle: HOUR, ..EAGER });
    assert!(setup.verify(&old.token_of("a")).await.is_ok());
    server.answers(set(&[new.jwk("a")]));
    while setup.verify(&new.token_of("a")).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(setup.verify(&old.token_of("a")).await, Err(Refusal::Signature));
}

#[tokio::test]
async fn unknown_keys_are_throttled_and_share_a_fetch() {
    let key = Signer::ec();
    let server = Server::start(set(&[key.jwk("a"), Signer::ec().jwk("b")])).await;
    let setup = Setup::new(&server, Schedule { throttle: HOUR, ..EAGER });
    let unknown: Vec<_> = (0..50).map(|number| key.token_of(&format!("unknown-{number}"))).collect();
    let checks = futures_util::future::join_all(unknown.iter().map(|token| setup.verify(token))).await;
    assert!(checks.iter().all(|check| *check == Err(Refusal::UnknownKey)));
    for token in &unknown {
        assert_eq!(setup.verify(token).await, Err(Refusal::UnknownKey));
    }
    assert_eq!(server.requests(), 1);
    assert_eq!(
        setup.verify(&key.token(&crate::auth::tests::good())).await,
        Err(Refusal::UnknownKey),
        "no kid"
    );
}

#[tokio::test]
async fn an_outage_keeps_the_keys() {
    let key = Signer::ec();
    let server = Server::start(set(&[key.jwk("a")])).await;
    let setup = Setup::new(&server, EAGER);
    let token = key.token_of("a");
    assert!(setup.verify(&token).await.is_ok());
    let redirect = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for (count, answer) in [
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        redirect.to_owned(),
        String::new(),
        ok("not JSON"),
        ok("[]"),
        ok(&format!("{}{{\"keys\": []}}", " ".repeat(MAX_SIZE))),
    ]
    .into_iter()
    .enumerate()
    {
        server.answers(answer);
        assert_eq!(setup.verify(&key.token_of("other")).await, Err(Refusal::UnknownKey));
        assert_eq!(setup.count("failed"), count as u64 + 1);
        assert_eq!(server.requests(), count + 2, "a redirect is not followed");
        assert!(setup.verify(&token).await.is_ok());
    }
}

#[tokio::test]
async fn keys_do_not_outlive_their_age() {
    let key = Signer::ec();
    let server = Server::start(set(&[key.jwk("a")])).await;
    let setup = Setup::new(&server, Schedule { max_age: Duration::ZERO, ..EAGER });
    assert!(setup.verify(&key.token_of("a")).await.is_ok());
    server.answers(String::new());
    assert_eq!(setup.verify(&key.token_of("b")).await, Err(Refusal::NoKeys));
    assert_eq!(setup.verify(&key.token_of("a")).await, Err(Refusal::NoKeys));
    server.answers(set(&[key.jwk("a")]));
    assert!(setup.verify(&key.token_of("a")).await.is_ok());
}

#[tokio::test]
async fn a_server_that_says_nothing_stops_neither_the_start_nor_others() {
    let key = Signer::ec();
    let server = Server::start(set(&[key.jwk("a")])).await;
    server.gate.forget_permits(1000);
    let setup = Setup::new(&server, Schedule { timeout: Duration::from_millis(20), ..EAGER });
    let token = key.token_of("a");
    assert_eq!(setup.verify(&token).await, Err(Refusal::NoKeys));
    server.gate.add_permits(1000);
    while setup.verify(&token).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_bad_key_spoils_no_other() {
    let (rsa, ec, ed) = (Signer::rsa(), Signer::ec(), Signer::ed());
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let keys = [
        json!("text"),
        json!({"kty": "RSA", "kid": "bad", "n": "!", "e": "AQAB"}),
        json!({"kty": "oct", "kid": "oct", "k": "YSBzZWNyZXQgb2YgSFMyNTYgd2l0aCAzMiBieXRlcyE", "alg": "HS256"}),
        json!({"kty": "new", "kid": "new"}),
        with(ec.jwk("enc"), "use", json!("enc")),
        with(ec.jwk("es384"), "alg", json!("ES384")),
        with(ec.jwk("signs"), "key_ops", json!(["sign"])),
        with(rsa.jwk("rsa"), "alg", json!("RS256")),
        with(ec.jwk("ec"), "use", json!("sig")),
        with(ed.jwk("ed"), "key_ops", json!(["verify"])),
    ];
    let server = Server::start(set(&keys)).await;
    let setup = Setup::new(&server, Schedule { throttle: HOUR, ..EAGER });
    for (signer, kid) in [(&rsa, "rsa"), (&ec, "ec"), (&ed, "ed")] {
        assert!(setup.verify(&signer.token_of(kid)).await.is_ok(), "{kid}");
    }
    for kid in ["enc", "es384", "signs", "bad", "new"] {
        assert_eq!(setup.verify(&ec.token_of(kid)).await, Err(Refusal::UnknownKey), "{kid}");
    }
    let symmetric = Signer::secret("a secret of HS256 with 32 bytes!");
    assert!(matches!(setup.verify(&symmetric.token_of("oct")).await, Err(Refusal::Algorithm(_))));
    assert!(
        matches!(setup.verify(&rsa.token_of("ec")).await, Err(Refusal::Algorithm(_))),
        "its own algorithm"
    );
}

#[tokio::test]
async fn an_address_is_safe_and_its_query_is_not_told() {
    for good in
        ["https://id.example/keys", "http://127.0.0.1:1/a", "http://[::1]/", "http://localhost:8080/a?b=c"]
    {
        assert!(good.parse::<JwksUrl>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "keys",
        "http://id.example/keys",
        "ftp://localhost/",
        "https://user:password@id.example/",
        "http://localhost.example/",
    ] {
        assert!(bad.parse::<JwksUrl>().is_err(), "{bad}");
    }
    let url: JwksUrl = "http://127.0.0.1:1/?secret=1".parse().unwrap();
    let error = fetch(&Client::new(), &url.0).await.err().unwrap();
    assert!(error.to_string().contains("refused") && !error.to_string().contains("secret"), "{error}");
}
