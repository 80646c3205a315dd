//! All watchers of a run on one thread: an epoll loop that does as little as it can.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::error::Error;
use crate::interrupt;
use crate::names::Names;
use crate::over::Over;
use crate::socket::{Assignment, Socket, State};
use crate::stage::Server;
use crate::stats::Stats;

/// Everything is read into one buffer of this size; no frame may be larger.
const BUFFER: usize = 256 * 1024;
/// How many connections are begun in one turn, so that those that are on their way are not kept waiting.
const DIALS_PER_TURN: usize = 128;
/// Connections come from so many loopback addresses in turn: each has its own 28,000 ports.
const SOURCES: usize = 64;
/// When one that was refused tries again.
const RETRY_MS: std::ops::Range<u64> = 100..500;

/// Connects, watches and counts.
pub struct Swarm {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    servers: Vec<Server>,
    sockets: Vec<Socket>,
    /// Who is to connect next.
    queue: VecDeque<usize>,
    /// Who was refused, and when to try again.
    retries: BinaryHeap<(Reverse<Instant>, usize)>,
    /// How many are on their way in, and may be at the most.
    under_way: usize,
    at_once: usize,
    dialled: usize,
    /// Whether those that the server cuts off come back by themselves.
    pub faithful: bool,
    /// What they have met.
    pub stats: Stats,
}

impl Swarm {
    /// Watchers that are not connected yet.
    pub fn new(names: Names, servers: Vec<Server>, assignments: Vec<Assignment>) -> Result<Self, Error> {
        let mut stats = Stats::new(names);
        assignments.iter().for_each(|assignment| stats.add_watcher(assignment.jobs.clone()));
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER],
            servers,
            sockets: assignments.into_iter().map(Socket::new).collect(),
            queue: VecDeque::new(),
            retries: BinaryHeap::new(),
            under_way: 0,
            at_once: 256,
            dialled: 0,
            faithful: false,
            stats,
        })
    }

    /// How many watchers there are, connected or not.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// How many are on their way in, waiting for their turn or for another try.
    pub fn coming(&self) -> usize {
        self.under_way + self.queue.len() + self.retries.len()
    }

    /// Lets one that is away connect when its turn comes.
    pub fn call(&mut self, watcher: usize) {
        self.queue.push_back(watcher);
    }

    /// Lets all connect, so many at once at the most.
    pub fn call_all(&mut self, at_once: usize) {
        self.at_once = at_once;
        self.queue.extend(0..self.sockets.len());
    }

    /// Connects all and waits for them.
    pub fn connect_all(&mut self, at_once: usize, within: Duration) -> Result<(), Error> {
        self.call_all(at_once);
        let all = self.sockets.len();
        if self.run_until(within, |swarm| swarm.stats.watching == all)? {
            return Ok(());
        }
        let Stats { watching, refused, cut, .. } = &self.stats;
        Err(format!(
            "{watching} of {all} watchers got in within {within:?}; refused: {refused:?}, cut: {cut:?}"
        )
        .into())
    }

    /// Whether this one is subscribed.
    pub fn is_watching(&self, watcher: usize) -> bool {
        self.sockets[watcher].state == State::Watching
    }

    /// Cuts one off, as a lost network does.
    pub fn cut(&mut self, watcher: usize) {
        if self.is_watching(watcher) {
            self.stats.watching -= 1;
            self.sockets[watcher].drop_line();
        }
    }

    /// All leave in good order; those who are not in yet are hung up on.
    pub fn leave(&mut self) {
        self.queue.clear();
        self.retries.clear();
        self.under_way = 0;
        self.stats.watching = 0;
        self.sockets.iter_mut().for_each(|socket| match socket.state {
            State::Watching => socket.leave(),
            _ => socket.drop_line(),
        });
    }

    /// Goes on until `done`; whether it was so in time.
    pub fn run_until(&mut self, within: Duration, done: impl Fn(&Self) -> bool) -> Result<bool, Error> {
        let end = Instant::now() + within;
        while !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left.min(Duration::from_millis(20)))?;
        }
        Ok(true)
    }

    /// Goes on for so long.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Error> {
        self.run_until(time, |_| false).map(drop)
    }

    /// Waits for news for `limit` at the most, and acts on all that there is.
    pub fn turn(&mut self, limit: Duration) -> Result<(), Error> {
        interrupt::check()?;
        let more_to_dial = self.dial_some()?;
        let limit = if more_to_dial { Duration::ZERO } else { limit };
        match self.poll.poll(&mut self.events, Some(limit)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let Token(index) = event.token();
            let socket = &mut self.sockets[index];
            let before = socket.state;
            let closing = event.is_read_closed() || event.is_error();
            let result = socket.serve(index, closing, &mut self.buffer, &mut self.stats);
            let after = socket.state;
            if is_under_way(before) && after == State::Watching {
                self.under_way -= 1;
            }
            if let Err(Over(reason)) = result {
                socket.drop_line();
                lose(after, reason, &mut self.under_way, &mut self.stats);
                if after != State::Watching || self.faithful {
                    let wait = Duration::from_millis(fastrand::u64(RETRY_MS));
                    self.retries.push((Reverse(Instant::now() + wait), index));
                }
            }
        }
        self.stats.tell_publisher()?;
        Ok(())
    }

    /// Begins as many connections as may be; whether there are more that may begin at once.
    fn dial_some(&mut self) -> Result<bool, Error> {
        while self.retries.peek().is_some_and(|(Reverse(when), _)| *when <= Instant::now()) {
            self.queue.extend(self.retries.pop().map(|(_, index)| index));
        }
        for _ in 0..DIALS_PER_TURN {
            if self.under_way >= self.at_once {
                return Ok(false);
            }
            let Some(index) = self.queue.pop_front() else { return Ok(false) };
            self.dial(index).map_err(|error| format!("cannot begin a connection: {error}"))?;
        }
        Ok(true)
    }

    fn dial(&mut self, index: usize) -> std::io::Result<()> {
        let socket = &mut self.sockets[index];
        if socket.state != State::Away {
            return Ok(());
        }
        let source = Ipv4Addr::new(127, 0, 0, 1 + (self.dialled % SOURCES) as u8);
        self.dialled += 1;
        socket.dial(self.poll.registry(), Token(index), self.servers[socket.assignment.server], source)?;
        self.under_way += 1;
        Ok(())
    }
}

fn is_under_way(state: State) -> bool {
    !matches!(state, State::Away | State::Watching)
}

/// Counts the loss of a connection in this state.
fn lose(state: State, reason: &'static str, under_way: &mut usize, stats: &mut Stats) {
    if state == State::Watching {
        stats.watching -= 1;
        *stats.cut.entry(reason).or_default() += 1;
    } else if is_under_way(state) {
        *under_way -= 1;
        *stats.refused.entry(reason).or_default() += 1;
    }
}
