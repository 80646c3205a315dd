//! All that writes. On disk two threads take turns: while one waits for the disk to sync a group of requests, the other
//! decides the next. In memory there is nothing to wait for, so each caller writes for itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{changes::Pending, committer::Committer, decider::Decider};
use crate::{
    access::Revocation,
    budget::Reservation,
    store::{Accepted, Append, AppendError, FeedItem, FeedSender, StoreError, feed::Places},
    timestamp::Timestamp,
};

/// How many requests share one commit. Publishers wait together for the disk, so that the more of them there
/// are, the less each of them costs.
const GROUP: usize = 256;

/// What became of each of several drafts.
pub type Outcomes = Vec<Result<Accepted, AppendError>>;

/// Whether a revocation is kept.
pub type Kept = Result<bool, StoreError>;

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Accept drafts. `held` counts their bytes until they are committed.
    Append { appends: Vec<Append>, held: Option<Reservation>, answer: oneshot::Sender<Outcomes> },
    /// Keep a revocation, and say whether it is kept.
    Revoke { revocation: Revocation, answer: oneshot::Sender<Kept> },
    /// Remove a slice of what has expired by now, and say whether there may be more.
    Sweep { now: Timestamp, answer: oneshot::Sender<bool> },
    /// Try whether the disk takes writes again.
    Recover,
    /// Take no more requests, finish those that wait, and end.
    Stop,
}

/// Requests that are committed together, and who is answered then.
#[derive(Default)]
struct Group {
    pending: Pending,
    appends: Vec<(oneshot::Sender<Outcomes>, Outcomes, Option<Reservation>)>,
    revocations: Vec<(oneshot::Sender<Kept>, Kept)>,
    sweeps: Vec<(oneshot::Sender<bool>, bool)>,
}

/// Writes. Whoever decides holds the decider, and takes the committer before letting go of it, so that groups are
/// committed in the order in which they were decided.
#[derive(Debug)]
pub struct Writer {
    pub decider: Mutex<Decider>,
    pub committer: Mutex<Committer>,
    pub feed: FeedSender,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Accepts drafts at once. `places` are for their events on the feed.
    pub fn append(&self, appends: Vec<Append>, mut places: Option<Places<'_>>) -> Outcomes {
        let mut decider = lock(&self.decider);
        let mut pending = Pending::default();
        let accept = |append| decider.accept(&mut pending, append);
        let outcomes = appends.into_iter().map(accept).collect();
        let decided = decider.finish(pending);
        let tell = |item| {
            if let Some(places) = &mut places {
                places.send(item);
            }
        };
        let committed = lock(&self.committer).commit(decided, tell);
        answered(outcomes, &committed)
    }

    /// Keeps a revocation at once, and says whether it is kept.
    pub fn revoke(&self, revocation: &Revocation) -> Result<bool, StoreError> {
        let mut decider = lock(&self.decider);
        let mut pending = Pending::default();
        let kept = decider.revoke(&mut pending, revocation)?;
        let decided = decider.finish(pending);
        lock(&self.committer).commit(decided, |_| {}).map(|()| kept)
    }

    /// Removes a slice of what has expired by now at once, and says whether there may be more.
    pub fn sweep(&self, now: Timestamp) -> bool {
        let mut decider = lock(&self.decider);
        let mut pending = Pending::default();
        let more = sweep(&mut decider, &mut pending, now);
        let decided = decider.finish(pending);
        lock(&self.committer).commit(decided, |_| {}).is_ok() && more
    }

    /// Works on one of the threads until it is told to stop, or nobody is left who could ask for anything.
    pub fn run(&self, queue: &Mutex<mpsc::Receiver<Request>>) {
        let mut requests = Vec::with_capacity(GROUP);
        loop {
            let mut queue = lock(queue);
            if queue.blocking_recv_many(&mut requests, GROUP) == 0 {
                return;
            }
            let mut decider = lock(&self.decider);
            // First, for what turns up by it counts for all that is decided in this group.
            let recovering = requests.iter().any(|request| matches!(request, Request::Recover));
            let recovered = recovering.then(|| self.recover(&mut decider));
            let mut group = Group::default();
            group.decide(&mut decider, &mut queue, &mut requests);
            let mut committer = recovered.unwrap_or_else(|| lock(&self.committer));
            // What has come while the group before this one was synced goes along.
            requests.extend(std::iter::from_fn(|| queue.try_recv().ok()).take(GROUP));
            group.decide(&mut decider, &mut queue, &mut requests);
            let Group { pending, appends, revocations, sweeps } = group;
            let decided = decider.finish(pending);
            drop(decider);
            drop(queue);
            let committed = committer.commit(decided, |item| self.tell(item));
            // Whoever asked may have gone; what is committed stays.
            for (answer, outcomes, held) in appends {
                drop(held);
                let _ = answer.send(answered(outcomes, &committed));
            }
            for (answer, kept) in revocations {
                let _ = answer.send(committed.clone().and(kept));
            }
            for (answer, more) in sweeps {
                let _ = answer.send(more && committed.is_ok());
            }
        }
    }

    /// Ends an outage, if it can be ended by now. By then the last group that was decided before has failed.
    pub fn recover(&self, decider: &mut Decider) -> MutexGuard<'_, Committer> {
        let mut committer = lock(&self.committer);
        if committer.recover(|item| self.tell(item)) {
            let index = lock(&committer.index);
            decider.reset(index.jobs(), index.end());
        }
        committer
    }

    /// Sends something on the feed. A closed one means that the gateway is gone: events are in history all the same.
    fn tell(&self, item: FeedItem) {
        let _there = self.feed.blocking_send(item);
    }
}

impl Group {
    fn decide(
        &mut self,
        decider: &mut Decider,
        queue: &mut mpsc::Receiver<Request>,
        requests: &mut Vec<Request>,
    ) {
        for request in requests.drain(..) {
            match request {
                Request::Append { appends, held, answer } => {
                    let accept = |append| decider.accept(&mut self.pending, append);
                    self.appends.push((answer, appends.into_iter().map(accept).collect(), held));
                }
                Request::Revoke { revocation, answer } => {
                    self.revocations.push((answer, decider.revoke(&mut self.pending, &revocation)));
                }
                Request::Sweep { now, answer } => {
                    self.sweeps.push((answer, sweep(decider, &mut self.pending, now)));
                }
                // In the middle of a group it is too late; it is asked for again.
                Request::Recover => {}
                Request::Stop => queue.close(),
            }
        }
    }
}

fn sweep(decider: &mut Decider, pending: &mut Pending, now: Timestamp) -> bool {
    decider.sweep(pending, now).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not remove what has expired");
        false
    })
}

/// What publishers are told, once it is known whether the group is committed.
fn answered(outcomes: Outcomes, committed: &Result<(), StoreError>) -> Outcomes {
    match committed {
        Ok(()) => outcomes,
        Err(error) => outcomes.into_iter().map(|_| Err(error.clone().into())).collect(),
    }
}
