//! Tokens, the keys of a JWKS, and where a request has its credential.

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use jobcast::{
    ApiError, Authenticator, ErrorCode, Identity, Pass, Secret,
    internals::auth::{Credential, KeySet, by_secret, credential_of, has_signed},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{assert_short, text};

/// The secret by which the corpus is signed.
const SECRET: &str = "a secret of HS256 with 32 bytes!";

/// The longest token that is read.
const MAX_TOKEN: usize = 8 * 1024;

static BY_SECRET: LazyLock<Authenticator> =
    LazyLock::new(|| by_secret(&Secret::new(SECRET).expect("it is long enough")));

/// The check, twice: a token that was verified is remembered.
fn check(token: &str) -> Result<Pass, ApiError> {
    let once = || BY_SECRET.check(token).now_or_never().expect("a secret alone waits for nothing");
    let first = once();
    assert_eq!(first, once(), "{token}");
    if let Err(error) = &first {
        assert_eq!(error.code, ErrorCode::Unauthorized);
        assert_short(error);
    }
    first
}

/// HMAC with SHA-256 (RFC 2104), by other code than that of the gateway.
fn hmac(secret: &[u8], message: &str) -> [u8; 32] {
    let digest = Sha256::digest(secret);
    let secret = if secret.len() > 64 { digest.as_slice() } else { secret };
    let mut key = [0; 64];
    key[..secret.len()].copy_from_slice(secret);
    let with = |pad: u8| Sha256::new().chain_update(key.map(|byte| byte ^ pad));
    let inner = with(0x36).chain_update(message).finalize();
    with(0x5c).chain_update(inner).finalize().into()
}

fn signed(secret: &[u8], message: &str) -> String {
    format!("{message}.{}", BASE64URL_NOPAD.encode(&hmac(secret, message)))
}

fn object(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("the parts of a good token are JSON")
}

/// What a good token says is what it grants: its header asks for HS256 alone, and it has an end.
fn assert_granted(header: &Value, claims: &Value, pass: &Pass) {
    assert_eq!(header["alg"], "HS256");
    // Of the extensions this one is known, and only as what holds without it (RFC 7797).
    let is_known = header["crit"].is_null() || header["crit"] == json!(["b64"]);
    assert!(is_known && header.get("b64").is_none_or(|is_encoded| *is_encoded == true), "{header}");
    assert!(claims["exp"].is_number() && pass.expires_at.is_some(), "{claims}");
    assert_eq!(pass.token_id.as_deref(), claims["jti"].as_str());
    let Identity::Token(grant) = &pass.identity else { panic!("{pass:?}") };
    assert_eq!(grant.user.as_ref().map(|user| user.as_str()), claims["sub"].as_str());
    assert_eq!(grant.tenant.as_ref().map(|tenant| tenant.as_str()), claims["tenantId"].as_str());
    let scopes: Vec<_> = match &claims["scope"] {
        Value::Array(scopes) => scopes.iter().filter_map(Value::as_str).collect(),
        scopes => scopes.as_str().unwrap_or_default().split(' ').collect(),
    };
    assert_eq!(grant.is_admin, scopes.contains(&"jobs:admin"));
    assert_eq!(grant.publishes, scopes.contains(&"jobs:publish"));
    assert_eq!(grant.jobs.iter().count(), claims["jobs"].as_array().map_or(0, Vec::len));
}

/// A token is good only if it is signed by the secret, and grants what it says.
pub fn tokens(bytes: &[u8]) {
    // Without a point it would be an API key.
    let Some(token) = text(bytes).filter(|token| token.contains('.')) else { return };
    let pass = match check(token) {
        Ok(pass) => pass,
        Err(error) => {
            let signature = token.rsplit('.').next().unwrap_or_default();
            assert!(signature.len() < 20 || !error.message.contains(signature), "{error}");
            return;
        }
    };
    assert!(token.len() <= MAX_TOKEN);
    let (message, signature) = token.rsplit_once('.').expect("it has a point");
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).expect("a part is base64url");
    assert_eq!(decode(signature), hmac(SECRET.as_bytes(), message), "{token}");
    let (header, claims) = message.split_once('.').expect("it has three parts");
    assert_granted(&object(&decode(header)), &object(&decode(claims)), &pass);
}

