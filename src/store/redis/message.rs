//! What a channel carries of an event: where it stands in its rooms, and its JSON.
//!
//! `j 1795892034735-0 - 1795892034735-3 {…}` says whether it is brought for its job's room (`j` or `-`); then come the
//! ids of its entries in the logs of its user's room, its tenant's and that of all jobs (`-` for none), and its JSON.
//! `publish.lua` writes it, and `room_log.lua` does with what [`around_id`] gives it.

use super::log::LARGEST;
use crate::{
    event::JobEvent,
    position::{Position, Positions},
    room::Room,
    store::Arrival,
    timestamp::Timestamp,
};

/// Reads a message, without the JSON; `None` where it has another form.
pub fn read(message: &str) -> Option<(Positions, &str)> {
    let mut parts = message.splitn(5, ' ');
    let job = match parts.next()? {
        "j" => true,
        "-" => false,
        _ => return None,
    };
    let mut entry = || match parts.next()? {
        "-" => Some(None),
        id => position(id).map(Some),
    };
    let positions = Positions { job, user: entry()?, tenant: entry()?, all_jobs: entry()? };
    Some((positions, parts.next()?))
}

/// The event of a message; `None` where nobody here wrote it. Its number is one that every program reads: a larger one would
/// hide all that follows in its room.
pub fn arrival(positions: Positions, json: &str) -> Option<Arrival> {
    let event = JobEvent::parse(json.to_owned()).ok().filter(|event| event.seq() <= LARGEST)?;
    Some(Arrival { event, positions })
}

/// What comes before the entry's id in a message for a shared room alone, and what comes between it and the JSON.
pub fn around_id(room: &Room) -> (&'static str, &'static str) {
    match room {
        Room::User(_) => ("- ", " - - "),
        Room::Tenant(_) => ("- - ", " - "),
        Room::AllJobs | Room::Job(_) => ("- - - ", " "),
    }
}

/// The position of an entry of a stream. Ids count from 0 in each millisecond. `None` for a time that no client could ask for
/// again.
pub fn position(id: &str) -> Option<Position> {
    let (millis, number) = id.split_once('-')?;
    let time = Timestamp::from_millis(millis.parse().ok()?)?;
    Some(Position::of_entry(time.millis(), number.parse::<u64>().ok()?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(id: Option<(u64, u64)>) -> String {
        id.map_or("-".to_owned(), |(millis, number)| format!("{millis}-{number}"))
    }

    #[test]
    fn other_texts_are_no_messages() {
        for text in ["", "j", "j - - -", "x - - - {}", "j - 1 - {}", "j - - 1-18446744073709551615 {}", "{}"]
        {
            assert!(read(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn positions_are_read_as_they_are_written(
            job: bool,
            ids in proptest::array::uniform3(proptest::option::of((0..253_402_300_800_000_u64, 0..u64::MAX))),
            json in "[^\n]{0,40}",
        ) {
            let [user, tenant, all_jobs] = ids.map(written);
            let message = format!("{} {user} {tenant} {all_jobs} {json}", if job { 'j' } else { '-' });
            let [user, tenant, all_jobs] =
                ids.map(|id| id.map(|(millis, number)| Position::of_entry(millis, number + 1)));
            prop_assert_eq!(read(&message), Some((Positions { job, user, tenant, all_jobs }, json.as_str())));
        }

        #[test]
        fn a_room_gets_its_own_position(millis in 0..253_402_300_800_000_u64, number in 0..u64::MAX) {
            let position = Position::of_entry(millis, number + 1);
            for room in [Room::User("u".parse().unwrap()), Room::Tenant("t".parse().unwrap()), Room::AllJobs] {
                let (before, after) = around_id(&room);
                let message = format!("{before}{millis}-{number}{after}{{}}");
                prop_assert_eq!(read(&message), Some((Positions::in_room(&room, position), "{}")));
            }
        }
    }
}
