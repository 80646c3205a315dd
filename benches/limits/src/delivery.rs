//! What the two modes have in common: a way for the frames of events to reach the members of rooms.

use slab::Slab;

use crate::{
    connection::Connection,
    rooms::{Reached, Rooms},
};

/// Brings frames to sockets. A connection that is in several of the rooms that an event reaches gets it once.
pub trait Delivery: Default {
    /// Takes an event's frame.
    fn take(&mut self, frame: &[u8], reached: Reached, rooms: &Rooms, connections: &mut Slab<Connection>);

    /// Whatever could be read in this turn of the loop was read and taken.
    fn end_turn(&mut self, rooms: &Rooms, connections: &mut Slab<Connection>);
}
