//! The hub: which sessions of this node are in which room, how far each job is delivered, and who is behind.
//!
//! It is a plain state machine: no clock, no network, no await. Every rule that must hold is kept here, under one
//! lock that its owner holds for the length of one call.

mod by_time;
mod census;
mod fan_out;
mod interruption;
mod member;
mod recent;
mod round;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use indexmap::IndexSet;
use slotmap::{SlotMap, new_key_type};

pub use self::{
    census::Standing,
    interruption::Resync,
    round::{Round, Want},
};
use self::{
    interruption::Interruptions,
    member::{Cursor, Member},
    recent::Recent,
};
use super::outlet::Outlet;
use crate::{
    event::{JobEvent, Owner, Seq, rooms},
    id::{ClientId, JobId},
    room::Room,
    timestamp::Timestamp,
};

new_key_type! {
    /// Names a session of this node; never given to another one.
    pub struct SessionKey;
}

/// One attempt of a session to join a room.
pub type JoinId = u64;

/// Sessions, rooms and live edges of one node.
#[derive(Default)]
pub struct Hub {
    // Boxed, because the map has room for up to twice as many as there are.
    sessions: SlotMap<SessionKey, Box<Member>>,
    rooms: HashMap<Room, Occupants>,
    edges: HashMap<JobId, LiveEdge>,
    /// Tells deliveries apart, so that a session in several of an event's rooms gets it once.
    deliveries: u64,
    joins: JoinId,
    /// Sessions that have fallen behind and that nobody looks after yet.
    woken: Vec<(SessionKey, &'static str)>,
    /// Sessions that have taken something since they were flushed.
    unflushed: Vec<SessionKey>,
    interruptions: Interruptions,
    /// Of each job whose live edge has a gap the newest event, which waits while what came before it is fetched.
    filling: HashMap<JobId, JobEvent>,
    recent: Recent,
}

/// Who is in a room, and which jobs have a live edge because of it.
#[derive(Default)]
struct Occupants {
    live: IndexSet<SessionKey>,
    joining: Vec<SessionKey>,
    jobs: HashSet<JobId>,
}

/// How far this node has delivered a job that some joined room covers without interruption.
struct LiveEdge {
    seq: Seq,
    /// The largest number that any session has seen; larger than `seq` where history was further than the feed.
    seen: Seq,
    /// When the newest of the events was accepted that were delivered.
    at: Timestamp,
    owner: Owner,
    /// The joined rooms among whose jobs it is.
    rooms: Vec<Room>,
    /// Whether the job was active since the last sweep.
    active: bool,
}

impl LiveEdge {
    /// Within a job time does not run backwards: what is newer than all that was delivered is none of it.
    fn is_reused_by(&self, event: &JobEvent) -> bool {
        event.seq() <= self.seq && event.timestamp() > self.at
    }
}

/// What became of an event that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// Nothing more is to be done.
    Done,
    /// The history after this number has to be fetched and handed to [`Hub::fill`].
    Gap { after: Seq },
    /// The job has no live edge, and what came before the event may have been lost: where it begins since then has
    /// to be found in history, for [`Hub::adopt`], and then the event handed to [`Hub::place`].
    Unplaced { since: Timestamp },
    /// Its number was given twice: the store had lost the event that watchers have seen under it. It is delivered all
    /// the same.
    Reused,
}

/// What a catching-up session needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The history of a job after a number, for [`Hub::replay`].
    History { job: JobId, after: Seq },
    /// The history of all jobs that it is behind on, by time: [`Hub::begin_round`] until it is handed over.
    Round,
    /// Place for waiting notices, for [`Hub::flush_notices`].
    Notices,
}

/// What became of an attempt to hand a session what it needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether it had no place for all of it.
    pub full: bool,
    /// Whether it took some of a replay that it had asked for.
    pub asked: bool,
}

/// A job that a session starts to watch.
#[derive(Debug, Clone)]
pub struct Starting {
    /// The job's newest event, as told to the session.
    pub latest: JobEvent,
    /// Where to resume from, if that was asked for.
    pub after: Option<Seq>,
}

