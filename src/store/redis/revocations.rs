//! Revocations in Redis: one hash of subjects and times, with a version that counts the changes.

use std::collections::HashMap;

use super::Redis;
use crate::{
    access::{Revocation, Subject},
    redis::Command,
    store::{MAX_REVOCATIONS, REVOCATION_LIFETIME, StoreError},
    timestamp::Timestamp,
};

/// The member of the hash that counts.
const VERSION: &str = "version";

impl Redis {
    pub async fn revoke(&self, revocation: &Revocation) -> Result<bool, StoreError> {
        let ended = Timestamp::now().before(REVOCATION_LIFETIME);
        let call = self.revoke.call(&[&self.keys.revocations()]);
        let call = call
            .arg(written(&revocation.subject))
            .arg(revocation.before.millis())
            .arg(ended.millis())
            .arg(MAX_REVOCATIONS)
            .arg(u64::try_from(REVOCATION_LIFETIME.as_millis()).unwrap_or(u64::MAX))
            .publishes();
        Ok(self.client.ask::<u64>(call).await? == 1)
    }

    pub async fn revocations(
        &self,
        known: Option<u64>,
    ) -> Result<Option<(u64, Vec<Revocation>)>, StoreError> {
        let key = self.keys.revocations();
        let version = Command::on("HGET", &key).arg(VERSION);
        let version: u64 = self.client.ask::<Option<u64>>(version).await?.unwrap_or(0);
        if known == Some(version) {
            return Ok(None);
        }
        let kept: HashMap<String, String> = self.client.ask(Command::on("HGETALL", &key)).await?;
        Ok(Some((version, kept.iter().filter_map(|(subject, before)| read(subject, before)).collect())))
    }
}

fn written(subject: &Subject) -> String {
    match subject {
        Subject::Sub(user) => format!("sub:{user}"),
        Subject::TenantId(tenant) => format!("tenantId:{tenant}"),
        Subject::Jti(id) => format!("jti:{id}"),
    }
}

/// What is not one of ours is passed over.
fn read(subject: &str, before: &str) -> Option<Revocation> {
    let subject = match subject.split_once(':')? {
        ("sub", user) => Subject::Sub(user.parse().ok()?),
        ("tenantId", tenant) => Subject::TenantId(tenant.parse().ok()?),
        ("jti", id) => Subject::Jti(id.to_owned()),
        _ => return None,
    };
    Some(Revocation { subject, before: Timestamp::from_millis(before.parse().ok()?)? })
}
