//! What becomes of an event: whether it is due, to whom it goes, and what waits for what.

use std::sync::Arc;

use super::{Hub, LiveEdge, Receipt, SessionKey, interruption::Resync, member::Member};
use crate::{
    event::{Gap, JobEvent, Owner, Seq},
    gateway::{
        catch_up::SLOW,
        live_edge::{Step, decide},
        outlet::{Delivery, Offer, Outlet},
    },
    id::JobId,
    notice::{Audience, Notice},
    room::Room,
};

/// How many notices wait for a session that is full.
const MAX_WAITING_NOTICES: usize = 64;

impl Hub {
    pub(super) fn joined_rooms(&self, event: &JobEvent) -> Vec<Room> {
        event.rooms().filter(|room| self.rooms.contains_key(room)).collect()
    }

    /// Takes the first of some events that the feed brought, in whatever order and however often, and with it those
    /// that can be delivered together: says how many it took, and what became of the last of them.
    pub fn receive(&mut self, events: &[JobEvent]) -> (usize, Receipt) {
        let run = self.receive_run(events);
        let (count, receipt) = match (run, events.first()) {
            (0, Some(event)) => (1, self.take(event)),
            (count, _) => (count, Receipt::Done),
        };
        if let Some(last) = events[..count].last() {
            self.heard(last.timestamp());
        }
        (count, receipt)
    }

    /// Delivers as many events as follow on the live edges of their jobs and reach the same rooms: one look at a session
    /// serves them all.
    fn receive_run(&mut self, events: &[JobEvent]) -> usize {
        let Some(first) = events.first().filter(|_| self.interruptions.are_none()) else { return 0 };
        let rooms = self.joined_rooms(first);
        if rooms.is_empty() {
            return 0;
        }
        let mut count = 0;
        for event in events {
            let is_alike = event.job() == first.job() && event.owner() == first.owner();
            if !self.is_due(event) || !is_alike && self.joined_rooms(event) != rooms {
                break;
            }
            self.advance(event, event.seq(), &rooms);
            count += 1;
        }
        self.deliver(&events[..count], &rooms);
        count
    }

    /// Whether an event is the next of its job, or the first.
    fn is_due(&self, event: &JobEvent) -> bool {
        let edge = self.edges.get(event.job());
        let step = decide(edge.map(|edge| edge.seq), event.seq());
        let follows = matches!(step, Step::First | Step::Next);
        follows && !self.filling.contains_key(event.job())
    }

    /// Takes an event that was found in history, because the feed may have left it out.
    pub fn recover(&mut self, event: &JobEvent, resync: Resync) -> Receipt {
        if event.timestamp() > resync.newest && self.needs(resync) && self.edges.contains_key(event.job()) {
            self.interruptions.await_feed(event);
        }
        self.take(event)
    }

    /// Takes an event that had no place ([`Receipt::Unplaced`]), and that [`Hub::adopt`] has found one for.
    pub fn place(&mut self, event: &JobEvent) -> Receipt {
        let receipt = self.take(event);
        self.placed(event.job());
        receipt
    }

    fn take(&mut self, event: &JobEvent) -> Receipt {
        let rooms = self.joined_rooms(event);
        if rooms.is_empty() {
            return Receipt::Done;
        }
        let edge = self.edges.get_mut(event.job());
        // Before the feed is back it can be let go: the resync will fetch it.
        if edge.is_none()
            && let Some(receipt) = self.interruptions.meet(event.job())
        {
            return receipt;
        }
        if let Some(edge) = edge.filter(|edge| edge.is_reused_by(event)) {
            edge.at = event.timestamp();
            let at = edge.seq;
            self.deliver_reused(event, at, &rooms);
            return Receipt::Reused;
        }
        let edge = self.edges.get(event.job()).map(|edge| edge.seq);
        let after = edge.unwrap_or(event.seq() - 1);
        if let Some(held) = self.filling.get_mut(event.job()) {
            if held.seq() < event.seq() {
                *held = event.clone();
                self.each_live(&rooms, |member| member.await_fill(event, after));
            }
            return Receipt::Done;
        }
        match decide(edge, event.seq()) {
            Step::Gap { after } => {
                self.filling.insert(event.job().clone(), event.clone());
                self.each_live(&rooms, |member| member.await_fill(event, after));
                Receipt::Gap { after }
            }
            Step::First | Step::Next => {
                self.advance(event, event.seq(), &rooms);
                self.deliver(std::slice::from_ref(event), &rooms);
                Receipt::Done
            }
            Step::Duplicate => {
                // Old news for the node, but perhaps not for a session whose snapshot is older still.
                self.note(event, &rooms);
                Receipt::Done
            }
        }
    }