impl Hub {
    /// Adds a session that is in no room.
    pub fn connect(&mut self, outlet: Arc<dyn Outlet>, client: Option<ClientId>) -> SessionKey {
        self.sessions.insert(Box::new(Member::new(outlet, client)))
    }

    /// Removes a session, and tells which rooms it was in.
    pub fn disconnect(&mut self, key: SessionKey) -> Vec<Room> {
        let Some(member) = self.sessions.remove(key) else { return Vec::new() };
        for (_, room, _) in &member.joining {
            self.vacate(key, room, |occupants, key| drop_one(&mut occupants.joining, key));
        }
        for room in &member.live {
            self.vacate(key, room, |occupants, key| {
                occupants.live.swap_remove(&key);
            });
        }
        member.live.into_iter().collect()
    }

    /// In how many rooms a session is or is about to be.
    pub fn room_count(&self, key: SessionKey) -> usize {
        self.sessions.get(key).map_or(0, |member| member.live.len() + member.joining.len())
    }

    /// Whether a session is in a room.
    pub fn is_in(&self, key: SessionKey, room: &Room) -> bool {
        self.sessions.get(key).is_some_and(|member| member.is_in(room))
    }

    /// Begins to join: from now on the hub notes for this session what happens in the room, and delivers nothing
    /// of it until [`Hub::start`].
    pub fn begin_join(&mut self, key: SessionKey, room: &Room) -> Option<JoinId> {
        self.joins += 1;
        let member = self.sessions.get_mut(key)?;
        member.joining.push((self.joins, room.clone(), HashMap::new()));
        self.rooms.entry(room.clone()).or_default().joining.push(key);
        Some(self.joins)
    }

    /// Gives up joining.
    pub fn cancel_join(&mut self, key: SessionKey, join: JoinId) {
        if let Some((room, _)) = self.sessions.get_mut(key).and_then(|member| member.take_join(join)) {
            self.vacate(key, &room, |occupants, key| drop_one(&mut occupants.joining, key));
        }
    }

    /// Completes joining: everything after `jobs` reaches the session from here on, and nothing before does,
    /// except what it resumes from. Says whether the session was not in the room before.
    pub fn start(&mut self, key: SessionKey, join: JoinId, jobs: Vec<Starting>) -> bool {
        let Some(member) = self.sessions.get_mut(key) else { return false };
        let Some((room, mut noted)) = member.take_join(join) else { return false };
        for job in &jobs {
            noted.remove(job.latest.job());
            self.start_job(key, job);
        }
        let Some(member) = self.sessions.get_mut(key) else { return false };
        for (job, seq) in noted {
            if let Some(edge) = self.edges.get(&job) {
                member
                    .cursors
                    .entry(job.clone())
                    .or_insert_with(|| Cursor::new(seq - 1, edge.seq, &edge.owner));
                member.queue(job);
            }
        }
        let newly = member.enter(room.clone());
        self.await_fills(key);
        let occupants = self.rooms.entry(room).or_default();
        drop_one(&mut occupants.joining, key);
        occupants.live.insert(key);
        self.woken.push((key, "resume"));
        newly
    }

