//! API keys: kept as digests, compared in constant time.

use std::{fmt, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ApiKeyOptions, MAX_TOKEN, Pass};
use crate::{
    access::{Identity, KeyGrant},
    error::{ApiError, ErrorCode},
    timestamp::Timestamp,
};

/// The configured keys.
#[derive(Debug, Default)]
pub struct ApiKeys(Vec<ApiKey>);

#[derive(Debug)]
struct ApiKey {
    sha256: [u8; 32],
    grant: Arc<KeyGrant>,
    expires: Option<Timestamp>,
}

impl ApiKeys {
    /// Takes the configured keys.
    pub fn new(options: &[ApiKeyOptions]) -> Self {
        let keys = options.iter().map(|key| ApiKey {
            sha256: key.sha256,
            grant: Arc::new(KeyGrant {
                name: key.name.clone(),
                jobs: key.jobs.clone(),
                tenants: key.tenants.clone(),
            }),
            expires: key.expires,
        });
        Self(keys.collect())
    }

    /// Checks a key. How long that takes depends on the length of what is presented and the number of keys alone.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthorized`]. Only the log, at debug, says whether a key has ended.
    pub fn check(&self, presented: &str, now: Timestamp) -> Result<Pass, ApiError> {
        let refused =
            || ApiError::new(ErrorCode::Unauthorized, "this is neither a good token nor a good API key");
        if presented.len() > MAX_TOKEN {
            return Err(refused());
        }
        let digest = Sha256::digest(presented);
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.sha256.ct_eq(digest.as_slice())) {
                found = Some(key);
            }
        }
        let Some(key) = found else {
            tracing::debug!("an API key was refused: it is not configured");
            return Err(refused());
        };
        if key.expires.is_some_and(|end| end <= now) {
            tracing::debug!(key = key.grant.name, "an API key was refused: it has expired");
            return Err(refused());
        }
        Ok(Pass { expires_at: key.expires, ..Pass::from(Identity::Key(key.grant.clone())) })
    }
}

/// A new API key, which is shown once.
pub struct NewApiKey(String);

impl NewApiKey {
    /// Makes a key: `jc_` and 32 random bytes in base64url. `None` where the system gives no random bytes.
    pub fn generate() -> Option<Self> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        Some(Self(format!("jc_{}", BASE64URL_NOPAD.encode(&random))))
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its digest, as the configuration has it.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000).unwrap()
    }

    fn key(name: &str, sha256: [u8; 32], expires: Option<Timestamp>) -> ApiKeyOptions {
        ApiKeyOptions { name: name.to_owned(), sha256, jobs: None, tenants: None, expires }
    }

    #[test]
    fn a_configured_key_is_good_until_its_end() {
        let [one, two] = [(); 2].map(|()| NewApiKey::generate().unwrap());
        let end = now().after(std::time::Duration::from_secs(1));
        let keys = ApiKeys::new(&[key("one", one.sha256(), None), key("two", two.sha256(), Some(end))]);
        let name = |pass: Pass| match pass.identity {
            Identity::Key(grant) => grant.name.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(keys.check(one.as_str(), now()).map(name), Ok("one".to_owned()));
        let pass = keys.check(two.as_str(), now()).unwrap();
        assert_eq!(pass.expires_at, Some(end));
        assert_eq!(name(pass), "two");
        let expired = keys.check(two.as_str(), end).unwrap_err();
        for unknown in ["", "jc_", &one.as_str()[1..], &"x".repeat(1 << 20)] {
            assert_eq!(keys.check(unknown, now()).unwrap_err(), expired, "the same answer for each");
        }
        assert_eq!(expired.code, ErrorCode::Unauthorized);
    }

    #[test]
    fn a_new_key_has_no_dot_and_is_not_shown() {
        let new = NewApiKey::generate().unwrap();
        let body = new.as_str().strip_prefix("jc_").unwrap();
        assert!(body.len() == 43 && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        assert_ne!(new.as_str(), NewApiKey::generate().unwrap().as_str());
        assert!(!format!("{new:?}").contains(body));
    }
}
