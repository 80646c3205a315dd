//! Who calls: the extractor of every call that is not for everybody.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::HttpState;
use crate::{
    access::{Identity, Pass},
    error::{ApiError, ErrorCode},
};

/// What the caller may do, and for how long. An application that mounts the router may bring it along, as a [`Pass`] among
/// the request's extensions; otherwise the request's token or key says it.
pub struct Caller(pub Pass);

impl Caller {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }
}

impl FromRequestParts<Arc<HttpState>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, ApiError> {
        if let Some(pass) = parts.extensions.get::<Pass>() {
            return Ok(Self(pass.clone()));
        }
        let pass = state.auth.authenticate(&parts.headers, parts.uri.query()).await?;
        let pass = pass.ok_or_else(|| {
            let message = "this needs a token or an API key; send it as Authorization: Bearer …";
            ApiError::new(ErrorCode::Unauthorized, message)
        })?;
        state.gateway.check_pass(&pass)?;
        Ok(Self(pass))
    }
}
