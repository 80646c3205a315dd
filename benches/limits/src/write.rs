//! One system call per delivery, at once.

use slab::Slab;

use crate::{
    connection::Connection,
    delivery::Delivery,
    rooms::{Reached, Rooms},
};

/// Writes each frame to each socket as soon as it is there.
#[derive(Debug, Default)]
pub struct Write {
    events: u64,
}

impl Delivery for Write {
    fn take(&mut self, frame: &[u8], reached: Reached, rooms: &Rooms, connections: &mut Slab<Connection>) {
        self.events += 1;
        for room in reached {
            for &member in rooms.members(room) {
                let connection = &mut connections[member];
                if connection.is_first_in(self.events) {
                    connection.send(frame);
                }
            }
        }
    }

    fn end_turn(&mut self, _rooms: &Rooms, _connections: &mut Slab<Connection>) {}
}