    /// Whether an event bears a number that was delivered, and is another event all the same.
    pub fn is_reused(&self, event: &JobEvent) -> bool {
        self.edges.get(event.job()).is_some_and(|edge| edge.is_reused_by(event))
    }

    /// Delivers an event beside the order, because its place in it is taken by another one.
    fn deliver_reused(&mut self, event: &JobEvent, edge: Seq, rooms: &[Room]) {
        self.recent.forget(event.job());
        let mending = self.interruptions.are_mending();
        self.each_live(rooms, |member| member.offer_reused(event, edge, mending));
        self.note(event, rooms);
    }

    /// Lets each session in some rooms have something once; who fell behind by it is woken.
    fn each_live(&mut self, rooms: &[Room], mut offer: impl FnMut(&mut Member) -> bool) {
        self.deliveries += 1;
        for room in rooms {
            let Some(occupants) = self.rooms.get(room) else { continue };
            for key in &occupants.live {
                let Some(member) = self.sessions.get_mut(*key) else { continue };
                if !member.first_sight(self.deliveries) {
                    continue;
                }
                if noting(&mut self.unflushed, *key, member, &mut offer) {
                    self.woken.push((*key, SLOW));
                }
            }
        }
    }

    /// Begins the live edge of an event's job at a number, where it has none and a joined room covers it.
    pub fn adopt(&mut self, event: &JobEvent, seq: Seq) {
        let rooms = self.joined_rooms(event);
        if !rooms.is_empty() && !self.edges.contains_key(event.job()) {
            self.advance(event, seq, &rooms);
        }
    }

    /// Takes the history after the live edge of a job that has a gap. Answers whether more is needed.
    pub fn fill(&mut self, job: &JobId, page: &[JobEvent]) -> Receipt {
        let last = self.filling.get(job).map_or(0, JobEvent::seq);
        // What is beyond has its turn among the events of other jobs.
        for event in page.iter().filter(|event| event.seq() <= last) {
            self.pass(event);
        }
        let Some(edge) = self.edges.get(job).map(|edge| edge.seq) else { return Receipt::Done };
        let Some(held) = self.filling.remove(job) else { return Receipt::Done };
        if held.seq() <= edge {
            return Receipt::Done;
        }
        if page.is_empty() {
            // History has lost what came before: say so, and go on with what is in hand.
            self.pass(&held);
            return Receipt::Done;
        }
        self.filling.insert(job.clone(), held);
        Receipt::Gap { after: edge }
    }

    /// Delivers an event that is due or beyond, after a gap notice where something is missing.
    fn pass(&mut self, event: &JobEvent) {
        let Some(edge) = self.edges.get(event.job()) else { return };
        let due = edge.seq + 1;
        if event.seq() < due {
            return;
        }
        let rooms = self.joined_rooms(event);
        if event.seq() > due {
            let gap = Gap { job: event.job().clone(), from: due, to: event.seq() - 1 };
            self.announce(&gap, event.owner(), &rooms);
        }
        self.advance(event, event.seq(), &rooms);
        self.deliver(std::slice::from_ref(event), &rooms);
    }

