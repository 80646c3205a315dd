//! The configuration of authentication: `[auth]`.

use std::{fmt::Display, path::PathBuf, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE;

use super::{parse, settings::Settings, value::Value};
use crate::{
    access::{OwnerlessJobs, Pattern},
    auth::{self, ApiKeyOptions, AuthMode, AuthOptions, JwksUrl, Secret, TokenOptions},
    id::{JobId, TenantId},
    timestamp::Timestamp,
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    None,
    Jwt,
}

/// Keys that are of use where somebody is asked.
const CREDENTIALS: [&str; 5] =
    ["auth.api_keys", "auth.secret", "auth.previous_secret", "auth.public_key_file", "auth.jwks_url"];

/// Reads the section, but for `auth.allow_anonymous`.
pub fn read(settings: &mut Settings) -> (AuthOptions, OwnerlessJobs) {
    let modes = parse::choice(&[("none", Mode::None), ("jwt", Mode::Jwt)]);
    let mode = settings.get("auth.mode", modes, Mode::None);
    let ownerless = parse::choice(&[("deny", OwnerlessJobs::Deny), ("allow", OwnerlessJobs::Allow)]);
    let tokens = TokenOptions {
        secret: settings.get("auth.secret", secret, None),
        previous_secret: settings.get("auth.previous_secret", secret, None),
        public_key_file: settings.get("auth.public_key_file", key_file, None),
        jwks_url: settings.get("auth.jwks_url", jwks_url, None),
        issuer: settings.get("auth.issuer", |value| issuer(value).map(Some), None),
        audience: settings.get("auth.audience", audience, Vec::new()),
    };
    let api_keys = settings.get("auth.api_keys", api_keys, Vec::new());
    let ownerless_jobs = settings.get("auth.ownerless_jobs", ownerless, OwnerlessJobs::default());
    hold_rules(settings, mode, &tokens, &api_keys);
    let mode = match mode {
        Mode::None => AuthMode::None,
        Mode::Jwt => AuthMode::Jwt(tokens),
    };
    (AuthOptions { mode, api_keys }, ownerless_jobs)
}

fn hold_rules(settings: &mut Settings, mode: Mode, tokens: &TokenOptions, keys: &[ApiKeyOptions]) {
    let has = [
        !keys.is_empty(),
        tokens.secret.is_some(),
        tokens.previous_secret.is_some(),
        tokens.public_key_file.is_some(),
        tokens.jwks_url.is_some(),
    ];
    for (key, has) in CREDENTIALS.into_iter().zip(has) {
        settings.rule(&[key, "auth.mode"], !has || mode == Mode::Jwt, || {
            "with auth.mode = \"none\" nobody is asked for it; set auth.mode = \"jwt\"".to_owned()
        });
    }
    let mut all = vec!["auth.mode"];
    all.extend(CREDENTIALS);
    settings.rule(&all, mode == Mode::None || has.contains(&true), || {
        "\"jwt\" needs auth.secret, auth.public_key_file or auth.jwks_url, or auth.api_keys alone".to_owned()
    });
    let has_current = tokens.previous_secret.is_none() || tokens.secret.is_some();
    settings.rule(&["auth.previous_secret", "auth.secret"], has_current, || {
        "needs auth.secret, by which new tokens are made".to_owned()
    });
    let twice = keys.iter().enumerate().find_map(|(at, key)| {
        let same = |other: &&ApiKeyOptions| other.name == key.name || other.sha256 == key.sha256;
        keys[..at].iter().find(same).map(|other| (at + 1, &key.name, &other.name))
    });
    settings.rule(&["auth.api_keys"], twice.is_none(), || {
        let (at, name, other) = twice.expect("the rule does not hold");
        format!("key {at}, {name:?}, has the name or the digest of {other:?}; each needs its own")
    });
}

fn secret(value: &Value) -> Result<Option<Secret>, String> {
    let text = value.text().ok_or("text of at least 32 bytes")?;
    Secret::new(text).map(Some).map_err(|weak| format!("a good secret: it {weak}"))
}

fn key_file(value: &Value) -> Result<Option<PathBuf>, String> {
    let expected = "the path of a PEM file with a public key or a certificate";
    let path = PathBuf::from(value.text().ok_or(expected)?);
    match auth::check_key_file(&path) {
        Ok(()) => Ok(Some(path)),
        Err(problem) => Err(format!("{expected} (it {problem})")),
    }
}

fn jwks_url(value: &Value) -> Result<Option<String>, String> {
    let text = value.text().filter(|text| text.parse::<JwksUrl>().is_ok());
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        "an https:// URL, or an http:// URL on a loopback address, without user and password".to_owned()
    })
}

