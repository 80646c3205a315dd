//! Looks after connections for which something waits: cuts those that take too little, and, when the node holds more
//! bytes than it may, those with the most.

use std::{
    cmp::Reverse,
    collections::HashMap,
    mem::take,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::{sync::Notify, time::sleep};

use super::outbox::{Outbox, Waiting};
use crate::{
    budget::{Budget, Purpose, Reservation},
    tasks::Tasks,
    telemetry::{LogInterval, ReasonLabel},
};

/// How often the connections are looked at while something waits for one.
const INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a look that was due to the budget.
const PAUSE: Duration = Duration::from_millis(50);

/// What all connections share.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Tasks,
    budget: Budget,
    /// The least rate at which an answer is taken, in bytes a second.
    min_rate: u64,
    cut: Family<ReasonLabel, Counter>,
    waiting: Mutex<Vec<Weak<Outbox>>>,
    added: Notify,
}

impl Supervisor {
    /// Supervises until the tasks stop.
    pub fn start(
        tasks: &Tasks,
        budget: &Budget,
        min_rate: u64,
        cut: Family<ReasonLabel, Counter>,
    ) -> Arc<Self> {
        let (waiting, added) = (Mutex::default(), Notify::new());
        let (tasks, budget) = (tasks.clone(), budget.clone());
        let supervisor = Arc::new(Self { tasks, budget, min_rate, cut, waiting, added });
        supervisor.tasks.spawn_until_stop("supervisor", supervisor.clone().run());
        supervisor
    }

    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The least rate of a body, in bytes a second.
    pub fn min_rate(&self) -> u64 {
        self.min_rate
    }

    /// Looks after a connection from here on.
    pub fn add(&self, outbox: &Arc<Outbox>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(outbox));
        self.added.notify_one();
    }

    async fn run(self: Arc<Self>) {
        let mut shared = self.budget.charge(Purpose::Outbox, 0);
        let mut log = LogInterval::default();
        loop {
            if self.look(&mut shared, &mut log) == 0 {
                self.added.notified().await;
            }
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.budget.exceeded() => sleep(PAUSE).await,
            }
        }
    }

    /// Looks at all connections. Answers for how many something waits.
    fn look(&self, shared: &mut Reservation, log: &mut LogInterval) -> usize {
        let now = Instant::now();
        let outboxes = take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut waiting, mut shared_bytes) = (Vec::new(), 0);
        for outbox in outboxes.iter().filter_map(Weak::upgrade) {
            match outbox.look_after(now, self.min_rate) {
                Some(Waiting::Bytes { all, shared }) => {
                    shared_bytes += shared;
                    waiting.push((all, outbox));
                }
                Some(Waiting::Cut) => self.note_cut("slow"),
                None => {}
            }
        }
        shared.set(self.measure(shared_bytes, &waiting));
        self.cut_greediest(&mut waiting, log);
        let left = waiting.len();
        let mut list = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        list.extend(waiting.iter().map(|(_, outbox)| Arc::downgrade(outbox)));
        left
    }

    /// The bytes of frames that connections share. Counting each once takes time, so that is done where it matters.
    fn measure(&self, at_most: u64, waiting: &[(u64, Arc<Outbox>)]) -> u64 {
        if at_most < self.budget.limit() / 8 {
            return at_most;
        }
        let mut frames = HashMap::new();
        for (_, outbox) in waiting {
            outbox.each_shared(|address, length| _ = frames.insert(address, length as u64));
        }
        frames.values().sum()
    }

    /// Cuts the connections for which the most bytes wait, until the node holds no more than it may.
    fn cut_greediest(&self, waiting: &mut Vec<(u64, Arc<Outbox>)>, log: &mut LogInterval) {
        let mut excess = self.budget.used().saturating_sub(self.budget.limit());
        if excess == 0 {
            return;
        }
        waiting.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        let mut count = 0;
        for (bytes, outbox) in waiting.iter().take_while(|(bytes, _)| *bytes > 0) {
            if excess == 0 {
                break;
            }
            outbox.abort();
            self.note_cut("memory");
            excess = excess.saturating_sub(*bytes);
            count += 1;
        }
        waiting.drain(..count);
        if count > 0 && log.is_due() {
            tracing::warn!(
                connections = count,
                limit = self.budget.limit(),
                "cut connections with the most unread bytes: the gateway holds as many as it may (limits.memory)"
            );
        }
    }

    fn note_cut(&self, reason: &'static str) {
        self.cut.get_or_create(&ReasonLabel { reason }).inc();
    }
}
