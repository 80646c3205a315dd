//! The options of authentication, and how a secret is kept.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{access::Patterns, id::TenantId, timestamp::Timestamp};

/// Who is asked for what. The default asks nobody.
#[derive(Debug, Clone, Default)]
pub struct AuthOptions {
    /// Whether anybody is asked.
    pub mode: AuthMode,
    /// The API keys.
    pub api_keys: Vec<ApiKeyOptions>,
}

/// Whether anybody is asked.
#[derive(Debug, Clone, Default)]
pub enum AuthMode {
    /// Everybody may do everything.
    #[default]
    None,
    /// A token or an API key is needed. Without any key for tokens API keys alone are good.
    Jwt(TokenOptions),
}

/// How tokens are verified (RFC 7519). A token is good by any of the keys.
#[derive(Debug, Clone, Default)]
pub struct TokenOptions {
    /// The secret of HS256. New tokens are made by it.
    pub secret: Option<Secret>,
    /// Another secret of HS256 by which tokens are still good.
    pub previous_secret: Option<Secret>,
    /// A PEM file with a public key or a certificate, for RS256, ES256 or EdDSA.
    pub public_key_file: Option<PathBuf>,
    /// Where a set of public keys is (RFC 7517): `https://`, or `http://` on a loopback address.
    pub jwks_url: Option<String>,
    /// What `iss` must be. `None` for anything.
    pub issuer: Option<String>,
    /// What `aud` must name one of. Where it is empty, tokens must not have `aud`.
    pub audience: Vec<String>,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyOptions {
    /// The key's name, for logs and metrics.
    pub name: String,
    /// The SHA-256 digest of the key.
    pub sha256: [u8; 32],
    /// The only jobs that it is for. `None` for all.
    pub jobs: Option<Patterns>,
    /// The only tenants that it is for. `None` for all.
    pub tenants: Option<Vec<TenantId>>,
    /// When it ends. `None` for never.
    pub expires: Option<Timestamp>,
}

/// A secret of HS256 with at least 32 bytes (RFC 7518, section 3.2). It is never shown.
#[derive(Clone)]
pub struct Secret(Arc<str>);

/// A secret is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at least {MIN_SECRET} bytes, as `openssl rand -hex 32` prints it; it has {0}")]
pub struct WeakSecret(usize);

/// The fewest bytes of a secret: as many as the hash function of HS256 has.
const MIN_SECRET: usize = 32;

impl Secret {
    /// Takes a secret as it is written.
    ///
    /// # Errors
    /// [`WeakSecret`] if it has less than 32 bytes.
    pub fn new(secret: &str) -> Result<Self, WeakSecret> {
        match secret.len() {
            length if length < MIN_SECRET => Err(WeakSecret(length)),
            _ => Ok(Self(secret.into())),
        }
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
