//! Which channels this node wants to hear, and which of them it does.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{keys::Keys, slots::Slot};
use crate::{room::Room, store::StoreError};

/// How long a caller waits for a channel to be confirmed.
const COVER_DEADLINE: Duration = Duration::from_secs(5);

/// How long a channel that nobody needs stays subscribed, so that coming and going costs little.
const LINGER: Duration = Duration::from_secs(5);

/// Names one connection of the feed; never given to another one.
pub type LineId = u64;

/// The channels of the rooms that are wanted, and that of broadcasts.
#[derive(Debug)]
pub struct Interest {
    keys: Keys,
    state: Mutex<State>,
    /// Bumped when something is wanted that no line brings.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    covers: HashMap<String, Cover>,
    /// The channels that no line brings yet, or any more.
    missing: HashSet<String>,
}

#[derive(Debug)]
struct Cover {
    slot: Slot,
    wanted: usize,
    /// Since when nobody has wanted it.
    idle_since: Instant,
    /// The line that brings it.
    line: Option<LineId>,
    /// Whether a line has brought it before: what came since has to be fetched.
    lost: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Cover {
    fn new(channel: &str) -> Self {
        let (slot, idle_since) = (Slot::of(channel), Instant::now());
        Self { slot, wanted: 0, idle_since, line: None, lost: false, waiting: Vec::new() }
    }

    fn is_idle(&self) -> bool {
        self.wanted == 0 && self.idle_since.elapsed() >= LINGER
    }
}

impl Interest {
    /// Wants the channel of broadcasts, and no other yet.
    pub fn new(keys: Keys) -> Self {
        let broadcast = keys.broadcast_channel();
        let mut state = State::default();
        state.missing.insert(broadcast.clone());
        let cover = Cover { wanted: 1, ..Cover::new(&broadcast) };
        state.covers.insert(broadcast, cover);
        Self { keys, state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a room once more, and waits until it is covered.
    pub async fn cover(&self, room: &Room) -> Result<(), StoreError> {
        let channel = self.keys.channel(room);
        let confirmation = {
            let mut state = self.state();
            let cover = state.covers.entry(channel.clone()).or_insert_with(|| Cover::new(&channel));
            cover.wanted += 1;
            if cover.line.is_some() {
                return Ok(());
            }
            let (confirm, confirmation) = oneshot::channel();
            cover.waiting.retain(|waiting| !waiting.is_closed());
            cover.waiting.push(confirm);
            state.missing.insert(channel);
            confirmation
        };
        self.changed.send_modify(|version| *version += 1);
        match tokio::time::timeout(COVER_DEADLINE, confirmation).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError("redis: the room's channel could not be subscribed in time".to_owned())),
        }
    }

    /// Wants a room once less.
    pub fn uncover(&self, room: &Room) {
        if let Some(cover) = self.state().covers.get_mut(&self.keys.channel(room)) {
            cover.wanted = cover.wanted.saturating_sub(1);
            cover.idle_since = Instant::now();
        }
    }

    /// How many rooms are wanted, or were a moment ago.
    pub fn rooms(&self) -> usize {
        self.state().covers.len().saturating_sub(1)
    }

    /// Resolves with every change of what is wanted.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The channels that no line brings and whose slot is in the given set.
    pub fn missing(&self, in_reach: impl Fn(Slot) -> bool) -> Vec<String> {
        let state = self.state();
        let reachable =
            |channel: &&String| state.covers.get(*channel).is_some_and(|cover| in_reach(cover.slot));
        state.missing.iter().filter(reachable).cloned().collect()
    }

    /// Whether a line brings a channel whose slot is not in the given set any more.
    pub fn is_misplaced(&self, line: LineId, in_reach: impl Fn(Slot) -> bool) -> bool {
        self.state().covers.values().any(|cover| cover.line == Some(line) && !in_reach(cover.slot))
    }

    /// Whether this line brings the channel.
    pub fn is_brought_by(&self, line: LineId, channel: &str) -> bool {
        self.state().covers.get(channel).is_some_and(|cover| cover.line == Some(line))
    }

    /// A line brings a channel from now on.
    pub fn confirm(&self, line: LineId, channel: &str) {
        let mut state = self.state();
        if let Some(cover) = state.covers.get_mut(channel) {
            (cover.line, cover.lost) = (Some(line), false);
            for waiting in cover.waiting.drain(..) {
                // Who no longer waits has uncovered, or will.
                let _ = waiting.send(());
            }
            state.missing.remove(channel);
        }
    }

    /// A line brings nothing any more.
    pub fn lose(&self, line: LineId) {
        let mut state = self.state();
        let State { covers, missing } = &mut *state;
        for (channel, cover) in covers.iter_mut().filter(|(_, cover)| cover.line == Some(line)) {
            (cover.line, cover.lost) = (None, true);
            missing.insert(channel.clone());
        }
    }

    /// Whether no channel that was brought before is missing now.
    pub fn is_whole(&self) -> bool {
        let state = self.state();
        !state.missing.iter().any(|channel| state.covers.get(channel).is_some_and(|cover| cover.lost))
    }

    /// Forgets the channels that nobody has wanted for a while, of those that this line brings, or that none does.
    pub fn forget_idle(&self, line: Option<LineId>) -> Vec<String> {
        let mut state = self.state();
        let idle = state.covers.extract_if(|_, cover| cover.line == line && cover.is_idle());
        let idle: Vec<String> = idle.map(|(channel, _)| channel).collect();
        idle.iter().for_each(|channel| {
            state.missing.remove(channel);
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

    #[tokio::test]
    async fn a_room_is_covered_while_a_line_brings_it() {
        let interest = Interest::new(Keys::new(""));
        let (room, channel) = (Room::AllJobs, Keys::new("").channel(&Room::AllJobs));
        let broadcast = Keys::new("").broadcast_channel();
        let confirm = async {
            interest.changes().wait_for(|version| *version > 0).await.unwrap();
            assert_eq!(interest.missing(everywhere).len(), 2);
            assert!(interest.missing(|slot| slot == Slot::of(&channel)).contains(&channel));
            interest.confirm(1, &channel);
        };
        let (covered, ()) = tokio::join!(interest.cover(&room), confirm);
        covered.unwrap();
        assert!(interest.is_brought_by(1, &channel) && interest.is_whole());
        assert!(interest.is_misplaced(1, |slot| slot != Slot::of(&channel)));
        interest.confirm(2, &broadcast);
        interest.lose(1);
        assert!(!interest.is_whole() && !interest.is_brought_by(1, &channel));
        assert_eq!(interest.missing(everywhere), std::slice::from_ref(&channel));
        interest.confirm(3, &channel);
        assert!(interest.is_whole() && interest.missing(everywhere).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_is_forgotten_after_a_while() {
        let interest = Interest::new(Keys::new(""));
        let channel = Keys::new("").channel(&Room::AllJobs);
        assert!(interest.cover(&Room::AllJobs).await.is_err(), "nobody confirms");
        interest.confirm(1, &channel);
        interest.cover(&Room::AllJobs).await.unwrap();
        interest.uncover(&Room::AllJobs);
        tokio::time::advance(LINGER).await;
        assert!(interest.forget_idle(Some(1)).is_empty(), "it is wanted once more");
        interest.uncover(&Room::AllJobs);
        assert!(interest.forget_idle(Some(1)).is_empty(), "not yet");
        tokio::time::advance(LINGER).await;
        assert!(interest.forget_idle(None).is_empty(), "a line brings it");
        assert_eq!(interest.forget_idle(Some(1)), [channel]);
        assert_eq!(interest.rooms(), 0);
    }
}
