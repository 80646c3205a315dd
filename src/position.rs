//! Positions: the places in a room's log (contract, section 2).

use std::{fmt, str::FromStr};

use serde_json::value::RawValue;

use crate::{
    event::{JobEvent, Seq},
    room::Room,
    timestamp::Timestamp,
};

/// A place in the log of one room. Positions of one room compare by their order in its log; those of different rooms
/// have no order.
///
/// In a job's room the position of an event is its `seq`. In a shared room it is a time in Unix milliseconds, at or
/// after the acceptance of the event and of all before it, and a number from 1 on that tells entries of one
/// millisecond apart. So the number 0 stands for the place right before the first entry of a millisecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    major: u64,
    minor: u64,
}

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a position such as \"1795892034735-0\", an RFC 3339 time or Unix milliseconds, got {0:?}")]
pub struct InvalidPosition(String);

impl Position {
    /// Before everything.
    pub const START: Position = Position { major: 0, minor: 0 };

    /// The position of an event in its job's room.
    pub const fn of_seq(seq: Seq) -> Self {
        Self { major: seq, minor: 0 }
    }

    /// The position of an entry in a shared room; `number` counts from 1.
    pub const fn of_entry(millis: u64, number: u64) -> Self {
        Self { major: millis, minor: number }
    }

    /// The position in a shared room right before whatever was accepted at this time or later.
    pub fn before(time: Timestamp) -> Self {
        Self { major: time.millis(), minor: 0 }
    }

    /// In a job's room: the number.
    pub fn seq(self) -> Seq {
        self.major
    }

    /// In a shared room: the time, in Unix milliseconds.
    pub fn millis(self) -> u64 {
        self.major
    }

    /// In a shared room: which entry of its millisecond it is; 0 where it is none but a time.
    pub fn number(self) -> u64 {
        self.minor
    }
}

/// The form that crosses the wire for shared rooms.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.major, self.minor)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    /// Reads a position of a shared room, or a time, which stands for the place right before it.
    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let invalid = || InvalidPosition(text.chars().take(64).collect());
        let digits = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse::<u64>().ok(),
            false => None,
        };
        if let Some((millis, number)) = text.split_once('-')
            && let (Some(millis), Some(number)) = (digits(millis), digits(number))
        {
            return match Timestamp::from_millis(millis) {
                Some(_) => Ok(Self { major: millis, minor: number }),
                None => Err(invalid()),
            };
        }
        text.parse().map(Self::before).map_err(|_| invalid())
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where an event stands in the logs of its rooms, as far as whoever brings it knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Positions {
    /// Whether it is brought for its job's room.
    pub job: bool,
    /// In the room of its user.
    pub user: Option<Position>,
    /// In the room of its tenant.
    pub tenant: Option<Position>,
    /// In the room of all jobs.
    pub all_jobs: Option<Position>,
}

impl Positions {
    /// In its job's room alone.
    pub const JOB: Positions = Positions { job: true, user: None, tenant: None, all_jobs: None };

    /// In one room alone.
    pub fn in_room(room: &Room, position: Position) -> Self {
        let mut positions = Self::default();
        match room {
            Room::Job(_) => positions.job = true,
            Room::User(_) => positions.user = Some(position),
            Room::Tenant(_) => positions.tenant = Some(position),
            Room::AllJobs => positions.all_jobs = Some(position),
        }
        positions
    }

    /// Where an event stands in the log of one of its rooms.
    pub fn in_log_of(&self, room: &Room, event: &JobEvent) -> Option<Position> {
        match room {
            Room::Job(_) => self.job.then(|| Position::of_seq(event.seq())),
            Room::User(_) => self.user,
            Room::Tenant(_) => self.tenant,
            Room::AllJobs => self.all_jobs,
        }
    }

    /// The rooms that an event is brought for, and where it stands in each.
    pub fn rooms<'a>(&'a self, event: &'a JobEvent) -> impl Iterator<Item = (Room, Position)> + 'a {
        event.rooms().filter_map(|room| self.in_log_of(&room, event).map(|position| (room, position)))
    }
}

/// Some of the rooms that an event reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomSet(u8);

impl RoomSet {
    /// How many different sets there are.
    pub const COUNT: usize = 16;

    /// The set of one room.
    pub fn of(room: &Room) -> Self {
        Self(match room {
            Room::Job(_) => 1,
            Room::User(_) => 2,
            Room::Tenant(_) => 4,
            Room::AllJobs => 8,
        })
    }

    /// The rooms of both.
    #[must_use]
    pub fn with(self, other: RoomSet) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells sets apart: less than [`RoomSet::COUNT`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    fn contains(self, room: &Room) -> bool {
        self.0 & Self::of(room).0 != 0
    }
}

impl Positions {
    /// The second argument of an event that reaches a client by these rooms (contract, section 2): an object of shared
    /// room and position. `None` where none of them is shared.
    pub fn to_json(self, event: &JobEvent, rooms: RoomSet) -> Option<Box<RawValue>> {
        write_json(self.rooms(event).filter(|(room, _)| rooms.contains(room)))
    }
}

impl Position {
    /// The same for a place in one room.
    pub fn to_json(self, room: &Room) -> Option<Box<RawValue>> {
        write_json(std::iter::once((room.clone(), self)))
    }
}

fn write_json(positions: impl Iterator<Item = (Room, Position)>) -> Option<Box<RawValue>> {
    let shared = positions.filter(|(room, _)| !matches!(room, Room::Job(_)));
    // The names of rooms need no escapes.
    let members: Vec<_> = shared.map(|(room, position)| format!("\"{room}\":\"{position}\"")).collect();
    match members.is_empty() {
        true => None,
        false => RawValue::from_string(format!("{{{}}}", members.join(","))).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_positions_before_their_entries() {
        let time = Timestamp::from_millis(1_700_000_000_123).unwrap();
        for written in ["1700000000123", "2023-11-14T22:13:20.123Z", "1700000000123-0"] {
            assert_eq!(written.parse(), Ok(Position::before(time)), "{written}");
        }
        assert!(Position::before(time) < Position::of_entry(time.millis(), 1));
        assert!(Position::of_entry(time.millis() - 1, 9) < Position::before(time));
    }

    #[test]
    fn refuses_other_forms() {
        for wrong in ["", "-", "1-", "-1", "1-2-3", "a-1", "1-a", "+1-1", "1.5-1", "99999999999999999999-1"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(millis in 0u64..253_402_300_799_999, number: u64) {
            let position = Position::of_entry(millis, number);
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }
    }
}
