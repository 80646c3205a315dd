//! The decision at the heart: what an entry of a room's log means to a node that has delivered the log up to its live
//! edge.

use crate::{event::JobEvent, position::Position, timestamp::Timestamp};

/// How far this node has delivered the log of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveEdge {
    /// The place up to which all is delivered.
    pub position: Position,
    /// No event up to there has a later time.
    pub at: Timestamp,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Delivered before: drop it.
    Duplicate,
    /// Deliver it, and move the edge.
    Next,
    /// The same; the store has lost the log and begun it anew, with positions that were given before.
    Anew,
}

impl LiveEdge {
    /// Decides by position. Only a log that began anew has an entry at or below the edge that is younger than all that
    /// was delivered, for within a log times at or below a position do not exceed what was seen there.
    pub fn decide(&self, position: Position, event: &JobEvent) -> Step {
        match position > self.position {
            true => Step::Next,
            false if event.timestamp() > self.at => Step::Anew,
            false => Step::Duplicate,
        }
    }

    /// Moves to an entry that is delivered.
    pub fn advance(&mut self, position: Position, event: &JobEvent) {
        self.position = position;
        self.at = self.at.max(event.timestamp());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Owner};
    use proptest::prelude::*;

    fn event(seq: u64) -> JobEvent {
        let draft = Draft::update("j".parse().unwrap(), "s", None, Owner::default()).unwrap();
        draft.accept(&Owner::default(), Timestamp::from_millis(seq).unwrap(), seq)
    }

    proptest! {
        /// Copies may come at any time, as long as the log comes in order.
        #[test]
        fn a_log_that_comes_in_order_is_delivered_once(
            start in 0u64..20,
            jumps in prop::collection::vec(1u64..1000, 1..50),
            repeats in prop::collection::vec((0usize..50, 0usize..50), 0..50),
        ) {
            let log: Vec<u64> = jumps.iter().scan(start, |at, jump| { *at += jump; Some(*at) }).collect();
            let mut arrivals = log.clone();
            for (place, copy) in repeats {
                // A copy comes behind the first of its kind.
                let (place, copy) = (place % arrivals.len(), copy % (place % arrivals.len() + 1));
                arrivals.insert(place + 1, arrivals[copy]);
            }
            let first = Timestamp::from_millis(start).unwrap();
            let mut edge = LiveEdge { position: Position::of_seq(start), at: first };
            let mut delivered = Vec::new();
            for seq in arrivals {
                let (position, event) = (Position::of_seq(seq), event(seq));
                match edge.decide(position, &event) {
                    Step::Duplicate => {}
                    Step::Next => { delivered.push(seq); edge.advance(position, &event); }
                    Step::Anew => prop_assert!(false, "{seq} is no new log"),
                }
            }
            prop_assert_eq!(delivered, log);
        }
    }

    #[test]
    fn a_log_that_began_anew_shows_by_its_time() {
        let mut edge = LiveEdge { position: Position::of_seq(900), at: Timestamp::from_millis(500).unwrap() };
        let position = Position::of_seq(501);
        assert_eq!(edge.decide(Position::of_seq(500), &event(500)), Step::Duplicate);
        assert_eq!(edge.decide(position, &event(501)), Step::Anew);
        edge.advance(position, &event(501));
        assert_eq!(edge.decide(position, &event(501)), Step::Duplicate);
        assert_eq!(edge.decide(Position::of_seq(502), &event(502)), Step::Next);
    }
}
