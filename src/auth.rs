//! Who a caller is: a credential is checked here and becomes an identity (contract, section 9).

mod api_key;
mod claims;
mod credential;
mod jwks;
mod keys;
mod mint;
mod options;
mod token;

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::HeaderMap;

/// What the fuzz targets of this repository use besides.
#[doc(hidden)]
pub mod internals {
    use std::sync::Arc;

    use super::{
        Authenticator, Inner, Secret,
        claims::Expected,
        keys::VerificationKey,
        token::{self, TokenVerifier},
    };
    pub use super::{
        credential::{Credential, credential_of},
        keys::KeySet,
    };

    /// Checks tokens by a secret alone, and so waits for nothing.
    pub fn by_secret(secret: &Secret) -> Authenticator {
        let keys = VerificationKey::from_secret(secret).into_iter().collect();
        let tokens = TokenVerifier::new(keys, None, Expected::default());
        Authenticator(Arc::new(Inner { tokens: Some(tokens), ..Inner::default() }))
    }

    /// Whether one of the keys that `kid` may mean has signed a token.
    pub fn has_signed(keys: &KeySet, kid: Option<&str>, token: &str) -> bool {
        keys.named(kid).any(|key| token::verified_claims(token, key).is_ok())
    }
}

use self::{
    api_key::ApiKeys,
    credential::{Credential, credential_of},
    mint::Minter,
    token::TokenVerifier,
};
pub use self::{
    api_key::NewApiKey,
    jwks::{InvalidJwksUrl, JwksUrl},
    keys::InvalidKeyFile,
    mint::Minted,
    options::{ApiKeyOptions, AuthMode, AuthOptions, Secret, TokenOptions, WeakSecret},
};
use crate::{
    access::{Identity, Pass, TokenGrant},
    error::{ApiError, ErrorCode},
    tasks::Tasks,
    telemetry::Metrics,
    timestamp::Timestamp,
};

/// The largest token, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Why authentication could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file of the public key is of no use.
    #[error("{} (auth.public_key_file): {problem}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: InvalidKeyFile,
    },
    /// No address of a JWKS.
    #[error("auth.jwks_url: {0}")]
    JwksUrl(#[from] InvalidJwksUrl),
    /// The client for the JWKS cannot be built.
    #[error("auth.jwks_url cannot be asked: {0}")]
    HttpClient(String),
}

/// Checks credentials. Cloning gives another handle on the same one.
///
/// The default one asks nobody: everybody may do everything.
#[derive(Debug, Clone, Default)]
pub struct Authenticator(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// `None` where nobody is asked.
    tokens: Option<TokenVerifier>,
    keys: ApiKeys,
    minter: Option<Minter>,
}

impl Authenticator {
    /// Reads the key file. A JWKS is fetched by a task of `tasks`, so that an outage of its server stops no start;
    /// tokens wait for the first fetch.
    ///
    /// # Errors
    /// [`AuthError`] says what is of no use.
    pub async fn open(options: &AuthOptions, tasks: &Tasks, metrics: &Metrics) -> Result<Self, AuthError> {
        let mut inner = Inner::default();
        if let AuthMode::Jwt(token_options) = &options.mode {
            inner.tokens = Some(TokenVerifier::open(token_options, tasks, metrics).await?);
            inner.keys = ApiKeys::new(&options.api_keys);
            inner.minter = Minter::new(token_options);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Whether nobody is asked (`auth.mode = "none"`).
    pub fn is_open(&self) -> bool {
        self.0.tokens.is_none()
    }

    /// Checks a token or an API key. Where nobody is asked, everything is good. It waits for a JWKS where that has to
    /// be fetched first, for 3 seconds at most, and may be dropped at any time.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthorized`] says what is wrong; [`ErrorCode::Unavailable`] means that no JWKS could be fetched
    /// yet.
    pub async fn check(&self, credential: &str) -> Result<Pass, ApiError> {
        let Some(tokens) = &self.0.tokens else { return Ok(Identity::Everybody.into()) };
        match credential.contains('.') {
            true => Ok(tokens.verify(credential, Timestamp::now()).await?),
            false => self.check_key(credential),
        }
    }

    /// Checks the credential of a request; `None` where it has none. Where nobody is asked, everything is good.
    ///
    /// # Errors
    /// As [`Authenticator::check`]; [`ErrorCode::Unauthorized`] where it has several.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Option<Pass>, ApiError> {
        if self.is_open() {
            return Ok(Some(Identity::Everybody.into()));
        }
        match credential_of(headers, query)? {
            Some(Credential::Any(credential)) => self.check(&credential).await.map(Some),
            Some(Credential::ApiKey(key)) => self.check_key(key).map(Some),
            None => Ok(None),
        }
    }

    /// Checks an API key. Where nobody is asked, everything is good.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthorized`], with the same sentence whatever is wrong.
    pub fn check_key(&self, key: &str) -> Result<Pass, ApiError> {
        match self.is_open() {
            true => Ok(Identity::Everybody.into()),
            false => self.0.keys.check(key, Timestamp::now()),
        }
    }

    /// Makes a token by `auth.secret` (HS256), with `jti`, `iat` and `exp`, and with `iss` and `aud` where these are
    /// configured. Times have milliseconds.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] without a secret; [`ErrorCode::InvalidPayload`] where the token would be too large.
    pub fn mint(&self, grant: &TokenGrant, lifetime: Duration) -> Result<Minted, ApiError> {
        match &self.0.minter {
            Some(minter) => minter.mint(grant, lifetime, Timestamp::now()),
            None => Err(ApiError::new(
                ErrorCode::Forbidden,
                "this gateway makes no tokens: auth.secret is not set in its configuration",
            )),
        }
    }
}

/// Makes a token as [`Authenticator::mint`] does, without a running gateway.
///
/// # Errors
/// As of [`Authenticator::mint`].
pub fn mint(options: &TokenOptions, grant: &TokenGrant, lifetime: Duration) -> Result<Minted, ApiError> {
    let inner = Inner { minter: Minter::new(options), ..Inner::default() };
    Authenticator(Arc::new(inner)).mint(grant, lifetime)
}

/// Reads a file with a public key, for the check of the configuration.
///
/// # Errors
/// [`InvalidKeyFile`] says what is wrong with it.
pub fn check_key_file(path: &std::path::Path) -> Result<(), InvalidKeyFile> {
    keys::VerificationKey::read(path).map(|_| ())
}

#[cfg(test)]
mod tests;
