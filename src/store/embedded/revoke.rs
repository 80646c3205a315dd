//! Keeps revocations, and removes those that have ended.

use super::{changes::Pending, decider::Decider, kv::Order, records};
use crate::{
    access::Revocation,
    store::{MAX_REVOCATIONS, REVOCATION_LIFETIME, StoreError},
    timestamp::Timestamp,
};

impl Decider {
    /// Keeps a revocation, and says whether there is a place for it. Of two for a subject the later one counts.
    pub fn revoke(&mut self, pending: &mut Pending, revocation: &Revocation) -> Result<bool, StoreError> {
        let ended = Timestamp::now().before(REVOCATION_LIFETIME);
        let key = records::revocation_key(&revocation.subject);
        let (mut count, mut revocation) = (0, revocation.clone());
        for (other, value) in self.kv.scan(records::revocations(), Order::Ascending, MAX_REVOCATIONS)? {
            let kept: Revocation = records::read(&value)?;
            if other == key {
                revocation.before = revocation.before.max(kept.before);
            } else if kept.before < ended {
                pending.remove(other);
            } else {
                count += 1;
            }
        }
        let has_place = count < MAX_REVOCATIONS;
        if has_place {
            pending.put(key, records::write(&revocation));
        }
        Ok(has_place)
    }
}
