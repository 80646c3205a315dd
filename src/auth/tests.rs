//! Tests of tokens with real keys: what is good, and every way of being refused.

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{claims::Expected, keys::VerificationKey, token::Refusal, *};
use crate::budget::Budget;

/// Signs a message.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A key pair that signs tokens.
pub struct Signer {
    pub algorithm: &'static str,
    /// The public key as a JWK, without `kid`.
    pub jwk: Value,
    /// The public key as X.509 has it.
    pub spki: Vec<u8>,
    sign: Sign,
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Signer {
    pub fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        Self {
            algorithm: "RS256",
            jwk: json!({"kty": "RSA", "n": base64(n), "e": base64(e)}),
            spki: pair.public_key().as_der().unwrap().as_ref().to_vec(),
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }),
        }
    }

    pub fn ec() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        Self {
            algorithm: "ES256",
            jwk: json!({"kty": "EC", "crv": "P-256", "x": base64(&point[1..33]), "y": base64(&point[33..])}),
            spki: pair.public_key().as_der().unwrap().as_ref().to_vec(),
            sign: Box::new(move |message| {
                pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }),
        }
    }

    pub fn ed() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self {
            algorithm: "EdDSA",
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key())}),
            spki: pair.public_key().as_der().unwrap().as_ref().to_vec(),
            sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
        }
    }

    pub fn secret(secret: impl AsRef<[u8]>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
        let sign = Box::new(move |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec());
        Self { algorithm: "HS256", jwk: json!({}), spki: Vec::new(), sign }
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = json!(kid);
        jwk
    }

    pub fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&self.spki))
    }

    /// A token with that header and those claims.
    pub fn raw(&self, header: &Value, claims: &[u8]) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims));
        let signature = base64((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }

    pub fn token(&self, claims: &Value) -> String {
        self.raw(&json!({"alg": self.algorithm, "typ": "JWT"}), claims.to_string().as_bytes())
    }

    pub fn token_of(&self, kid: &str) -> String {
        let header = json!({"alg": self.algorithm, "kid": kid});
        self.raw(&header, good().to_string().as_bytes())
    }
}

const SECRET: &str = "a secret of HS256 with 32 bytes!";

static RSA: LazyLock<Signer> = LazyLock::new(Signer::rsa);
static EC: LazyLock<Signer> = LazyLock::new(Signer::ec);
static ED: LazyLock<Signer> = LazyLock::new(Signer::ed);
static HS: LazyLock<Signer> = LazyLock::new(|| Signer::secret(SECRET));

/// Claims that hold now.
pub fn good() -> Value {
    json!({"sub": "ada", "exp": Timestamp::now().millis() / 1000 + 600})
}

pub fn metrics(tasks: &Tasks) -> Metrics {
    Metrics::new(tasks, &Budget::new(1 << 20))
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text).unwrap())
}

async fn open(options: TokenOptions) -> Authenticator {
    let options = AuthOptions { mode: AuthMode::Jwt(options), ..AuthOptions::default() };
    let tasks = Tasks::new();
    Authenticator::open(&options, &tasks, &metrics(&tasks)).await.unwrap()
}

async fn by_secret() -> Authenticator {
    open(TokenOptions { secret: secret(SECRET), ..TokenOptions::default() }).await
}

async fn by_key_file(text: &str) -> Result<Authenticator, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    std::fs::write(&path, text).unwrap();
    let mode = AuthMode::Jwt(TokenOptions { public_key_file: Some(path), ..TokenOptions::default() });
    let tasks = Tasks::new();
    let options = AuthOptions { mode, ..AuthOptions::default() };
    Authenticator::open(&options, &tasks, &metrics(&tasks)).await.map_err(|error| error.to_string())
}

async fn refused(authenticator: &Authenticator, token: &str) -> String {
    let error = authenticator.check(token).await.expect_err(token);
    assert_eq!(error.code, ErrorCode::Unauthorized);
    error.message
}

#[tokio::test]
async fn nobody_is_asked_by_default() {
    let authenticator = Authenticator::default();
    assert!(authenticator.is_open());
    assert_eq!(authenticator.check("anything").await.unwrap().identity, Identity::Everybody);
    assert_eq!(authenticator.check_key("anything").unwrap().identity, Identity::Everybody);
}

#[tokio::test]
async fn a_token_by_each_kind_of_key_is_good_by_that_key_alone() {
    let signers: [&Signer; 3] = [&RSA, &EC, &ED];
    for signer in signers {
        let authenticator = by_key_file(&signer.pem()).await.unwrap();
        let pass = authenticator.check(&signer.token(&good())).await.unwrap();
        assert_eq!(pass.identity.user().map(|user| user.as_str()), Some("ada"));
        for other in signers.into_iter().filter(|other| other.algorithm != signer.algorithm) {
            let problem = refused(&authenticator, &other.token(&good())).await;
            assert!(problem.contains("for which this gateway has no key"), "{problem}");
        }
        let stranger = match signer.algorithm {
            "RS256" => Signer::rsa(),
            "ES256" => Signer::ec(),
            _ => Signer::ed(),
        };
        let problem = refused(&authenticator, &stranger.token(&good())).await;
        assert_eq!(problem, "the token's signature is not good");
    }
}

