//! The sending end of a session that takes everything.

use jobcast::{CloseReason, Delivery, JobEvent, Offer, Outlet};

/// Hands every event to what it is made of.
pub struct Watcher<F>(pub F);

impl<F: Fn(&JobEvent) + Send + Sync + 'static> Outlet for Watcher<F> {
    fn offer(&self, delivery: Delivery<'_>) -> Offer {
        if let Delivery::Event(event, ..) = delivery {
            self.0(event);
        }
        Offer::Taken
    }

    fn waiting(&self) -> u64 {
        0
    }

    fn is_full(&self) -> bool {
        false
    }

    fn takes_notices(&self) -> bool {
        false
    }

    fn close(&self, reason: CloseReason) {
        panic!("closed: {reason:?}");
    }
}