/// The same of a header and claims that are signed here: a line of each.
pub fn claims(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (header, claims) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let message = [header, claims].map(|part| BASE64URL_NOPAD.encode(part)).join(".");
    if let Ok(pass) = check(&signed(SECRET.as_bytes(), &message)) {
        assert_granted(&object(header), &object(claims), &pass);
    }
    assert!(check(&signed(b"another secret of HS256, as long", &message)).is_err(), "{message}");
}

/// The `x` of a good key, and a token by it.
const GOOD_KEY: &str = "_T0zFHihpHkvJAffBvbX54uJEmyzbCpdbsdxTJ7p7EY";
const TOKEN: &str = concat!(
    "eyJhbGciOiAiRWREU0EiLCAia2lkIjogImdvb2Qga2V5In0",
    ".eyJleHAiOiA0MDAwMDAwMDAwfQ",
    ".W3adYb1IJTiNinqsNAqsSlR0tRqBEyWLTiecd1QkdIURATXXAgUE99VQjoHQrcbUsE5ojOhosWnIbHLPdGgKAw"
);

/// A bad key spoils no good one, and a key that nobody is to keep secret signs nothing.
pub fn key_sets(bytes: &[u8]) {
    let named = Some("good key");
    let Ok(keys) = KeySet::parse(bytes) else { return };
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return };
    let others = document["keys"].as_array().expect("a JWKS has an array of keys");
    assert_eq!(keys.count() + keys.ignored, others.len());
    for key in others {
        let kid = key["kid"].as_str();
        assert!(!has_signed(&keys, kid, &by_secret_of(key)), "a symmetric key is taken: {key}");
        // Whatever the key is like, to ask it does no harm.
        has_signed(&keys, kid, TOKEN);
    }
    let good = json!({"kty": "OKP", "crv": "Ed25519", "kid": "good key", "x": GOOD_KEY});
    let before = std::iter::once(&good).chain(others).collect::<Vec<_>>();
    let after = others.iter().chain([&good]).collect::<Vec<_>>();
    for all in [before, after] {
        let keys = KeySet::parse(json!({ "keys": all }).to_string().as_bytes()).expect("it is a JWKS");
        assert!(has_signed(&keys, named, TOKEN), "{document}");
    }
}

/// A token of HS256 by a symmetric key.
fn by_secret_of(key: &Value) -> String {
    let message = [json!({"alg": "HS256", "kid": key["kid"]}), json!({"exp": 4_000_000_000_u32})]
        .map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes()))
        .join(".");
    let secret = BASE64URL_NOPAD.decode(key["k"].as_str().unwrap_or_default().as_bytes()).unwrap_or_default();
    signed(&secret, &message)
}

/// A query, and then a header in each line: a request has one credential at the most, and that is not shown.
pub fn credentials(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let query = text(lines.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let of = |name: &str| headers.get_all(name).iter().count();
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let count = of("authorization") + of("x-api-key") + pairs.filter(|(name, _)| name == "token").count();
    let found = credential_of(&headers, query);
    let shown = format!("{found:?}");
    match found {
        Ok(None) => assert_eq!(count, 0),
        Ok(Some(Credential::Any(_))) => assert_eq!((count, shown.as_str()), (1, "Ok(Some(Any(..)))")),
        Ok(Some(Credential::ApiKey(_))) => assert_eq!((count, shown.as_str()), (1, "Ok(Some(ApiKey(..)))")),
        Err(error) => {
            assert_eq!(error.code, ErrorCode::Unauthorized);
            assert!(count > 0);
            let values = headers.values().filter(|value| value.len() > 24);
            let mut texts = values.filter_map(|value| value.to_str().ok());
            assert!(!texts.any(|value| shown.contains(value)), "{shown}");
        }
    }
}
