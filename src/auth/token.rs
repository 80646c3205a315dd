//! Verifying tokens: which keys a token may mean, its signature, its claims; and those that were verified before.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use quick_cache::{Weighter, sync::Cache};
use sha2::{Digest, Sha256};

use super::{
    AuthError, MAX_TOKEN, Pass, TokenOptions,
    claims::{self, ClaimError, Claims, Expected},
    jwks::{Jwks, KnownKeys, Schedule},
    keys::VerificationKey,
};
use crate::{
    error::{ApiError, ErrorCode},
    json::Object,
    tasks::Tasks,
    telemetry::Metrics,
    timestamp::Timestamp,
};

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the token must have at most {MAX_TOKEN} bytes, got {0}")]
    TooLarge(usize),
    #[error(
        "the token must be a signed JWT: three parts in base64url, with HS256, RS256, ES256 or EdDSA as alg"
    )]
    Malformed,
    #[error("the token is signed by a key that this gateway does not have")]
    UnknownKey,
    #[error("the token is signed with {0:?}, for which this gateway has no key")]
    Algorithm(Algorithm),
    #[error("the token's signature is not good")]
    Signature,
    #[error("the token's claims must be a JSON object that names each claim once")]
    Claims,
    #[error("the token is not good: {0}")]
    Claim(#[from] ClaimError),
    #[error("the keys for tokens could not be fetched yet; try again soon")]
    NoKeys,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NoKeys => ErrorCode::Unavailable,
            _ => ErrorCode::Unauthorized,
        };
        ApiError::new(code, refusal.to_string())
    }
}

/// How many bytes of verified tokens are remembered: to look one up takes a tenth of what HS256 takes, and other algorithms
/// take many times as much.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// About how many tokens that is.
const CACHE_TOKENS: usize = 10_000;

/// Verifies tokens.
#[derive(Debug)]
pub struct TokenVerifier {
    /// The keys that the configuration names itself.
    keys: Vec<VerificationKey>,
    jwks: Option<Jwks>,
    expected: Expected,
    /// Verified tokens by their SHA-256 digest.
    verified: Cache<[u8; 32], Verified, BySize>,
}

/// A token that was verified, when the keys were those of a generation.
#[derive(Debug, Clone)]
struct Verified {
    pass: Arc<Pass>,
    generation: u64,
    size: usize,
}

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<[u8; 32], Verified> for BySize {
    fn weight(&self, _: &[u8; 32], verified: &Verified) -> u64 {
        // What it grants is about as large as the token, and comes with some structures.
        verified.size as u64 + 256
    }
}

impl TokenVerifier {
    /// Reads the key file, and begins to fetch the JWKS.
    ///
    /// # Errors
    /// [`AuthError`] says what is of no use.
    pub async fn open(options: &TokenOptions, tasks: &Tasks, metrics: &Metrics) -> Result<Self, AuthError> {
        let secrets = [&options.secret, &options.previous_secret].into_iter().flatten();
        let mut keys: Vec<_> = secrets.filter_map(VerificationKey::from_secret).collect();
        if let Some(path) = options.public_key_file.clone() {
            let read = VerificationKey::read(&path);
            keys.push(read.map_err(|problem| AuthError::KeyFile { path, problem })?);
        }
        let jwks = match &options.jwks_url {
            Some(url) => Some(Jwks::start(&url.parse()?, Schedule::default(), tasks, metrics)?),
            None => None,
        };
        let expected = Expected { issuer: options.issuer.clone(), audience: options.audience.clone() };
        Ok(Self::new(keys, jwks, expected))
    }

    pub(super) fn new(keys: Vec<VerificationKey>, jwks: Option<Jwks>, expected: Expected) -> Self {
        Self { keys, jwks, expected, verified: Cache::with_weighter(CACHE_TOKENS, CACHE_BYTES, BySize) }
    }

    /// Verifies a token at a time. It waits for the JWKS where the token needs keys that may be there by now.
    ///
    /// # Errors
    /// [`Refusal`] says what is wrong.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Pass, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLarge(token.len()));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let generation = self.generation();
        if let Some(known) = self.verified.get(&digest).filter(|known| known.generation == generation) {
            claims::check_end(known.pass.expires_at.unwrap_or_default(), now)?;
            return Ok(Pass::clone(&known.pass));
        }
        let (claims, generation) = self.claims(token).await?;
        let pass = claims.into_pass(&self.expected, now)?;
        let verified = Verified { pass: Arc::new(pass.clone()), generation, size: token.len() };
        self.verified.insert(digest, verified);
        Ok(pass)
    }

    /// The claims of a token with a good signature, and the generation of the keys.
    async fn claims(&self, token: &str) -> Result<(Claims, u64), Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Malformed)?;
        let mut refusal = Refusal::Algorithm(header.alg);
        for key in self.keys.iter().filter(|key| key.algorithm == header.alg) {
            match verified_claims(token, key) {
                Err(Refusal::Signature) => refusal = Refusal::Signature,
                decided => return decided.map(|claims| (claims, self.generation())),
            }
        }
        let Some(jwks) = self.jwks.as_ref().filter(|_| header.alg != Algorithm::HS256) else {
            return Err(refusal);
        };
        let KnownKeys { keys, generation } = jwks.keys_for(header.kid.as_deref()).await;
        let keys = keys.ok_or(Refusal::NoKeys)?;
        if !keys.knows(header.kid.as_deref()) {
            return Err(Refusal::UnknownKey);
        }
        for key in keys.named(header.kid.as_deref()).filter(|key| key.algorithm == header.alg) {
            match verified_claims(token, key) {
                Err(Refusal::Signature) => refusal = Refusal::Signature,
                decided => return decided.map(|claims| (claims, generation)),
            }
        }
        Err(refusal)
    }

    fn generation(&self) -> u64 {
        self.jwks.as_ref().map_or(0, |jwks| jwks.current().generation)
    }
}

/// The claims, if the token is signed by that key with the algorithm that the key is for. Only header and signature are
/// checked here.
pub(super) fn verified_claims(token: &str, key: &VerificationKey) -> Result<Claims, Refusal> {
    let mut signature_alone = Validation::new(key.algorithm);
    signature_alone.required_spec_claims.clear();
    signature_alone.validate_exp = false;
    signature_alone.validate_aud = false;
    match jsonwebtoken::decode::<Object<Claims>>(token, &key.key, &signature_alone) {
        Ok(data) => Ok(data.claims.0),
        Err(error) => Err(match error.kind() {
            ErrorKind::InvalidSignature => Refusal::Signature,
            ErrorKind::Json(_) => Refusal::Claims,
            _ => Refusal::Malformed,
        }),
    }
}
