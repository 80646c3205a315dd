//! Tokens and keys: what the gateway is configured with where it asks for them, and what everybody shows then.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::ledger::OF_OTHERS;

/// Good for these runs alone.
const SECRET: &str = "a secret of the runs of this test";
const PUBLISHERS_KEY: &str = "jc_key-of-honest-publishers";
const EVES_KEY: &str = "jc_key-of-eve";

/// The user and the tenant of the one who attacks, whose jobs are those `OF_OTHERS`.
pub const EVE: &str = "eve";
pub const EVES_TENANT: &str = "t";

/// For how long tokens are good.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Who attacks, and with it whether the gateway asks who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attackers {
    /// Anybody: nobody is asked.
    Anybody,
    /// One user with a token that may watch her own.
    Token,
    /// One publisher with a key for some jobs of one tenant.
    Key,
}

impl Attackers {
    /// Whether the gateway asks who somebody is.
    pub fn are_known(self) -> bool {
        self != Attackers::Anybody
    }

    /// How the gateway is configured for it.
    pub fn variables(self) -> Vec<(&'static str, String)> {
        if !self.are_known() {
            return Vec::new();
        }
        let digest = |key: &str| HEXLOWER.encode(&Sha256::digest(key));
        let keys = json!([
            {"name": "publishers", "sha256": digest(PUBLISHERS_KEY)},
            {"name": "eve", "sha256": digest(EVES_KEY), "jobs": [format!("{OF_OTHERS}*")], "tenants": [EVES_TENANT]},
        ]);
        vec![
            ("JOBCAST_AUTH__MODE", "jwt".to_owned()),
            ("JOBCAST_AUTH__SECRET", SECRET.to_owned()),
            ("JOBCAST_AUTH__API_KEYS", keys.to_string()),
        ]
    }

    /// What the attackers show.
    pub fn credential(self) -> Option<String> {
        match self {
            Attackers::Anybody => None,
            Attackers::Token => Some(token(&claims_of_eve())),
            Attackers::Key => Some(EVES_KEY.to_owned()),
        }
    }

    /// What honest publishers show.
    pub fn publishers_key(self) -> Option<&'static str> {
        self.are_known().then_some(PUBLISHERS_KEY)
    }

    /// A token of somebody else with these claims.
    pub fn token_of(self, claims: &Value) -> Option<String> {
        self.are_known().then(|| token(claims))
    }
}

/// What her token says of her.
pub fn claims_of_eve() -> Value {
    json!({"sub": EVE, "tenantId": EVES_TENANT})
}

/// The header that shows a credential, as a line; nothing without one.
pub fn header(credential: Option<&str>) -> String {
    let mut line = String::new();
    if let Some(credential) = credential {
        // A text takes everything.
        let _ = write!(line, "Authorization: Bearer {credential}\r\n");
    }
    line
}

/// A token with these claims that is good from now on.
pub fn token(claims: &Value) -> String {
    let now = now();
    let mut all = json!({"iat": now, "exp": now + LIFETIME.as_secs_f64()});
    let claims = claims.as_object().into_iter().flatten();
    claims.for_each(|(name, value)| all[name] = value.clone());
    signed(&json!({"alg": "HS256", "typ": "JWT"}), &all, SECRET)
}

/// A token that is not good, in one of several ways.
pub fn bad_token(random: &mut fastrand::Rng) -> String {
    let (good, kid) = (json!({"sub": EVE, "exp": now() + 60.0}), format!("{:x}", random.u64(..)));
    let hs256 = json!({"alg": "HS256"});
    match random.u8(0..6) {
        0 => signed(&json!({"alg": "RS256", "kid": kid}), &good, SECRET),
        1 => signed(&hs256, &json!({"sub": EVE, "exp": now() - 60.0, "jti": kid}), SECRET),
        2 => signed(&hs256, &good, &kid),
        3 => signed(&hs256, &json!({"sub": EVE, "jti": kid}), SECRET),
        4 => (0..8000).map(|_| random.alphanumeric()).collect::<String>() + ".e.f",
        _ => format!("jc_{kid}"),
    }
}

fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let message = [header, claims].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes())).join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(hmac::sign(&key, message.as_bytes()).as_ref()))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
