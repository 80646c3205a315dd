//! The newest entries that this node has delivered, for those who could not take them in that moment: most of what they
//! miss needs no reading then, so that they catch up faster than new events come.

use std::collections::{HashMap, VecDeque};

use crate::{position::Position, room::Room, store::Arrival};

/// How much is remembered at the most, in bytes of events. The hub's model has little, so that it runs out.
const CAPACITY: usize = if cfg!(test) { 2000 } else { 4 << 20 };

/// What an entry takes besides its event.
const OVERHEAD: usize = 256;

/// The tails of rooms' logs.
#[derive(Default)]
pub struct Recent {
    tails: HashMap<Room, Tail>,
    /// The rooms of the entries, in the order in which they came, those of forgotten ones too.
    order: VecDeque<Room>,
    bytes: usize,
}

/// Entries of one room's log, without a hole.
struct Tail {
    /// The place right before the first of them.
    start: Position,
    entries: VecDeque<(Position, Arrival)>,
}

impl Tail {
    fn end(&self) -> Position {
        self.entries.back().map_or(self.start, |(position, _)| *position)
    }
}

impl Recent {
    /// Remembers an entry that follows on `previous` in a room's log. Where that is not the last one that is remembered,
    /// the entry is a beginning.
    pub fn push(&mut self, room: &Room, previous: Position, position: Position, arrival: &Arrival) {
        if self.tails.get(room).is_some_and(|tail| tail.end() != previous) {
            self.forget(room);
        }
        let tail = match self.tails.get_mut(room) {
            Some(tail) => tail,
            None => {
                self.tails.entry(room.clone()).or_insert(Tail { start: previous, entries: VecDeque::new() })
            }
        };
        tail.entries.push_back((position, arrival.clone()));
        self.order.push_back(room.clone());
        self.bytes += size(arrival);
        while (self.bytes > CAPACITY || self.order.len() > CAPACITY / OVERHEAD)
            && let Some(room) = self.order.pop_front()
        {
            self.drop_oldest(&room);
        }
    }

    fn drop_oldest(&mut self, room: &Room) {
        let Some(tail) = self.tails.get_mut(room) else { return };
        if let Some((position, arrival)) = tail.entries.pop_front() {
            tail.start = position;
            self.bytes -= size(&arrival);
        }
        if tail.entries.is_empty() {
            self.tails.remove(room);
        }
    }

    /// Forgets a room.
    pub fn forget(&mut self, room: &Room) {
        if let Some(tail) = self.tails.remove(room) {
            self.bytes -= tail.entries.iter().map(|(_, arrival)| size(arrival)).sum::<usize>();
        }
    }

    /// The entries of a room after a place, `limit` at the most; none where the next one is not remembered.
    pub fn after(&self, room: &Room, after: Position, limit: usize) -> Vec<(Position, Arrival)> {
        let Some(tail) = self.tails.get(room).filter(|tail| tail.start <= after) else { return Vec::new() };
        let passed = tail.entries.partition_point(|(position, _)| *position <= after);
        tail.entries.iter().skip(passed).take(limit).cloned().collect()
    }
}

fn size(arrival: &Arrival) -> usize {
    arrival.event.json().get().len() + OVERHEAD
}
