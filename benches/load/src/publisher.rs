//! Publishes over a few kept connections on a thread of its own: as fast as answers, watchers or a clock allow.

mod connection;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use rustix::process::setpriority_process;

use self::connection::{Call, Connection};

use crate::answer::{Answer, answer};
use crate::error::Error;
use crate::frontier::Complete;
use crate::interrupt;
use crate::latency::{Histogram, micros};
use crate::order::Topic;
use crate::proc::thread_cpu;
use crate::stage::Server;
use crate::tally::Numbers;
use crate::wire::numbers;

/// How long a call may take: long, because some servers answer a large batch only after all deliveries.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long watchers may take to get on with a full window.
const STALL: Duration = Duration::from_secs(30);
/// From this on an event is late, and its latency counts from when it was due.
const LATE_US: u64 = 2_000;

/// What the next call waits for.
#[derive(Clone, Copy)]
pub enum Pace {
    /// For a connection that has its answer.
    Answers,
    /// Also for watchers: no more than so many events may be on their way to one of them.
    Window(u64),
    /// For the clock: so many events a second, whatever happens.
    Rate(f64),
}

/// When to stop.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so long.
    Elapsed(Duration),
    /// After so many events.
    Events(u64),
}

/// One phase of publishing.
#[derive(Clone, Copy)]
pub struct Plan {
    pub pace: Pace,
    /// How many events each call has.
    pub batch: usize,
    pub until: Until,
}

/// How one phase of publishing went.
#[derive(Default)]
pub struct Published {
    pub events: u64,
    /// How long calls took.
    pub calls: Histogram,
    /// What the thread used of a processor.
    pub cpu: Duration,
    /// When the last answer came, in microseconds.
    pub last_answer: u64,
    /// How many events were sent noticeably later than the clock asked for, and the latest one by how much, in
    /// microseconds.
    pub late: u64,
    pub latest: u64,
}

/// Publishes about one topic.
pub struct Publisher {
    topic: Topic,
    /// What shows the credential.
    header: String,
    poll: Poll,
    complete: Complete,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    next_event: u64,
    body: Vec<u8>,
    /// The numbers that were answered, by job.
    pub numbers: Vec<Numbers>,
}

const WAKER: Token = Token(usize::MAX);

impl Publisher {
    /// Spreads at most so many connections over the servers. Each is opened when it is first needed, the ones used
    /// last being used first: so a generous number costs nothing, and what a clock sends need not wait for an answer.
    pub fn new(servers: &[Server], connections: usize, topic: Topic) -> Result<Self, Error> {
        let poll = Poll::new()?;
        let complete = Complete::new(Waker::new(poll.registry(), WAKER)?);
        let connections: Vec<_> = (0..connections)
            .map(|index| Connection::new(servers[index % servers.len()].address, Token(index)))
            .collect();
        let (idle, numbers) =
            ((0..connections.len()).rev().collect(), vec![Numbers::default(); topic.jobs as usize]);
        let header = servers.first().map(|server| server.credential.header()).unwrap_or_default();
        Ok(Self {
            topic,
            header,
            poll,
            complete,
            connections,
            idle,
            next_event: 0,
            body: Vec::new(),
            numbers,
        })
    }

    /// What the swarm tells of the events that all watchers have.
    pub fn complete(&self) -> Complete {
        self.complete.clone()
    }

    /// Publishes as planned, and waits for all answers.
    pub fn run(&mut self, plan: Plan) -> Result<Published, Error> {
        if matches!(plan.pace, Pace::Rate(_)) {
            go_first();
        }
        let cpu = thread_cpu();
        let phase = Phase { plan, began: Instant::now(), began_us: micros(), first: self.next_event };
        let mut published = Published::default();
        let mut events = Events::with_capacity(64);
        let mut last_progress = (self.complete.events(), Instant::now());
        loop {
            interrupt::check()?;
            let wait = self.send_what_may_go(&phase, &mut published)?;
            let over = phase.is_over(self.next_event);
            if over && self.idle.len() == self.connections.len() {
                break;
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                if event.token() != WAKER {
                    self.serve(event.token().0, &mut published)?;
                    // What is due does not wait until all answers are read.
                    self.send_what_may_go(&phase, &mut published)?;
                }
            }
            self.check_patience(plan.pace, &mut last_progress)?;
        }
        published.events = self.next_event - phase.first;
        published.cpu = thread_cpu() - cpu;
        Ok(published)
    }

