//! Which channels are wanted, and which of them some connection brings.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{error::Error, slot_map::Slot};

/// How long a caller waits for a channel to be confirmed.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a channel that nobody needs stays subscribed, so that coming and going costs little.
const LINGER: Duration = Duration::from_secs(5);

/// Names one connection; never given to another one.
pub type ConnectionId = u64;

/// The channels that are wanted.
#[derive(Debug)]
pub struct Subscriptions {
    state: Mutex<State>,
    /// Bumped when something is wanted that no connection brings.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<String, Channel>,
    /// Those that no connection brings yet, or any more.
    missing: HashSet<String>,
    /// The connections that have not ended.
    connections: HashSet<ConnectionId>,
}

#[derive(Debug)]
struct Channel {
    slot: Slot,
    wanted: usize,
    /// Since when nobody has wanted it.
    idle_since: Instant,
    /// The connection that brings it.
    brought_by: Option<ConnectionId>,
    /// Whether a connection that brought it was lost, and none has brought it since.
    lost: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Channel {
    fn is_idle(&self) -> bool {
        self.wanted == 0 && self.idle_since.elapsed() >= LINGER
    }
}

impl Subscriptions {
    pub fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a channel once more, and waits until it is brought.
    pub async fn want(&self, channel: &str) -> Result<(), Error> {
        let Some(confirmation) = self.note(channel) else { return Ok(()) };
        match tokio::time::timeout(DEADLINE, confirmation).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::NotSubscribed),
        }
    }

    /// Wants a channel once more. What is answered resolves when it is brought; `None` where it is already.
    pub fn note(&self, channel: &str) -> Option<oneshot::Receiver<()>> {
        let (confirm, confirmation) = oneshot::channel();
        {
            let mut state = self.state();
            let (slot, idle_since) = (Slot::of(channel), Instant::now());
            let wanted = state.channels.entry(channel.to_owned()).or_insert_with(|| Channel {
                slot,
                wanted: 0,
                idle_since,
                brought_by: None,
                lost: false,
                waiting: Vec::new(),
            });
            wanted.wanted += 1;
            if wanted.brought_by.is_some() {
                return None;
            }
            wanted.waiting.retain(|waiting| !waiting.is_closed());
            wanted.waiting.push(confirm);
            state.missing.insert(channel.to_owned());
        }
        self.changed.send_modify(|version| *version += 1);
        Some(confirmation)
    }

    /// Wants a channel once less.
    pub fn unwant(&self, channel: &str) {
        if let Some(channel) = self.state().channels.get_mut(channel) {
            channel.wanted = channel.wanted.saturating_sub(1);
            channel.idle_since = Instant::now();
        }
    }

    /// How many channels are wanted, or were a moment ago.
    pub fn count(&self) -> usize {
        self.state().channels.len()
    }

    /// Resolves with every change of what is wanted.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The channels that no connection brings and whose slot is in the given set.
    pub fn missing(&self, in_reach: impl Fn(Slot) -> bool) -> Vec<String> {
        let state = self.state();
        let reachable =
            |name: &&String| state.channels.get(*name).is_some_and(|channel| in_reach(channel.slot));
        state.missing.iter().filter(reachable).cloned().collect()
    }

    /// Whether a connection brings a channel whose slot is not in the given set any more.
    pub fn is_misplaced(&self, connection: ConnectionId, in_reach: impl Fn(Slot) -> bool) -> bool {
        let misplaced = |channel: &Channel| channel.brought_by == Some(connection) && !in_reach(channel.slot);
        self.state().channels.values().any(misplaced)
    }

    /// Whether this connection brings the channel.
    pub fn is_brought_by(&self, connection: ConnectionId, channel: &str) -> bool {
        self.state().channels.get(channel).is_some_and(|channel| channel.brought_by == Some(connection))
    }

    /// A connection begins.
    pub fn begin(&self, connection: ConnectionId) {
        self.state().connections.insert(connection);
    }

    /// A connection confirms no channel any more. Answers those that it brought.
    pub fn end(&self, connection: ConnectionId) -> Vec<String> {
        let mut state = self.state();
        state.connections.remove(&connection);
        let brought = state.channels.iter().filter(|(_, channel)| channel.brought_by == Some(connection));
        brought.map(|(name, _)| name.clone()).collect()
    }

    /// A connection brings a channel from now on. Says whether it had been lost.
    pub fn confirm(&self, connection: ConnectionId, name: &str) -> bool {
        let mut state = self.state();
        if !state.connections.contains(&connection) {
            return false;
        }
        let Some(channel) = state.channels.get_mut(name) else { return false };
        channel.brought_by = Some(connection);
        let lost = std::mem::take(&mut channel.lost);
        for waiting in channel.waiting.drain(..) {
            // Who no longer waits has taken the wish back, or will.
            let _ = waiting.send(());
        }
        state.missing.remove(name);
        lost
    }

    /// Others may bring what a connection brought that has ended.
    pub fn lose(&self, connection: ConnectionId) {
        let mut state = self.state();
        let State { channels, missing, .. } = &mut *state;
        for (name, channel) in
            channels.iter_mut().filter(|(_, channel)| channel.brought_by == Some(connection))
        {
            (channel.brought_by, channel.lost) = (None, true);
            missing.insert(name.clone());
        }
        drop(state);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Forgets the channels that nobody has wanted for a while, of those that this connection brings, or that none does.
    pub fn forget_idle(&self, connection: Option<ConnectionId>) -> Vec<String> {
        let mut state = self.state();
        let idle =
            state.channels.extract_if(|_, channel| channel.brought_by == connection && channel.is_idle());
        let idle: Vec<String> = idle.map(|(name, _)| name).collect();
        idle.iter().for_each(|name| {
            state.missing.remove(name);
        });
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everywhere(_: Slot) -> bool {
        true
    }

    #[test]
    fn a_channel_is_missing_until_it_is_brought_and_lost_with_its_connection() {
        let subscriptions = Subscriptions::new();
        (1..=2).for_each(|connection| subscriptions.begin(connection));
        let mut confirmation = subscriptions.note("a").unwrap();
        assert_eq!(subscriptions.missing(everywhere), ["a"]);
        assert!(subscriptions.missing(|slot| slot != Slot::of("a")).is_empty());
        assert!(!subscriptions.confirm(1, "a"), "it was never brought");
        assert!(confirmation.try_recv().is_ok() && subscriptions.note("a").is_none());
        assert!(subscriptions.is_misplaced(1, |slot| slot != Slot::of("a")));
        assert_eq!(subscriptions.end(1), ["a"]);
        subscriptions.lose(1);
        assert!(!subscriptions.confirm(1, "a"), "it has ended");
        assert!(!subscriptions.is_brought_by(1, "a"));
        assert_eq!(subscriptions.missing(everywhere), ["a"]);
        assert!(subscriptions.confirm(2, "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_is_forgotten_after_a_while() {
        let subscriptions = Subscriptions::new();
        subscriptions.begin(1);
        assert!(subscriptions.want("a").await.is_err(), "nobody confirms");
        subscriptions.confirm(1, "a");
        subscriptions.want("a").await.unwrap();
        subscriptions.unwant("a");
        tokio::time::advance(LINGER).await;
        assert!(subscriptions.forget_idle(Some(1)).is_empty(), "it is wanted once more");
        subscriptions.unwant("a");
        assert!(subscriptions.forget_idle(Some(1)).is_empty(), "not yet");
        tokio::time::advance(LINGER).await;
        assert!(subscriptions.forget_idle(None).is_empty(), "a connection brings it");
        assert_eq!(subscriptions.forget_idle(Some(1)), ["a"]);
        assert_eq!(subscriptions.count(), 0);
    }
}
