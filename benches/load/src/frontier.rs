//! The closed loop: which events of one job all of its watchers have.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mio::Waker;

/// How many events all watchers have; shared with the publisher, whose turn it is when that grows.
#[derive(Clone)]
pub struct Complete {
    events: Arc<AtomicU64>,
    waker: Arc<Waker>,
}

impl Complete {
    /// None yet. `waker` is what the publisher waits on.
    pub fn new(waker: Waker) -> Self {
        Self { events: Arc::default(), waker: Arc::new(waker) }
    }

    /// How many events all watchers have by now.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }
}

/// Follows how far the watchers of one job are.
pub struct Frontier {
    watchers: u32,
    /// The number that `reached` begins at; unknown until the first delivery.
    next: Option<u64>,
    /// How many watchers are at or beyond each number from `next` on.
    reached: VecDeque<u32>,
    complete: u64,
    told: u64,
    shared: Complete,
}

impl Frontier {
    /// Of a job that so many watch.
    pub fn new(watchers: u32, shared: Complete) -> Self {
        Self { watchers, next: None, reached: VecDeque::new(), complete: 0, told: 0, shared }
    }

    /// One watcher went from number `after` (0: from nothing) to `seq`. What it skipped counts as reached: whether
    /// it was lost is for the tally to say, and must not hold up the others.
    pub fn reach(&mut self, after: u64, seq: u64) {
        let next = *self.next.get_or_insert(seq);
        let from = (after + 1).max(next);
        if seq < from {
            return;
        }
        let (from, end) = ((from - next) as usize, (seq - next) as usize + 1);
        if self.reached.len() < end {
            self.reached.resize(end, 0);
        }
        self.reached.range_mut(from..end).for_each(|count| *count += 1);
        while self.reached.front().is_some_and(|count| *count >= self.watchers) {
            self.reached.pop_front();
            self.next = self.next.map(|next| next + 1);
            self.complete += 1;
        }
    }

    /// Tells the publisher, if there is news.
    pub fn tell(&mut self) -> std::io::Result<()> {
        if self.complete == self.told {
            return Ok(());
        }
        self.told = self.complete;
        self.shared.events.store(self.complete, Ordering::Release);
        self.shared.waker.wake()
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;

    fn frontier(watchers: u32) -> (Frontier, Complete, Poll) {
        let poll = Poll::new().unwrap();
        let complete = Complete::new(Waker::new(poll.registry(), Token(0)).unwrap());
        (Frontier::new(watchers, complete.clone()), complete, poll)
    }

    #[test]
    fn an_event_is_complete_when_all_have_it() {
        let (mut frontier, complete, _poll) = frontier(2);
        frontier.reach(0, 10);
        frontier.reach(10, 11);
        frontier.tell().unwrap();
        assert_eq!(complete.events(), 0);
        frontier.reach(0, 10);
        frontier.tell().unwrap();
        assert_eq!(complete.events(), 1);
        frontier.reach(10, 11);
        frontier.tell().unwrap();
        assert_eq!(complete.events(), 2);
    }

    #[test]
    fn what_one_watcher_lost_holds_nobody_up() {
        let (mut frontier, complete, _poll) = frontier(2);
        frontier.reach(0, 10);
        frontier.reach(10, 14);
        (10..=14).for_each(|seq| frontier.reach(if seq == 10 { 0 } else { seq - 1 }, seq));
        frontier.tell().unwrap();
        assert_eq!(complete.events(), 5);
    }
}
