//! Revocations: tokens of somebody that were issued before a time are good no longer (contract, section 9).

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Identity;
use crate::{
    id::{TenantId, UserId},
    timestamp::Timestamp,
};

/// How long a token's own id (`jti`) may be, in bytes.
pub const MAX_TOKEN_ID: usize = 256;

/// What a credential gives: an identity, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Whose it is.
    pub identity: Identity,
    /// When a token expires.
    pub expires_at: Option<Timestamp>,
    /// When a token was issued, if it says so.
    pub issued_at: Option<Timestamp>,
    /// A token's own id (`jti`), if it has one.
    pub token_id: Option<Arc<str>>,
}

impl From<Identity> for Pass {
    /// One that does not expire.
    fn from(identity: Identity) -> Self {
        Self { identity, expires_at: None, issued_at: None, token_id: None }
    }
}

/// Whose tokens are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// One user's.
    Sub(UserId),
    /// All of a tenant.
    TenantId(TenantId),
    /// One token, by its id.
    Jti(String),
}

/// Tokens of a subject that were issued before a time are good no longer; nor are those that do not say when they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Whose.
    pub subject: Subject,
    /// The time. Most tokens say only in which second they were issued, and count as issued at its beginning: one that was
    /// issued just before is revoked for certain, and so is one that is issued just after, within the same second.
    pub before: Timestamp,
}

/// All revocations that are in force. It only grows: of two for a subject the later one counts.
#[derive(Debug, Clone, Default)]
pub struct Revocations(HashMap<Subject, Timestamp>);

impl Revocations {
    /// Adds one. Says whether it revokes more than before.
    pub fn add(&mut self, Revocation { subject, before }: Revocation) -> bool {
        let known = self.0.entry(subject).or_default();
        let is_more = *known < before;
        *known = before.max(*known);
        is_more
    }

    /// Whether a pass is good no longer.
    pub fn revoke(&self, pass: &Pass) -> bool {
        let Identity::Token(token) = &pass.identity else { return false };
        if self.0.is_empty() {
            return false;
        }
        let subjects = [
            token.user.clone().map(Subject::Sub),
            token.tenant.clone().map(Subject::TenantId),
            pass.token_id.as_deref().map(|id| Subject::Jti(id.to_owned())),
        ];
        let before = subjects.into_iter().flatten().filter_map(|subject| self.0.get(&subject)).max();
        before.is_some_and(|before| pass.issued_at.is_none_or(|issued| issued < *before))
    }
}
