//! Removes what has expired. What expires has a key, sorted by time, that says when to look at it. A job that has
//! gone on since is looked at again one retention after its newest event, so that events do not move that key.

use super::{
    changes::Pending,
    decider::Decider,
    kv::Order,
    records::{self, Expiry, JobRecord},
};
use crate::{id::JobId, position::Position, room::Room, store::StoreError, timestamp::Timestamp};

/// How many keys one slice looks at, and how many writes it makes or little more, so that it holds publishers up only
/// shortly.
const LOOKS: usize = 500;
const WRITES: usize = 2000;

impl Decider {
    /// Removes a slice of what has expired by `system`. Says whether there may be more.
    pub fn sweep(&mut self, pending: &mut Pending, system: Timestamp) -> Result<bool, StoreError> {
        let now = self.now(system);
        let due = self.kv.scan(records::due(self.swept.as_deref(), now), Order::Ascending, LOOKS)?;
        let (count, limit) = (due.len(), pending.writes.len() + WRITES);
        for (key, _) in due {
            if pending.writes.len() >= limit || !self.look(pending, &key, now)? {
                return Ok(true);
            }
            // Not from the beginning again: what was removed there is stepped over one by one.
            self.swept = Some(key);
        }
        Ok(count == LOOKS)
    }

    /// Looks at one thing. Says whether that is done.
    fn look(&mut self, pending: &mut Pending, key: &[u8], now: Timestamp) -> Result<bool, StoreError> {
        let done = match records::expiry_of_key(key) {
            Some((_, Expiry::Key(target))) => {
                if self.key(pending, &target)?.is_some_and(|record| record.expires <= now) {
                    pending.remove(target);
                }
                true
            }
            Some((due, Expiry::Job(job))) => match self.job(pending, &job)? {
                Some(record) if record.due == due => {
                    self.look_at_job(pending, &job, record, now);
                    true
                }
                _ => true,
            },
            Some((due, Expiry::Room(room))) => self.look_at_room(pending, &room, due, now)?,
            None => true,
        };
        if done {
            pending.remove(key.to_vec());
        }
        Ok(done)
    }

    fn look_at_job(&mut self, pending: &mut Pending, job: &JobId, mut record: JobRecord, now: Timestamp) {
        if record.at <= now.before(self.history.retention) {
            return self.forget(pending, job, &record);
        }
        let before = record.clone();
        record.due = self.expect(pending, record.at, &records::job_key(job));
        pending.change(job, Some(&before), Some(record));
    }

    fn look_at_room(
        &self,
        pending: &mut Pending,
        room: &Room,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(mut state) = self.room(pending, room)?.filter(|state| state.record.due == due) else {
            return Ok(true);
        };
        let expired = Position::of_entry(now.before(self.history.retention).millis(), u64::MAX);
        let range = records::log_between(room, state.record.start(), expired);
        let done = self.drop_entries(pending, room, &mut state, range, LOOKS)? < LOOKS;
        let key = records::room_key(room);
        if done && state.record.first > state.last {
            pending.remove(key);
            pending.changes.rooms.insert(room.clone(), None);
            return Ok(true);
        }
        if done {
            // The oldest entry that is left may be as young as now, where it is not committed yet.
            let after = records::log_after(room, state.record.start());
            let oldest = self.kv.scan(after, Order::Ascending, 1)?;
            let oldest = oldest.first().map(|(key, _)| records::position_of_key(key).millis());
            let at = oldest.and_then(Timestamp::from_millis).unwrap_or(now);
            state.record.due = self.expect(pending, at, &key);
            pending.put(key, records::write(&state.record));
        }
        pending.changes.rooms.insert(room.clone(), Some(state));
        Ok(done)
    }
}