    /// Sends as many calls as may go now; tells how long there is nothing to do but to wait for answers.
    fn send_what_may_go(&mut self, phase: &Phase, published: &mut Published) -> Result<Duration, Error> {
        while !self.idle.is_empty() && !phase.is_over(self.next_event) {
            let now = micros();
            let sent = match phase.go_ahead(self.next_event, self.complete.events()) {
                Go::Now => now,
                Go::Due(due) if now >= due + LATE_US => {
                    published.late += phase.plan.batch as u64;
                    published.latest = published.latest.max(now - due);
                    due
                }
                Go::Due(due) if now >= due => now,
                Go::Due(due) => return Ok(Duration::from_micros(due - now)),
                Go::WhenWatchersAreThere => break,
            };
            let Some(index) = self.idle.pop() else { break };
            let call = Call { first: self.next_event, events: phase.plan.batch, sent: Instant::now() };
            self.next_event += call.events as u64;
            let (topic, header) = (&self.topic, &self.header);
            self.connections[index].send(self.poll.registry(), call, |request| {
                topic.put_call(request, header, call.first, call.events, sent);
            })?;
        }
        Ok(Duration::from_millis(100))
    }

    fn serve(&mut self, index: usize, published: &mut Published) -> Result<(), Error> {
        let (connection, body) = (&mut self.connections[index], &mut self.body);
        connection.advance(self.poll.registry())?;
        let whole = |Answer { status, length }| (status, length);
        let taken = connection
            .take_answer(|received| Ok(answer(received, body).map_err(|error| error.0)?.map(whole)))?;
        let Some((call, status)) = taken else { return Ok(()) };
        published.calls.record_time(call.sent.elapsed());
        published.last_answer = micros();
        self.idle.push(index);
        self.note(call, status)
    }

    /// Notes the numbers of a call's answer.
    fn note(&mut self, call: Call, status: u16) -> Result<(), Error> {
        let mut named = 0;
        for (nth, seq) in (call.first..).zip(numbers(&self.body)).take(call.events) {
            self.numbers[self.topic.job_of(nth) as usize].note(seq);
            named += 1;
        }
        if status / 100 == 2 && named == call.events {
            return Ok(());
        }
        let start = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        Err(format!("a call was answered {status} with {named} numbers of {}: {start}", call.events).into())
    }

    fn check_patience(&self, pace: Pace, last_progress: &mut (u64, Instant)) -> Result<(), Error> {
        let mut calls = self.connections.iter().filter_map(Connection::call);
        if calls.any(|call| call.sent.elapsed() > PATIENCE) {
            return Err(format!("a call was not answered within {PATIENCE:?}").into());
        }
        let complete = self.complete.events();
        if !matches!(pace, Pace::Window(_))
            || complete != last_progress.0
            || self.idle.len() < self.connections.len()
        {
            *last_progress = (complete, Instant::now());
        }
        if last_progress.1.elapsed() > STALL {
            let waiting = self.next_event - complete;
            return Err(format!("watchers have not got any of {waiting} events within {STALL:?}").into());
        }
        Ok(())
    }
}

/// Lets this thread run as soon as the clock asks for it, as a machine of its own would: it shares the cores with
/// the server, and does next to nothing. Where that takes rights that are not there, some events are sent late.
fn go_first() {
    let _ = setpriority_process(None, -20);
}

/// What is decided once for a phase.
struct Phase {
    plan: Plan,
    began: Instant,
    began_us: u64,
    first: u64,
}

enum Go {
    Now,
    /// At this time, in microseconds.
    Due(u64),
    WhenWatchersAreThere,
}

impl Phase {
    fn is_over(&self, next: u64) -> bool {
        match self.plan.until {
            Until::Elapsed(time) => self.began.elapsed() >= time,
            Until::Events(events) => next - self.first >= events,
        }
    }

    fn go_ahead(&self, next: u64, complete: u64) -> Go {
        match self.plan.pace {
            Pace::Answers => Go::Now,
            Pace::Window(window) if next + self.plan.batch as u64 <= complete + window => Go::Now,
            Pace::Window(_) => Go::WhenWatchersAreThere,
            Pace::Rate(rate) => Go::Due(self.began_us + ((next - self.first) as f64 / rate * 1e6) as u64),
        }
    }
}
