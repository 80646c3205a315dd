//! Who calls: tokens and API keys become identities.
use crate::{
    access::{Identity, Pass, TokenGrant},
    error::{ApiError, ErrorCode},
    tasks::Tasks,
    timestamp::Timestamp,
};
use http::HeaderMap;
use std::sync::Arc;
/// Options.
#[derive(Debug, Clone, Default)]
pub struct AuthOptions {}
/// Checks credentials.
#[derive(Debug, Clone, Default)]
pub struct Authenticator(Arc<()>);
/// Minted.
pub struct Minted {
    pub token: String,
    pub expires_at: Timestamp,
}
/// Credential.
pub enum Credential<'a> {
    Bearer(std::borrow::Cow<'a, str>),
    ApiKey(&'a str),
}
impl Authenticator {
    /// Opens.
    pub async fn open(_: &AuthOptions, _: &Tasks) -> Result<Self, std::io::Error> {
        Ok(Self(Arc::new(())))
    }
    /// Nobody is asked.
    pub fn is_open(&self) -> bool {
        true
    }
    /// Checks.
    pub async fn check(&self, _: &str) -> Result<Pass, ApiError> {
        Ok(Identity::Everybody.into())
    }
    /// Checks.
    pub fn check_key(&self, _: &str) -> Result<Pass, ApiError> {
        Ok(Identity::Everybody.into())
    }
    /// What the credential of a request gives; `None` where it has none.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Option<Pass>, ApiError> {
        match credential_of(headers, query)? {
            Some(Credential::Bearer(text)) => self.check(&text).await.map(Some),
            Some(Credential::ApiKey(key)) => self.check_key(key).map(Some),
            None => Ok(None),
        }
    }
    /// Mints.
    pub fn mint(&self, _: &TokenGrant, _: std::time::Duration) -> Result<Minted, ApiError> {
        Err(ApiError::new(ErrorCode::Forbidden, "no"))
    }
}
/// Where.
pub fn credential_of<'a>(_: &'a HeaderMap, _: Option<&'a str>) -> Result<Option<Credential<'a>>, ApiError> {
    Ok(None)
}
