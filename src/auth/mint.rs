//! Making tokens by `auth.secret`.

use std::{fmt, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use super::{
    MAX_TOKEN, TokenOptions,
    claims::{ADMIN, PUBLISH},
};
use crate::{
    access::{Patterns, TokenGrant},
    error::{ApiError, ErrorCode},
    timestamp::Timestamp,
};

/// A new token.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// Leaves the token out.
impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Makes tokens.
#[derive(Debug)]
pub struct Minter {
    key: EncodingKey,
    issuer: Option<String>,
    audience: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewClaims<'a> {
    jti: String,
    iat: f64,
    exp: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aud: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    documents: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

impl Minter {
    /// `None` without a secret.
    pub fn new(options: &TokenOptions) -> Option<Self> {
        Some(Self {
            key: EncodingKey::from_secret(options.secret.as_ref()?.as_bytes()).ok()?,
            issuer: options.issuer.clone(),
            audience: options.audience.clone(),
        })
    }

    /// Makes a token that is good from now on.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidPayload`] where it would be too large; [`ErrorCode::Unavailable`] where the system gives no
    /// random bytes.
    pub fn mint(&self, grant: &TokenGrant, lifetime: Duration, now: Timestamp) -> Result<Minted, ApiError> {
        let failed = || ApiError::new(ErrorCode::Unavailable, "the token could not be made; try again");
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| failed())?;
        let expires_at = now.after(lifetime);
        let scopes = [(ADMIN, grant.is_admin), (PUBLISH, grant.publishes)];
        let scopes: Vec<_> = scopes.iter().filter(|(_, has)| *has).map(|(scope, _)| *scope).collect();
        let claims = NewClaims {
            jti: BASE64URL_NOPAD.encode(&id),
            iat: seconds(now),
            exp: seconds(expires_at),
            iss: self.issuer.as_deref(),
            aud: &self.audience,
            sub: grant.user.as_ref().map(|user| user.as_str()),
            tenant_id: grant.tenant.as_ref().map(|tenant| tenant.as_str()),
            jobs: texts(&grant.jobs),
            documents: texts(&grant.documents),
            scope: scopes.join(" "),
        };
        let token = jsonwebtoken::encode(&Header::default(), &claims, &self.key).map_err(|_| failed())?;
        match token.len() {
            length if length > MAX_TOKEN => Err(ApiError::invalid(format!(
                "jobs and documents make a token of {length} bytes, and it must have at most {MAX_TOKEN}: name \
                 beginnings of ids with a * behind them"
            ))),
            _ => Ok(Minted { token, expires_at }),
        }
    }
}

fn texts(patterns: &Patterns) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

/// A NumericDate. It has milliseconds, so that a revocation can tell tokens of the same second apart.
fn seconds(time: Timestamp) -> f64 {
    time.millis() as f64 / 1000.0
}
