use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    super::outlet::{Delivery, Offer, Outlet},
    JoinId, Need, Progress,
};
use crate::{
    event::{Gap, JobEvent, Owner, Seq},
    id::{ClientId, JobId},
    notice::Notice,
    room::Room,
};

/// Where a session stands with a job that it does not follow in step with the node's live edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The last number that it got.
    pub seq: Seq,
    /// The last number that has to come from history; what is beyond comes live.
    pub target: Seq,
    /// The last number of a replay that was asked for; what is beyond the session fell behind on. 0 for none.
    pub asked: Seq,
    /// Whose job it is, which tells its rooms.
    pub owner: Owner,
    /// Whether the job waits for its turn to be caught up on.
    queued: bool,
}

impl Cursor {
    pub fn new(seq: Seq, target: Seq, owner: &Owner) -> Self {
        Self { seq, target, asked: 0, owner: owner.clone(), queued: false }
    }

    pub fn is_behind(&self) -> bool {
        self.seq < self.target
    }
}

/// What the hub keeps of a session. For each job that its rooms bring it is in step (no cursor), behind (it reads
/// history from its cursor up to the target) or ahead (it got from history what the feed has yet to bring).
pub struct Member {
    pub outlet: Arc<dyn Outlet>,
    pub client: Option<ClientId>,
    /// In order. Most sessions are in one room for all their life, so it takes no more place than it needs.
    pub live: Vec<Room>,
    /// Joins under way, with the first number of each job that the room brought meanwhile.
    pub joining: Vec<(JoinId, Room, HashMap<JobId, Seq>)>,
    pub cursors: HashMap<JobId, Cursor>,
    pub notices: VecDeque<Notice>,
    pub seen: u64,
    /// Whether it has taken something since the last flush.
    pub unflushed: bool,
    /// Whether the gateway has begun to end it.
    pub closing: bool,
    /// Changes with whatever makes a round of catching up out of date that has begun.
    pub epoch: u64,
    /// How many of its rooms it comes back to with a time.
    by_time: usize,
    behind: VecDeque<JobId>,
    /// Since when somebody looks after it because it is behind.
    behind_since: Option<Instant>,
}

impl Member {
    pub fn new(outlet: Arc<dyn Outlet>, client: Option<ClientId>) -> Self {
        Self {
            outlet,
            client,
            live: Vec::new(),
            joining: Vec::new(),
            cursors: HashMap::new(),
            notices: VecDeque::new(),
            seen: 0,
            unflushed: false,
            closing: false,
            epoch: 0,
            by_time: 0,
            behind: VecDeque::new(),
            behind_since: None,
        }
    }

    pub fn take_join(&mut self, join: JoinId) -> Option<(Room, HashMap<JobId, Seq>)> {
        let place = self.joining.iter().position(|(id, ..)| *id == join)?;
        let (_, room, noted) = self.joining.swap_remove(place);
        if self.joining.is_empty() {
            self.joining = Vec::new();
        }
        Some((room, noted))
    }

    /// Puts it into a room. Says whether it was not there before.
    pub fn enter(&mut self, room: Room) -> bool {
        self.epoch += 1;
        let Err(place) = self.live.binary_search(&room) else { return false };
        self.by_time += usize::from(room.is_resumed_by_time());
        self.live.reserve_exact(usize::from(self.live.is_empty()));
        self.live.insert(place, room);
        true
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: &Room) -> bool {
        self.live.binary_search(room).is_ok()
    }

    /// Takes it out of a room. Says whether it was there.
    pub fn exit(&mut self, room: &Room) -> bool {
        self.epoch += 1;
        let Ok(place) = self.live.binary_search(room) else { return false };
        self.live.remove(place);
        self.by_time -= usize::from(room.is_resumed_by_time());
        true
    }

    /// Whether events have to reach it in the order of their times, whatever their job: when it comes back with the
    /// newest time that it has seen, it must have got all that is older.
    pub fn is_ordered(&self) -> bool {
        self.by_time > 0
    }

