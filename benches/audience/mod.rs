//! Watchers that do nothing but count, on a gateway of their own: what is measured is the gateway's work alone.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jobcast::{
    Backend, Gateway, GatewayOptions, HistoryOptions, Identity, JobEvent, JobId, Publication, Session,
    StoreOptions, Subscription,
};
use tokio::sync::Notify;

#[path = "../../tests/support/watcher.rs"]
mod watcher;
use watcher::Watcher;

/// How long the gateway may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// A gateway on the memory store, with its watchers.
pub struct Audience {
    gateway: Gateway,
    arrivals: Arc<Arrivals>,
    sessions: Vec<Session>,
}

/// How many deliveries have come, and how many are waited for.
#[derive(Debug, Default)]
struct Arrivals {
    count: AtomicU64,
    awaited: AtomicU64,
    complete: Notify,
}

impl Arrivals {
    fn note(&self) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count == self.awaited.load(Ordering::Relaxed) {
            self.complete.notify_one();
        }
    }
}

impl Audience {
    /// A watcher for each of the jobs given, in that job's room.
    pub async fn gather(jobs: impl Iterator<Item = JobId>) -> Result<Self, Box<dyn Error>> {
        let store = StoreOptions { backend: Backend::Memory, history: HistoryOptions::default() };
        let gateway = Gateway::open(&store, GatewayOptions::default()).await?;
        let arrivals = Arc::new(Arrivals::default());
        let mut sessions = Vec::new();
        for job in jobs {
            let arrivals = arrivals.clone();
            let watcher = Arc::new(Watcher(move |_: &JobEvent| arrivals.note()));
            let session = gateway.connect(watcher, None, Identity::Everybody.into())?;
            session.join(&Subscription::Job(job, None)).await?.start();
            sessions.push(session);
        }
        Ok(Self { gateway, arrivals, sessions })
    }

    /// Publishes events together, and waits until so many deliveries have come of them.
    pub async fn publish(&self, events: Vec<Publication>, deliveries: u64) -> Result<(), Box<dyn Error>> {
        let Arrivals { count, awaited, complete } = &*self.arrivals;
        awaited.store(count.load(Ordering::Relaxed) + deliveries, Ordering::Relaxed);
        for outcome in self.gateway.publish_all(events).await {
            outcome?;
        }
        if deliveries > 0 {
            complete.notified().await;
        }
        Ok(())
    }

    /// Ends all of it.
    pub async fn dismiss(self) -> Result<(), Box<dyn Error>> {
        drop(self.sessions);
        if self.gateway.stop(PATIENCE).await { Ok(()) } else { Err("the gateway did not stop".into()) }
    }
}
