//! The decision at the heart: what an event means to a node that has delivered a job up to its live edge.

use crate::event::Seq;

/// What to do with an event that the feed brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The node knows nothing of the job yet: deliver, and begin the live edge here.
    First,
    /// Delivered before: drop.
    Duplicate,
    /// The one that is due: deliver and advance.
    Next,
    /// Something between is missing: fetch the history after `after` and deliver in order.
    Gap {
        /// The live edge.
        after: Seq,
    },
}

/// Decides by numbers alone. For every order in which copies arrive, following the steps delivers each number
/// beyond the first once and in order.
pub fn decide(live_edge: Option<Seq>, incoming: Seq) -> Step {
    match live_edge {
        None => Step::First,
        Some(edge) if incoming <= edge => Step::Duplicate,
        Some(edge) if incoming == edge + 1 => Step::Next,
        Some(after) => Step::Gap { after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_arrival_order_delivers_each_once_in_order(
            first in 1u64..1000,
            arrivals in prop::collection::vec(0u64..50, 1..200),
        ) {
            let history: Vec<Seq> = (first..first + 50).collect();
            let (mut edge, mut delivered) = (None, Vec::new());
            for incoming in arrivals.into_iter().map(|offset| first + offset) {
                match decide(edge, incoming) {
                    Step::Duplicate => {}
                    Step::First | Step::Next => {
                        delivered.push(incoming);
                        edge = Some(incoming);
                    }
                    Step::Gap { after } => {
                        delivered.extend(history.iter().copied().filter(|seq| (after + 1..=incoming).contains(seq)));
                        edge = Some(incoming);
                    }
                }
            }
            prop_assert!(delivered.windows(2).all(|pair| pair[1] == pair[0] + 1), "{delivered:?}");
            prop_assert_eq!(delivered.last().copied(), edge);
        }
    }
}
