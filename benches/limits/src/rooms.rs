//! Who is where, and where each job stands.

use std::collections::HashMap;

use crate::{clock::Moment, socketio::RoomName};

/// Names a room. Rooms live as long as the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomId(usize);

impl RoomId {
    /// A small number of its own.
    pub fn index(self) -> usize {
        self.0
    }
}

/// The room of all jobs.
const ALL_JOBS: RoomId = RoomId(0);

/// A job's newest number, and its room.
#[derive(Debug)]
struct Job {
    seq: u64,
    room: RoomId,
}

/// All rooms with their members, which are connections by their keys.
#[derive(Debug)]
pub struct Rooms {
    members: Vec<Vec<usize>>,
    jobs: HashMap<Box<str>, Job>,
    users: HashMap<Box<str>, RoomId>,
}

impl Rooms {
    pub fn new() -> Self {
        Self { members: vec![Vec::new()], jobs: HashMap::new(), users: HashMap::new() }
    }

    /// The number of a job's next event, and the rooms that it reaches.
    pub fn next_event(&mut self, job: &str, user: Option<&str>, at: &Moment) -> (u64, Reached) {
        let user = user.and_then(|user| self.users.get(user)).copied();
        let job = self.job(job);
        job.seq = if job.seq == 0 { at.millis } else { job.seq + 1 };
        (job.seq, Reached([Some(job.room), user, Some(ALL_JOBS)]))
    }

    fn job(&mut self, job: &str) -> &mut Job {
        if !self.jobs.contains_key(job) {
            let room = new_room(&mut self.members);
            self.jobs.insert(job.into(), Job { seq: 0, room });
        }
        self.jobs.get_mut(job).expect("it is there by now")
    }

    /// The connections in a room.
    pub fn members(&self, room: RoomId) -> &[usize] {
        &self.members[room.0]
    }

    /// Puts a connection into a room that it is not in.
    pub fn join(&mut self, room: RoomId, member: usize) {
        self.members[room.0].push(member);
    }

    /// Takes a connection out of a room.
    pub fn leave(&mut self, room: RoomId, member: usize) {
        let members = &mut self.members[room.0];
        if let Some(place) = members.iter().position(|&other| other == member) {
            members.swap_remove(place);
        }
    }

    /// The room of this name.
    pub fn room(&mut self, name: RoomName<'_>) -> RoomId {
        match name {
            RoomName::Job(job) => self.job(job).room,
            RoomName::User(user) => match self.users.get(user) {
                Some(&room) => room,
                None => {
                    let room = new_room(&mut self.members);
                    self.users.insert(user.into(), room);
                    room
                }
            },
            RoomName::AllJobs => ALL_JOBS,
        }
    }
}

fn new_room(members: &mut Vec<Vec<usize>>) -> RoomId {
    members.push(Vec::new());
    RoomId(members.len() - 1)
}

/// The rooms that an event reaches.
#[derive(Debug, Clone, Copy)]
pub struct Reached([Option<RoomId>; 3]);

impl IntoIterator for Reached {
    type Item = RoomId;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<RoomId>, 3>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}
