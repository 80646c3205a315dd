//! Revocations: which tokens are good no longer, on every node within a second.

use std::{
    sync::{PoisonError, RwLockReadGuard},
    time::Duration,
};

use super::{CloseReason, Gateway};
use crate::{
    access::{Identity, Pass, Revocation, Revocations},
    error::{ApiError, ErrorCode},
};

/// How often a store that others share is asked for new ones. A question that is answered "none" costs next to nothing, and
/// one that is asked after an interruption of whatever kind makes up for all of it.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long an answer may take before the question is asked anew.
const PATIENCE: Duration = Duration::from_millis(500);

impl Gateway {
    /// Revokes tokens on behalf of an administrator. When this returns it is stored, and in force on this node; on others
    /// within a second, or within a second of their return to the store.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for others, [`ErrorCode::LimitReached`] where as many are kept as may be, and
    /// [`ErrorCode::Unavailable`] when the store does not answer.
    pub async fn revoke(&self, by: &Identity, revocation: Revocation) -> Result<(), ApiError> {
        by.check_admin()?;
        match self.asked(self.0.store.revoke(&revocation).await)? {
            true => {
                self.take_revocations([revocation]);
                Ok(())
            }
            false => {
                let message = "as many revocations are kept as may be; they end a year after their time";
                Err(ApiError::new(ErrorCode::LimitReached, message))
            }
        }
    }

    /// Whether a pass is still good.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthorized`] where it was revoked.
    pub fn check_pass(&self, pass: &Pass) -> Result<(), ApiError> {
        match self.is_revoked(pass) {
            true => Err(ApiError::new(ErrorCode::Unauthorized, "the token was revoked; get a new one")),
            false => Ok(()),
        }
    }

    pub(super) fn is_revoked(&self, pass: &Pass) -> bool {
        self.revocations().revoke(pass)
    }

    fn revocations(&self) -> RwLockReadGuard<'_, Revocations> {
        self.0.revocations.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes revocations, and ends the sessions whose tokens they revoke.
    fn take_revocations(&self, new: impl IntoIterator<Item = Revocation>) {
        let has_more = {
            let mut known = self.0.revocations.write().unwrap_or_else(PoisonError::into_inner);
            let more = new.into_iter().filter(|revocation| known.add(revocation.clone()));
            more.count() > 0
        };
        if !has_more {
            return;
        }
        let revoked = {
            let revocations = self.revocations();
            self.hub(|hub| hub.sessions_of(|pass| revocations.revoke(pass)))
        };
        for key in revoked {
            self.close(key, CloseReason::TokenRevoked);
        }
    }

    /// Reads all that are kept, for the first time.
    pub(super) async fn read_revocations(&self) -> Result<u64, crate::store::StoreError> {
        let found = self.0.store.revocations(None).await?;
        Ok(found.map_or(0, |(version, revocations)| {
            self.take_revocations(revocations);
            version
        }))
    }
}

/// Asks the store for what other nodes have revoked, again and again.
pub async fn follow(gateway: Gateway, mut version: u64) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let asked = tokio::time::timeout(PATIENCE, gateway.0.store.revocations(Some(version))).await;
        if let Ok(Ok(Some((newer, revocations)))) = asked {
            version = newer;
            gateway.take_revocations(revocations);
        }
    }
}
