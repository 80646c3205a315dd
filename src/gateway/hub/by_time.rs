//! Sessions that come back with a time: what they are behind on reaches them in the order of time, whatever the job,
//! and until they are in step with all of it nothing reaches them live.

use std::sync::Arc;

use super::{
    Hub, Progress, SessionKey,
    member::{Cursor, Member, skip_to},
    recent::Recent,
    round::{Next, Round},
};
use crate::{
    event::{JobEvent, Seq},
    gateway::outlet::{Delivery, Offer, Outlet},
    id::JobId,
};

/// How many events are handed over in one step at the most.
const TURN: usize = 64;

impl Hub {
    /// All that a session lacks now that has to reach it by time.
    pub fn begin_round(&mut self, key: SessionKey) -> Round {
        let Some(member) = self.sessions.get(key) else { return Round::default() };
        let behind = member.cursors.iter().filter(|(_, cursor)| cursor.is_behind());
        let jobs = behind.map(|(job, cursor)| (job.clone(), cursor.seq, cursor.target));
        let mut round = Round::new(member.epoch, jobs);
        for want in round.lacking() {
            if let Some(page) = remembered(&self.recent, member, &want.job, want.after, want.limit) {
                round.supply(&want, page);
            }
        }
        round
    }

    /// Hands a session what a round has ready, until something has to be supplied first ([`Round::wanted`]), the
    /// session has no place, or the round is over: handed over, or out of date.
    pub fn hand(&mut self, key: SessionKey, round: &mut Round) -> Progress {
        let mut progress = Progress::default();
        let mending = self.interruptions.are_mending();
        let member = self.sessions.get_mut(key);
        let Some(member) = member.filter(|member| member.may_go_on(round, mending)) else {
            round.end();
            return progress;
        };
        for _ in 0..TURN {
            let (job, after, to, event) = match round.next() {
                None => break,
                Some(Next::Lacking(want)) => {
                    match remembered(&self.recent, member, &want.job, want.after, want.limit) {
                        Some(page) => {
                            round.supply(&want, page);
                            continue;
                        }
                        None => break,
                    }
                }
                Some(Next::Event { after, event }) => {
                    (event.job().clone(), after, event.seq() - 1, Some(event))
                }
                Some(Next::Lost { job, after, to }) => (job, after, to, None),
            };
            let Some(cursor) = member.cursors.get_mut(&job).filter(|cursor| cursor.seq == after) else {
                round.end();
                break;
            };
            let outlet = &member.outlet;
            progress.full = !skip_to(outlet, &job, cursor, to)
                || event.is_some_and(|event| !hand_one(outlet, cursor, &event));
            let (seq, met) = (cursor.seq, !cursor.is_behind());
            progress.asked |= after < seq && after < cursor.asked;
            round.advance(seq);
            if let Some(edge) = self.edges.get_mut(&job) {
                edge.seen = edge.seen.max(seq);
                if met && edge.seq == seq {
                    member.cursors.remove(&job);
                }
            }
            if progress.full {
                break;
            }
        }
        progress
    }

    /// Has a session that is new in a room wait, too, for what is being fetched of its jobs.
    pub(super) fn await_fills(&mut self, key: SessionKey) {
        let Some(member) = self.sessions.get_mut(key) else { return };
        for held in self.filling.values() {
            if let Some(edge) = self.edges.get(held.job())
                && held.rooms().any(|room| member.is_in(&room))
            {
                member.await_fill(held, edge.seq);
            }
        }
    }
}

impl Member {
    /// Whether what is live has to wait until the session has what is older. `mending` says that what the feed left
    /// out is being fetched.
    pub fn has_to_wait(&mut self, mending: bool) -> bool {
        self.is_ordered() && (mending || self.first_behind().is_some())
    }

    /// Notes that an event waits while what its job's live edge lacks is fetched. Answers whether the session fell
    /// behind by it.
    pub fn await_fill(&mut self, event: &JobEvent, edge: Seq) -> bool {
        self.is_ordered() && self.fall_behind(event.job(), event.owner(), edge, event.seq())
    }

    fn may_go_on(&self, round: &Round, mending: bool) -> bool {
        self.is_ordered() && !mending && self.epoch == round.epoch
    }
}

/// What is remembered of what a session missed live; `None` where nothing is. What it asked for comes from history, which
/// decides what there is of it: memory may reach back further, to what is older than the time that was asked for.
pub(super) fn remembered(
    recent: &Recent,
    member: &Member,
    job: &JobId,
    after: Seq,
    limit: usize,
) -> Option<Vec<JobEvent>> {
    let asked = member.cursors.get(job).is_none_or(|cursor| after < cursor.asked);
    let page = if asked { Vec::new() } else { recent.after(job, after, limit) };
    Some(page).filter(|page| !page.is_empty())
}

/// Hands over the event that follows on a cursor; `false` if the session has no place.
fn hand_one(outlet: &Arc<dyn Outlet>, cursor: &mut Cursor, event: &JobEvent) -> bool {
    let taken = outlet.offer(Delivery::Event(event)) != Offer::Full;
    if taken {
        cursor.seq = event.seq();
    }
    taken
}
