//! Commits what has been decided, and sends its events on their way.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{changes::Decided, index::Index, kv::Kv, outage::Outage};
use crate::{
    store::{Arrival, FeedItem, HistoryOptions, Rooms, StoreError},
    timestamp::Timestamp,
};

/// Commits one group after the other.
#[derive(Debug)]
pub struct Committer {
    pub kv: Arc<Kv>,
    pub index: Arc<Mutex<Index>>,
    pub history: HistoryOptions,
    /// Where the disk takes no writes. All that is decided until it ends may build on what was not committed.
    pub outage: Option<Outage>,
    /// What keeps events from being accepted, for those who ask.
    pub refusing: watch::Sender<Option<StoreError>>,
}

impl Committer {
    /// Writes a group, and hands its events to `tell`: before the answers, so that a publisher that was answered finds
    /// its event there.
    pub fn commit(&mut self, group: Decided, mut tell: impl FnMut(FeedItem)) -> Result<(), StoreError> {
        if let Some(outage) = &self.outage {
            return Err(outage.error().clone());
        }
        if !group.writes.is_empty()
            && let Err(fault) = self.kv.commit(group.writes)
        {
            let error = fault.error.clone();
            self.outage = Some(Outage::begin(fault, &self.refusing));
            return Err(error);
        }
        {
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            for (job, change) in &group.changes.jobs {
                index.moved(job, change.before, change.record.as_ref().map(|record| record.at));
            }
            index.ends_at(group.end);
        }
        for (event, positions) in group.events {
            tell(FeedItem::Event(Arrival { event, positions }));
        }
        Ok(())
    }

    /// Ends an outage, if it can be ended by now, and says whether it did.
    pub fn recover(&mut self, mut tell: impl FnMut(FeedItem)) -> bool {
        let Some(mut outage) = self.outage.take() else { return false };
        let Some(room) = outage.reopen_with() else {
            self.outage = Some(outage);
            return false;
        };
        let expired = Timestamp::now().before(self.history.retention);
        match self.kv.reopen(room).and_then(|()| Index::read(&self.kv, expired)) {
            Ok(read) => *self.index.lock().unwrap_or_else(PoisonError::into_inner) = read,
            Err(error) => {
                outage.goes_on(error, &self.refusing);
                self.outage = Some(outage);
                return false;
            }
        }
        // The commit that failed may be there now. Its events were never sent: watchers get them as after any
        // other interruption.
        tell(FeedItem::Interrupted(Rooms::All));
        tell(FeedItem::Restored(Rooms::All));
        outage.end(&self.refusing);
        true
    }
}