/// The text of a public key is no secret, and the header of a token does not choose the algorithm.
#[tokio::test]
async fn a_public_key_is_never_a_secret() {
    for signer in [&RSA, &EC, &ED] {
        let authenticator = by_key_file(&signer.pem()).await.unwrap();
        for secret in [signer.spki.clone(), signer.pem().into_bytes(), signer.pem().trim().into()] {
            let problem = refused(&authenticator, &Signer::secret(secret).token(&good())).await;
            assert!(problem.contains("HS256, for which this gateway has no key"), "{problem}");
        }
        let lie = signer.raw(&json!({"alg": "HS256"}), good().to_string().as_bytes());
        refused(&authenticator, &lie).await;
    }
}

#[tokio::test]
async fn headers_that_are_not_understood_are_refused() {
    let authenticator = by_secret().await;
    let claims = good().to_string();
    let raw = |header: Value| HS.raw(&header, claims.as_bytes());
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "None"}),
        json!({}),
        json!({"alg": "HS512"}),
        json!({"alg": "PS256"}),
        json!({"alg": "HS256", "crit": ["exp"]}),
        json!({"alg": "HS256", "crit": []}),
        json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
        json!({"alg": "HS256", "b64": false}),
        json!(["HS256"]),
    ] {
        refused(&authenticator, &raw(header)).await;
    }
    assert!(authenticator.check(&raw(json!({"alg": "HS256", "kid": "any", "typ": "at+jwt"}))).await.is_ok());
    let token = HS.token(&good());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let unsigned = format!("{}.{}", base64(r#"{"alg":"none"}"#), base64(&claims));
    for wrong in [
        format!("{unsigned}."),
        format!("{message}."),
        message.to_owned(),
        format!("{token}."),
        format!("{token}.a.b"),
        format!("{message}.{signature}="),
        format!(" {token}"),
        "..".to_owned(),
        ".".to_owned(),
    ] {
        refused(&authenticator, &wrong).await;
    }
}

#[tokio::test]
async fn claims_must_be_an_object_that_names_each_once() {
    let authenticator = by_secret().await;
    for claims in [
        "",
        "null",
        "[]",
        "{",
        "\"text\"",
        r#"{"exp":9e9,"exp":9e9}"#,
        r#"{"exp":9e9,"jobs":[],"jobs":["*"]}"#,
    ] {
        let problem = refused(&authenticator, &HS.raw(&json!({"alg": "HS256"}), claims.as_bytes())).await;
        assert!(
            problem.contains("must be a JSON object") || problem.contains("exp is missing"),
            "{claims}: {problem}"
        );
    }
    let problem = refused(&authenticator, &HS.token(&json!({"sub": "ada"}))).await;
    assert_eq!(problem, "the token is not good: exp is missing");
    let problem = refused(&authenticator, &HS.token(&json!({"sub": "a b", "exp": 9e9}))).await;
    assert!(problem.contains("sub: may only contain"), "{problem}");
}

#[tokio::test]
async fn a_token_has_a_largest_size() {
    let authenticator = by_secret().await;
    let token = |padding: usize| HS.token(&json!({"exp": 9e9, "padding": "x".repeat(padding)}));
    assert!(authenticator.check(&token(5_900)).await.is_ok());
    let problem = refused(&authenticator, &token(6_200)).await;
    assert!(problem.contains("at most 8192 bytes"), "{problem}");
}

#[tokio::test]
async fn the_previous_secret_is_good_until_it_is_gone() {
    let previous = Signer::secret("another secret of HS256, 32 bytes");
    let options = TokenOptions {
        secret: secret(SECRET),
        previous_secret: secret("another secret of HS256, 32 bytes"),
        ..TokenOptions::default()
    };
    let authenticator = open(options).await;
    assert!(authenticator.check(&HS.token(&good())).await.is_ok());
    assert!(authenticator.check(&previous.token(&good())).await.is_ok());
    refused(&by_secret().await, &previous.token(&good())).await;
    let minted = authenticator.mint(&TokenGrant::default(), Duration::from_secs(60)).unwrap();
    assert!(by_secret().await.check(&minted.token).await.is_ok(), "tokens are made by the first");
}

#[tokio::test]
async fn a_verified_token_still_expires() {
    let verifier = TokenVerifier::new(
        vec![VerificationKey::from_secret(&Secret::new(SECRET).unwrap()).unwrap()],
        None,
        Expected::default(),
    );
    let now = Timestamp::now();
    let end = now.after(Duration::from_secs(60));
    let token = HS.token(&json!({"exp": end.millis() as f64 / 1000.0}));
    for _ in 0..2 {
        assert!(verifier.verify(&token, now).await.is_ok());
        assert!(verifier.verify(&token, end.after(Duration::from_millis(999))).await.is_ok());
        let late = verifier.verify(&token, end.after(Duration::from_millis(1000))).await;
        assert!(matches!(late, Err(Refusal::Claim(_))), "{late:?}");
    }
}

#[tokio::test]
async fn a_minted_token_grants_what_was_asked_for() {
    let options = TokenOptions {
        secret: secret(SECRET),
        issuer: Some("us".to_owned()),
        audience: vec!["jobs".to_owned(), "events".to_owned()],
        ..TokenOptions::default()
    };
    let authenticator = open(options).await;
    let patterns = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect();
    let grant = TokenGrant {
        user: Some("ada".parse().unwrap()),
        tenant: Some("acme".parse().unwrap()),
        jobs: patterns(&["a-*", "b"]),
        documents: patterns(&["d"]),
        is_admin: true,
        publishes: true,
    };
    let minted = authenticator.mint(&grant, Duration::from_millis(1500)).unwrap();
    let pass = authenticator.check(&minted.token).await.unwrap();
    assert_eq!(pass.identity, Identity::Token(grant.into()));
    assert_eq!(pass.expires_at, Some(minted.expires_at));
    assert_eq!(minted.expires_at.before(Duration::from_millis(1500)), pass.issued_at.unwrap());
    assert_eq!(pass.token_id.unwrap().len(), 22);
    assert!(!format!("{minted:?}").contains(&minted.token));

    let many = TokenGrant {
        jobs: (0..100).map(|_| "x".repeat(100).parse().unwrap()).collect(),
        ..TokenGrant::default()
    };
    let error = authenticator.mint(&many, Duration::from_secs(1)).unwrap_err();
    assert!(error.code == ErrorCode::InvalidPayload && error.message.contains("at most 8192"), "{error}");
    let error = open(TokenOptions::default()).await.mint(&many, Duration::from_secs(1)).unwrap_err();
    assert!(error.code == ErrorCode::Forbidden && error.message.contains("auth.secret"), "{error}");
}

#[tokio::test]
async fn a_key_file_must_have_a_key_of_use() {
    for (text, problem) in [
        ("", "must be a PEM file with a public key or a certificate"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "must have a key of RSA"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "must be a PEM file"),
    ] {
        let error = by_key_file(text).await.unwrap_err();
        assert!(error.contains("key.pem (auth.public_key_file): ") && error.contains(problem), "{error}");
    }
    let missing = check_key_file("/nowhere.pem".as_ref()).unwrap_err().to_string();
    assert!(missing.contains("cannot be read"), "{missing}");
}

#[tokio::test]
async fn the_key_of_a_certificate_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let run =
            std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(&folder).output();
        let output = run.unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout k.pem -out c.pem -subj /CN=a -days 1",
    );
    std::fs::write(folder.path().join("p.pem"), openssl("x509 -in c.pem -pubkey -noout")).unwrap();
    let [certificate, public] =
        ["c.pem", "p.pem"].map(|name| VerificationKey::read(&folder.path().join(name)).unwrap());
    assert_eq!(certificate.algorithm, jsonwebtoken::Algorithm::ES256);
    assert_eq!(certificate.key.try_get_as_bytes().unwrap(), public.key.try_get_as_bytes().unwrap());
}