    fn start_job(&mut self, key: SessionKey, job: &Starting) {
        let Starting { latest, after } = job;
        let rooms = self.joined_rooms(latest);
        if let Some(edge) = self.edges.get(latest.job()) {
            // The room is among those that keep it from here on.
            self.advance(latest, edge.seq, &rooms);
        }
        let member = self.sessions.get(key);
        let watches = member.is_some_and(|member| rooms.iter().any(|room| member.is_in(room)));
        if watches && after.is_none() {
            return;
        }
        // With nobody else here, nothing that is on its way can be due to anybody: the edge may begin at once.
        let alone = || rooms.iter().all(|room| self.rooms.get(room).is_none_or(|at| at.live.is_empty()));
        if !self.edges.contains_key(latest.job()) && alone() {
            self.advance(latest, latest.seq(), &rooms);
        }
        let edge = self.edges.get(latest.job()).map(|edge| edge.seq);
        let mut seq = after.unwrap_or(latest.seq());
        let Some(member) = self.sessions.get_mut(key) else { return };
        let target = match edge {
            // History may be ahead of the feed, which brings the rest behind what is older of other jobs.
            Some(edge) if watches && member.is_ordered() => edge,
            _ => latest.seq().max(edge.unwrap_or(0)),
        };
        if watches && !member.cursors.contains_key(latest.job()) {
            // In step with the edge: it may ask to go back, but not to skip what is on its way to it.
            seq = seq.min(edge.unwrap_or(seq));
        }
        if edge == Some(seq) && !member.cursors.contains_key(latest.job()) {
            return;
        }
        let cursor = member
            .cursors
            .entry(latest.job().clone())
            .or_insert_with(|| Cursor::new(seq, target, latest.owner()));
        cursor.seq = cursor.seq.min(seq);
        cursor.target = cursor.target.max(target);
        if after.is_some() {
            cursor.asked = cursor.target;
        }
        member.queue(latest.job().clone());
    }

    /// Takes a session out of a room. Says whether it was there.
    pub fn leave(&mut self, key: SessionKey, room: &Room) -> bool {
        let Some(member) = self.sessions.get_mut(key) else { return false };
        if !member.exit(room) {
            return false;
        }
        let left = &member.live;
        let is_left = |room: Room| left.binary_search(&room).is_ok();
        member.cursors.retain(|job, cursor| rooms(job, &cursor.owner).any(is_left));
        self.vacate(key, room, |occupants, key| {
            occupants.live.swap_remove(&key);
        });
        // What had to wait for its other rooms need not any more.
        self.woken.push((key, "resume"));
        true
    }

    /// Removes a session from a room's occupants, and with the last of them the room and its live edges.
    fn vacate(&mut self, key: SessionKey, room: &Room, remove: impl FnOnce(&mut Occupants, SessionKey)) {
        let Some(occupants) = self.rooms.get_mut(room) else { return };
        remove(occupants, key);
        if !occupants.live.is_empty() || !occupants.joining.is_empty() {
            return;
        }
        for job in self.rooms.remove(room).into_iter().flat_map(|occupants| occupants.jobs) {
            let Some(edge) = self.edges.get_mut(&job) else { continue };
            edge.rooms.retain(|covering| covering != room);
            if !edge.rooms.is_empty() {
                continue;
            }
            // A room that was joined later and has had no event of the job yet keeps it all the same.
            let other = rooms(&job, &edge.owner).find(|room| self.rooms.contains_key(room));
            match other.and_then(|room| Some((self.rooms.get_mut(&room)?, room))) {
                Some((occupants, room)) => {
                    occupants.jobs.insert(job.clone());
                    edge.rooms.push(room);
                }
                None => {
                    self.edges.remove(&job);
                    self.filling.remove(&job);
                    self.await_no_more(&job);
                }
            }
        }
    }

    /// Whether [`Hub::take_woken`] may have something to tell.
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Takes the sessions that have fallen behind since the last call, each with the reason, and marks them as
    /// looked after from `now` until [`Hub::next_need`] answers `None`.
    pub fn take_woken(&mut self, now: Instant) -> Vec<(SessionKey, &'static str)> {
        let mut woken = std::mem::take(&mut self.woken);
        let mending = self.interruptions.are_mending();
        let mut begins =
            |key| self.sessions.get_mut(key).is_some_and(|member| member.begin_catch_up(now, mending));
        woken.retain(|(key, _)| begins(*key));
        woken
    }

    /// What a session that catches up needs next; `None` once it is behind on nothing.
    pub fn next_need(&mut self, key: SessionKey) -> Option<Need> {
        self.sessions.get_mut(key)?.next_need(self.interruptions.are_mending())
    }

    /// What is remembered of a job's events after a number, for [`Hub::replay`]: of what a session missed live; empty
    /// where nothing is, and it has to be read from history.
    pub fn remembered(&self, key: SessionKey, job: &JobId, after: Seq, limit: usize) -> Vec<JobEvent> {
        let member = self.sessions.get(key);
        let recent = member.and_then(|member| by_time::remembered(&self.recent, member, job, after, limit));
        recent.unwrap_or_default()
    }