    /// Sets the live edge of an event's job, and counts the job among those of `rooms`.
    pub(super) fn advance(&mut self, event: &JobEvent, seq: Seq, rooms: &[Room]) {
        let job = event.job();
        let fresh = || LiveEdge {
            seq,
            seen: seq,
            at: event.timestamp(),
            owner: event.owner().clone(),
            rooms: Vec::new(),
            active: true,
        };
        let edge = self.edges.entry(job.clone()).or_insert_with(fresh);
        edge.seq = seq;
        edge.seen = edge.seen.max(seq);
        edge.active = true;
        if edge.owner != *event.owner() {
            edge.owner = event.owner().clone();
        }
        for room in rooms {
            if !edge.rooms.contains(room) {
                edge.rooms.push(room.clone());
                if let Some(occupants) = self.rooms.get_mut(room) {
                    occupants.jobs.insert(job.clone());
                }
            }
        }
    }

    /// Delivers events to which their jobs' live edges have advanced.
    fn deliver(&mut self, events: &[JobEvent], rooms: &[Room]) {
        for event in events {
            if let Some(edge) = self.edges.get_mut(event.job()) {
                edge.at = event.timestamp().max(edge.at);
            }
            self.recent.push(event);
        }
        let mending = self.interruptions.are_mending();
        self.each_live(rooms, |member| member.offer_live(events, mending));
        events.iter().for_each(|event| self.note(event, rooms));
    }

    /// Notes an event for the sessions that are joining one of its rooms, unless another room brought it.
    fn note(&mut self, event: &JobEvent, rooms: &[Room]) {
        for room in rooms {
            let Some(occupants) = self.rooms.get(room) else { continue };
            for key in &occupants.joining {
                if let Some(member) = self.sessions.get_mut(*key)
                    && !rooms.iter().any(|room| member.is_in(room))
                {
                    member.note(room, event);
                }
            }
        }
    }

    /// Tells the live sessions of a job about events that cannot be had any more.
    fn announce(&mut self, gap: &Gap, owner: &Owner, rooms: &[Room]) {
        self.each_live(rooms, |member| member.offer_gap(gap, owner));
    }

    /// Delivers a notice to its audience. Answers the sessions that have to be closed, because more notices wait
    /// for them than may.
    pub fn notify(&mut self, notice: &Notice) -> Vec<SessionKey> {
        let audience: Vec<SessionKey> = match &notice.audience {
            Audience::Everyone => self.sessions.keys().collect(),
            Audience::User(user) => {
                let occupants = self.rooms.get(&Room::User(user.clone()));
                occupants.into_iter().flat_map(|at| at.live.iter().copied()).collect()
            }
        };
        let mut overrun = Vec::new();
        for key in audience {
            let Some(member) = self.sessions.get_mut(key) else { continue };
            if !member.outlet.takes_notices() || member.closing {
                continue;
            }
            let offer = |member: &mut Member| member.offer(Delivery::Notice(notice)) != Offer::Full;
            if member.notices.is_empty() && noting(&mut self.unflushed, key, member, offer) {
                continue;
            }
            if member.notices.len() >= MAX_WAITING_NOTICES {
                overrun.push(key);
                continue;
            }
            member.notices.push_back(notice.clone());
            self.woken.push((key, SLOW));
        }
        overrun
    }

    /// Takes the sending ends of all that have taken something since the last call.
    pub fn take_unflushed(&mut self) -> Vec<Arc<dyn Outlet>> {
        let mut outlets = Vec::with_capacity(self.unflushed.len());
        for key in self.unflushed.drain(..) {
            let Some(member) = self.sessions.get_mut(key) else { continue };
            member.unflushed = false;
            outlets.push(member.outlet.clone());
        }
        outlets
    }
}

/// Offers something to a session, and notes it among those that have to be flushed if it took any.
fn noting<T>(
    unflushed: &mut Vec<SessionKey>,
    key: SessionKey,
    member: &mut Member,
    offer: impl FnOnce(&mut Member) -> T,
) -> T {
    let flushed = !member.unflushed;
    let outcome = offer(member);
    if flushed && member.unflushed {
        unflushed.push(key);
    }
    outcome
}