#[tokio::test]
async fn options_and_keys_show_no_secret() {
    let authenticator = by_secret().await;
    let options = AuthOptions {
        mode: AuthMode::Jwt(TokenOptions { secret: secret(SECRET), ..TokenOptions::default() }),
        ..AuthOptions::default()
    };
    for shown in [format!("{options:?}"), format!("{authenticator:?}")] {
        assert!(!shown.contains(SECRET) && !shown.contains("[97, 32"), "{shown}");
    }
    assert_eq!(Secret::new("").unwrap_err(), Secret::new("").unwrap_err());
    assert!(Secret::new(&"x".repeat(31)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_break_it(text in ".*", header in ".*", claims in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let authenticator = by_secret().await;
            let _ = authenticator.check(&text).await;
            let _ = authenticator.check(&format!("{text}.{header}.{text}")).await;
            let signed = HS.raw(&json!({"alg": "HS256", "kid": header}), &claims);
            prop_assert!(authenticator.check(&signed).await.is_err());
            let value: Value = serde_json::from_slice(&claims).unwrap_or(json!(text));
            for name in ["exp", "nbf", "iat", "sub", "jobs", "scope", "aud", "iss", "jti"] {
                let _ = authenticator.check(&HS.token(&json!({"exp": 9e9, name: value}))).await;
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_jwks_breaks_it(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = keys::KeySet::parse(&bytes);
        let set = json!({"keys": [{"kty": "RSA", "n": text, "e": text}, {"kty": "EC", "crv": "P-256", "x": text, "y": ""},
            {"kty": text}, text, RSA.jwk("a")]});
        let keys = keys::KeySet::parse(set.to_string().as_bytes()).unwrap();
        prop_assert!(keys.knows(Some("a")));
    }
}