fn issuer(value: &Value) -> Result<String, String> {
    let text = value.text().filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| "the text of the claim iss".to_owned())
}

fn audience(value: &Value) -> Result<Vec<String>, String> {
    let names = value.texts().or_else(|| value.text().map(|name| vec![name.to_owned()]));
    let is_good = |names: &Vec<String>| !names.is_empty() && !names.contains(&String::new());
    names
        .filter(is_good)
        .ok_or_else(|| "the text of the claim aud, or an array of some of which it names one".to_owned())
}

/// An array of tables; in a variable it is JSON.
fn api_keys(value: &Value) -> Result<Vec<ApiKeyOptions>, String> {
    let keys = value.list().ok_or(
        "an array of tables with name, sha256 and, where it has bounds, jobs, tenants and expires, as \
         `jobcast api-key` prints them",
    )?;
    let numbered = keys.iter().enumerate();
    let read =
        |(at, key)| api_key(key).map_err(|problem| format!("an array of keys; of key {}, {problem}", at + 1));
    numbered.map(read).collect()
}

fn api_key(value: &Value) -> Result<ApiKeyOptions, String> {
    let Value::Table(members) = value else { return Err("which must be a table".to_owned()) };
    let known = ["name", "sha256", "jobs", "tenants", "expires"];
    if let Some((unknown, _)) = members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(format!("the member `{unknown}` is unknown; there are {}", known.join(", ")));
    }
    let member = |name: &str| members.iter().find(|(other, _)| other == name).map(|(_, value)| value);
    // A name is shown in logs and metrics, so it is written as an id is.
    let name = member("name").and_then(Value::text).ok_or("name must be text")?;
    name.parse::<JobId>().map_err(|problem| format!("name: {problem}"))?;
    let of_key = |problem: &dyn Display| format!("{name:?}, {problem}");
    let digest = member("sha256").and_then(Value::text).and_then(digest);
    let time = |value: &Value| value.time().and_then(|text| text.parse::<Timestamp>().ok());
    let expires = member("expires")
        .map(|value| time(value).ok_or("expires must be a time such as 2030-01-31T00:00:00Z"));
    Ok(ApiKeyOptions {
        name: name.to_owned(),
        sha256: digest.ok_or_else(|| {
            of_key(&"sha256 must be the SHA-256 digest of the key in 64 hexadecimal digits")
        })?,
        jobs: some::<Pattern>("jobs", member("jobs"))
            .map_err(|problem| of_key(&problem))?
            .map(FromIterator::from_iter),
        tenants: some::<TenantId>("tenants", member("tenants")).map_err(|problem| of_key(&problem))?,
        expires: expires.transpose().map_err(|problem| of_key(&problem))?,
    })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// At least one of something, where it is given: none would look like no bounds.
fn some<T: FromStr<Err: Display>>(name: &str, value: Option<&Value>) -> Result<Option<Vec<T>>, String> {
    let Some(value) = value else { return Ok(None) };
    let texts = value.texts().filter(|texts| !texts.is_empty());
    let texts = texts.ok_or_else(|| format!("{name} must be an array of texts with one at least"))?;
    let parsed = texts.iter().map(|text| text.parse().map_err(|problem| format!("{name}: {problem}")));
    parsed.collect::<Result<_, _>>().map(Some)
}
