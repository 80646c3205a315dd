//! What publishers and watchers show to a server that asks who they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};

use crate::names::Names;
use crate::room::Room;

/// Good for these runs alone.
const KEY: &str = "jc_key-of-the-load-generator";
const SECRET: &str = "the secret of the load generator";

/// How long a token is good, in seconds.
const LIFETIME: u64 = 3600;

/// What is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: nobody is asked.
    #[default]
    None,
    /// An API key, by publishers and watchers.
    Key,
    /// Tokens of HS256: one with `jobs:publish` by publishers, and a new one for each connection by watchers.
    Token,
}

impl Credential {
    /// How Jobcast is configured to ask for it. Jobs without an owner are for everybody, but who a job's owner is has
    /// to be looked up.
    pub fn variables(self) -> Vec<(&'static str, String)> {
        if self == Credential::None {
            return Vec::new();
        }
        let sha256 = HEXLOWER.encode(digest::digest(&digest::SHA256, KEY.as_bytes()).as_ref());
        vec![
            ("JOBCAST_AUTH__MODE", "jwt".to_owned()),
            ("JOBCAST_AUTH__SECRET", SECRET.to_owned()),
            ("JOBCAST_AUTH__API_KEYS", json!([{"name": "load", "sha256": sha256}]).to_string()),
            ("JOBCAST_AUTH__OWNERLESS_JOBS", "allow".to_owned()),
        ]
    }

    /// The header of a publisher, as a line; nothing where nobody is asked.
    pub fn header(self) -> String {
        let shown = match self {
            Credential::None => return String::new(),
            Credential::Key => KEY.to_owned(),
            Credential::Token => token(json!({"scope": "jobs:publish"})),
        };
        format!("Authorization: Bearer {shown}\r\n")
    }

    /// What the watcher of a room joins the namespace with.
    pub fn join(self, room: Room, names: &Names) -> String {
        let shown = match (self, room) {
            (Credential::None, _) => return "40/jobs,{}".to_owned(),
            (Credential::Key, _) => KEY.to_owned(),
            (Credential::Token, Room::Job(_)) => token(json!({"sub": "watcher"})),
            (Credential::Token, Room::User(user)) => token(json!({"sub": names.user(user)})),
            (Credential::Token, Room::All) => token(json!({"scope": "jobs:admin"})),
        };
        format!("40/jobs,{}", json!({ "token": shown }))
    }
}

/// A token with these claims that no server has seen before.
fn token(mut claims: Value) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    claims["iat"] = now.into();
    claims["exp"] = (now + LIFETIME).into();
    claims["jti"] = COUNT.fetch_add(1, Ordering::Relaxed).to_string().into();
    let parts = [json!({"alg": "HS256", "typ": "JWT"}), claims];
    let message = parts.map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes())).join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(hmac::sign(&key, message.as_bytes()).as_ref()))
}