    /// Notes an event that a joining session must not miss.
    pub fn note(&mut self, room: &Room, event: &JobEvent) {
        for (_, joining, noted) in &mut self.joining {
            if joining == room {
                let first = noted.entry(event.job().clone()).or_insert(event.seq());
                *first = event.seq().min(*first);
            }
        }
    }

    /// Whether this delivery has not been here before.
    pub fn first_sight(&mut self, delivery: u64) -> bool {
        std::mem::replace(&mut self.seen, delivery) != delivery
    }

    /// Puts a job into the queue of those to catch up on.
    pub fn queue(&mut self, job: JobId) {
        if let Some(cursor) = self.cursors.get_mut(&job)
            && cursor.is_behind()
            && !std::mem::replace(&mut cursor.queued, true)
        {
            self.behind.push_back(job);
        }
    }

    /// Offers something to its outlet.
    pub fn offer(&mut self, delivery: Delivery<'_>) -> Offer {
        let offer = self.outlet.offer(delivery);
        self.unflushed |= offer == Offer::Taken;
        offer
    }

    /// Offers events that the node delivers now. Answers whether the session fell behind by them.
    pub fn offer_live(&mut self, events: &[JobEvent], mending: bool) -> bool {
        // In step with all jobs, as nearly everybody is nearly always.
        let taken = match self.cursors.is_empty() && !self.has_to_wait(mending) {
            true => self.outlet.offer_all(events),
            false => 0,
        };
        self.unflushed |= taken > 0;
        let mut behind = false;
        for event in &events[taken..] {
            behind |= self.offer_one(event, mending);
        }
        behind
    }

    fn offer_one(&mut self, event: &JobEvent, mending: bool) -> bool {
        let (job, seq) = (event.job(), event.seq());
        let cursor = self.cursors.get(job).map(|cursor| cursor.seq);
        match cursor {
            Some(got) if got >= seq => {
                if got == seq {
                    self.cursors.remove(job);
                }
                false
            }
            Some(got) if got + 1 < seq => self.fall_behind(job, event.owner(), got, seq),
            _ if self.has_to_wait(mending) => self.fall_behind(job, event.owner(), seq - 1, seq),
            _ => match self.offer(Delivery::Event(event)) {
                Offer::Full => self.fall_behind(job, event.owner(), seq - 1, seq),
                Offer::Taken | Offer::Closed => {
                    self.cursors.remove(job);
                    false
                }
            },
        }
    }

    /// Offers a gap before an event that the node delivers now. Answers whether the session fell behind by it.
    pub fn offer_gap(&mut self, gap: &Gap, owner: &Owner) -> bool {
        if self.cursors.contains_key(&gap.job) {
            // Its own catch-up meets the same gap.
            return false;
        }
        self.offer(Delivery::Gap(gap)) == Offer::Full
            && self.fall_behind(&gap.job, owner, gap.from - 1, gap.to)
    }

    /// Offers an event whose number another one had before. Answers whether the session fell behind by it.
    pub fn offer_reused(&mut self, event: &JobEvent, edge: Seq, mending: bool) -> bool {
        let (job, seq) = (event.job(), event.seq());
        let waits = self.has_to_wait(mending);
        if let Some(cursor) = self.cursors.get_mut(job) {
            if cursor.seq < seq {
                return false;
            }
            // It is past the number: it has to read that part of history again.
            cursor.seq = seq - 1;
            cursor.target = cursor.target.max(seq);
            self.epoch += 1;
            self.queue(job.clone());
            return true;
        }
        (waits || self.offer(Delivery::Event(event)) == Offer::Full)
            && self.fall_behind(job, event.owner(), seq - 1, edge)
    }

    pub fn fall_behind(&mut self, job: &JobId, owner: &Owner, got: Seq, target: Seq) -> bool {
        let cursor = self.cursors.entry(job.clone()).or_insert_with(|| Cursor::new(got, target, owner));
        cursor.target = cursor.target.max(target);
        self.queue(job.clone());
        true
    }

    /// Since when it is behind, if it is.
    pub fn behind_since(&self) -> Option<Instant> {
        self.behind_since
    }