    /// Hands a session the history of a job after a number, oldest first; an empty page says that there is none.
    pub fn replay(&mut self, key: SessionKey, job: &JobId, after: Seq, page: &[JobEvent]) -> Progress {
        let Some(member) = self.sessions.get_mut(key) else { return Progress::default() };
        let mut edge = self.edges.get_mut(job);
        let progress = member.replay(job, after, page, edge.as_ref().map(|edge| edge.seq));
        if let (Some(edge), Some(cursor)) = (&mut edge, member.cursors.get(job)) {
            edge.seen = edge.seen.max(cursor.seq);
        }
        progress
    }

    /// Hands a session the notices that wait for it.
    pub fn flush_notices(&mut self, key: SessionKey) -> Progress {
        self.sessions.get_mut(key).map_or_else(Progress::default, |member| member.flush_notices())
    }

    /// The sending end of a session.
    pub fn outlet(&self, key: SessionKey) -> Option<Arc<dyn Outlet>> {
        self.sessions.get(key).map(|member| member.outlet.clone())
    }

    /// The sending end of a session that is to be closed; `None` if it is gone or that was said before.
    pub fn begin_close(&mut self, key: SessionKey) -> Option<Arc<dyn Outlet>> {
        let member = self.sessions.get_mut(key)?;
        let before = std::mem::replace(&mut member.closing, true);
        (!before).then(|| member.outlet.clone())
    }

    /// The rooms that sessions of this node are in.
    pub fn rooms(&self) -> Vec<Room> {
        self.rooms.keys().cloned().collect()
    }

    /// Whether a job has a live edge.
    pub fn has_edge(&self, job: &JobId) -> bool {
        self.edges.contains_key(job)
    }

    /// The jobs of a room that have a live edge, each with the time of the newest event that was delivered.
    pub fn jobs_in(&self, room: &Room) -> Vec<(JobId, Timestamp)> {
        let is_there = |job: &JobId, edge: &LiveEdge| rooms(job, &edge.owner).any(|other| other == *room);
        let found = self.edges.iter().filter(|(job, edge)| is_there(job, edge));
        found.map(|(job, edge)| (job.clone(), edge.at)).collect()
    }

    /// The largest number of a job that sessions have seen, as far as it is remembered.
    pub fn seen(&self, job: &JobId) -> Option<Seq> {
        self.edges.get(job).map(|edge| edge.seen)
    }

    /// The same of all jobs, and what sessions have read from history of jobs that have no live edge.
    pub fn all_seen(&self) -> Vec<(JobId, Seq)> {
        let mut seen: HashMap<&JobId, Seq> = self.edges.iter().map(|(job, edge)| (job, edge.seen)).collect();
        for (job, cursor) in self.sessions.values().flat_map(|member| &member.cursors) {
            let seq = seen.entry(job).or_default();
            *seq = cursor.seq.max(*seq);
        }
        seen.into_iter().map(|(job, seq)| (job.clone(), seq)).collect()
    }

    /// Forgets the live edges of jobs that were idle since the last call, except where somebody watches that very
    /// job. Sound while the feed is whole, because then the next event is the next one; else it forgets nothing.
    pub fn sweep(&mut self) {
        if !self.is_whole() {
            return;
        }
        let edges = &mut self.edges;
        let (rooms, filling) = (&mut self.rooms, &self.filling);
        edges.retain(|job, edge| {
            let watched = edge.rooms.iter().any(|room| matches!(room, Room::Job(_)));
            let keep = std::mem::take(&mut edge.active) || watched || filling.contains_key(job);
            if !keep {
                for room in &edge.rooms {
                    if let Some(occupants) = rooms.get_mut(room) {
                        occupants.jobs.remove(job);
                    }
                }
            }
            keep
        });
    }
}

fn drop_one(keys: &mut Vec<SessionKey>, key: SessionKey) {
    if let Some(place) = keys.iter().position(|other| *other == key) {
        keys.swap_remove(place);
    }
}

#[cfg(test)]
mod tests;
