//! One system call per socket and turn, with all that the turn has brought for it.

use std::ops::Range;

use slab::Slab;

use crate::{
    connection::Connection,
    delivery::Delivery,
    rooms::{Reached, RoomId, Rooms},
};

/// What a room keeps of its buffer's memory after a burst, in bytes.
const KEPT: usize = 64 * 1024;

/// Collects the frames of a turn by room, and writes them at its end.
#[derive(Debug, Default)]
pub struct Coalesce {
    turns: u64,
    /// The frames of this turn, one after the other, and where each of them lies.
    frames: Vec<u8>,
    places: Vec<Range<usize>>,
    /// By room, what this turn has brought.
    runs: Vec<Run>,
    /// The rooms whose runs are not empty.
    touched: Vec<RoomId>,
    /// What a member of several of them gets.
    merged: Merged,
}

/// The frames of one turn that reach one room.
#[derive(Debug, Default)]
struct Run {
    /// Built once, for all members that are in no other room that has something.
    bytes: Vec<u8>,
    /// Which of the turn's frames they are, in order.
    frames: Vec<usize>,
}

impl Delivery for Coalesce {
    fn take(&mut self, frame: &[u8], reached: Reached, rooms: &Rooms, _connections: &mut Slab<Connection>) {
        let number = self.places.len();
        let start = self.frames.len();
        for room in reached {
            if rooms.members(room).is_empty() {
                continue;
            }
            let run = self.run(room);
            run.bytes.extend_from_slice(frame);
            run.frames.push(number);
            let is_new = run.frames.len() == 1;
            if is_new {
                self.touched.push(room);
            }
        }
        self.frames.extend_from_slice(frame);
        self.places.push(start..self.frames.len());
    }

    fn end_turn(&mut self, rooms: &Rooms, connections: &mut Slab<Connection>) {
        self.turns += 1;
        for &room in &self.touched {
            for &member in rooms.members(room) {
                let connection = &mut connections[member];
                let mut others = connection.rooms().iter().filter(|&&other| other != room);
                if !others.any(|&other| self.has_something(other)) {
                    connection.send(&self.runs[room.index()].bytes);
                } else if connection.is_first_in(self.turns) {
                    let runs = connection.rooms().iter().filter_map(|room| self.runs.get(room.index()));
                    let bytes = self.merged.of(runs, &self.frames, &self.places);
                    connection.send(bytes);
                }
            }
        }
        self.clear();
    }
}

impl Coalesce {
    fn run(&mut self, room: RoomId) -> &mut Run {
        if self.runs.len() <= room.index() {
            self.runs.resize_with(room.index() + 1, Run::default);
        }
        &mut self.runs[room.index()]
    }

    fn has_something(&self, room: RoomId) -> bool {
        self.runs.get(room.index()).is_some_and(|run| !run.frames.is_empty())
    }

    fn clear(&mut self) {
        for room in self.touched.drain(..) {
            let run = &mut self.runs[room.index()];
            run.frames.clear();
            run.bytes.clear();
            run.bytes.shrink_to(KEPT);
        }
        self.places.clear();
        self.frames.clear();
    }
}

/// The union of several runs.
#[derive(Debug, Default)]
struct Merged {
    bytes: Vec<u8>,
    frames: Vec<usize>,
}

impl Merged {
    fn of<'a>(
        &mut self,
        runs: impl Iterator<Item = &'a Run>,
        frames: &[u8],
        places: &[Range<usize>],
    ) -> &[u8] {
        self.frames.clear();
        self.frames.extend(runs.flat_map(|run| &run.frames));
        self.frames.sort_unstable();
        self.frames.dedup();
        self.bytes.clear();
        for &frame in &self.frames {
            self.bytes.extend_from_slice(&frames[places[frame].clone()]);
        }
        &self.bytes
    }
}