    /// On how many jobs it is behind.
    pub fn jobs_behind(&self) -> usize {
        self.behind.len()
    }

    /// Whether somebody has to look after this session from now on, and nobody does yet.
    pub fn begin_catch_up(&mut self, now: Instant, mending: bool) -> bool {
        let kept = mending && self.is_ordered();
        let needed = !self.behind.is_empty() && !kept || !self.notices.is_empty();
        let begins = needed && self.behind_since.is_none();
        if begins {
            self.behind_since = Some(now);
        }
        begins
    }

    pub fn next_need(&mut self, mending: bool) -> Option<Need> {
        if !self.notices.is_empty() {
            return Some(Need::Notices);
        }
        let need = match self.first_behind() {
            Some(_) if self.is_ordered() => (!mending).then_some(Need::Round),
            first => first.map(|(job, after)| Need::History { job, after }),
        };
        if need.is_none() {
            self.behind_since = None;
        }
        need
    }

    /// The first of the jobs that it is behind on, and the last number that it got of it.
    pub fn first_behind(&mut self) -> Option<(JobId, Seq)> {
        while let Some(job) = self.behind.front() {
            match self.cursors.get_mut(job) {
                Some(cursor) if cursor.is_behind() => return Some((job.clone(), cursor.seq)),
                Some(cursor) => cursor.queued = false,
                None => {}
            }
            self.behind.pop_front();
        }
        None
    }

    pub fn flush_notices(&mut self) -> Progress {
        while let Some(notice) = self.notices.front() {
            if self.outlet.offer(Delivery::Notice(notice)) == Offer::Full {
                return Progress { full: true, asked: false };
            }
            self.notices.pop_front();
        }
        Progress::default()
    }

    pub fn replay(&mut self, job: &JobId, after: Seq, page: &[JobEvent], edge: Option<Seq>) -> Progress {
        // Moved or left in the meantime: the page is no longer the one that is needed.
        let Some(cursor) = self.cursors.get_mut(job).filter(|cursor| cursor.seq == after) else {
            return Progress::default();
        };
        let full = !hand_page(&self.outlet, job, cursor, page);
        let progress = Progress { full, asked: after < cursor.seq && after < cursor.asked };
        if full {
            return progress;
        }
        if edge == Some(cursor.seq) {
            self.cursors.remove(job);
        }
        // The next job's turn.
        if let Some(job) = self.behind.pop_front() {
            if let Some(cursor) = self.cursors.get_mut(&job) {
                cursor.queued = false;
            }
            self.queue(job);
        }
        progress
    }
}

/// Moves a cursor along a page of history; `false` once the session has no place.
fn hand_page(outlet: &Arc<dyn Outlet>, job: &JobId, cursor: &mut Cursor, page: &[JobEvent]) -> bool {
    let mut rest = &page[page.partition_point(|event| event.seq() <= cursor.seq)..];
    while let Some(first) = rest.first() {
        if !skip_to(outlet, job, cursor, first.seq() - 1) {
            return false;
        }
        let follows = |(event, seq): &(&JobEvent, Seq)| event.seq() == *seq;
        let (run, others) = rest.split_at(rest.iter().zip(first.seq()..).take_while(follows).count());
        let taken = outlet.offer_all(run);
        cursor.seq = run[..taken].last().map_or(cursor.seq, JobEvent::seq);
        if taken < run.len() {
            return false;
        }
        rest = others;
    }
    // Where there is nothing, history has lost what was promised.
    !page.is_empty() || skip_to(outlet, job, cursor, cursor.target)
}

/// Moves a cursor over numbers that cannot be had, and says so to the session; `false` if it has no place.
pub fn skip_to(outlet: &Arc<dyn Outlet>, job: &JobId, cursor: &mut Cursor, seq: Seq) -> bool {
    if seq <= cursor.seq {
        return true;
    }
    let gap = Gap { job: job.clone(), from: cursor.seq + 1, to: seq };
    let taken = outlet.offer(Delivery::Gap(&gap)) != Offer::Full;
    if taken {
        cursor.seq = seq;
    }
    taken
}
