//! Notices on their way to this node's sessions. They are not stored, so whoever publishes them waits for those who read.

use std::time::Duration;

use super::Gateway;
use crate::{
    budget::{Purpose, Reservation},
    error::ApiError,
    notice::Notice,
    timestamp::Timestamp,
};

/// How long a publisher waits for sessions that read slowly.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it looks whether they have caught up.
const INTERVAL: Duration = Duration::from_millis(5);

/// A notice that sessions share. Its bytes count as held for as long as it waits for one of them.
#[derive(Debug)]
pub struct HeldNotice {
    /// The notice.
    pub notice: Notice,
    _held: Reservation,
}

impl HeldNotice {
    /// A notice that has arrived.
    pub fn new(gateway: &Gateway, notice: Notice) -> Self {
        let _held = gateway.budget().charge(Purpose::Outbox, notice.data.get().len() as u64);
        Self { notice, _held }
    }
}

impl Gateway {
    /// Sends a notice, after its turn.
    pub(super) async fn send_notice(&self, notice: Notice) -> Result<Timestamp, ApiError> {
        let _held = self.budget().reserve(Purpose::Publish, notice.data.get().len() as u64)?;
        if self.hub(|hub| hub.notices_pile_up()) {
            // One after the other, so that they do not all come together.
            let turn = async {
                // Never closed: it lives as long as the gateway.
                let _turn = self.0.notice_turns.acquire().await;
                while self.hub(|hub| hub.notices_pile_up()) {
                    tokio::time::sleep(INTERVAL).await;
                }
            };
            let _in_time = tokio::time::timeout(PATIENCE, turn).await;
        }
        self.asked(self.0.store.notify(&notice).await).map(|()| notice.timestamp)
    }
}
