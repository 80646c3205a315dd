//! What a connection waits to read, and for how long it may.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::atomic::{
        AtomicBool, AtomicU8,
        Ordering::{Acquire, Relaxed, Release},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long the answer to a peer that has closed its sending side may take.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The head of the next request has not arrived.
    Waiting,
    /// The head of a request has arrived, and the answer is not over.
    Answering,
    /// The answer is a stream of events.
    Streaming,
    /// It is no longer HTTP.
    Upgraded,
}

/// Why a request is refused, whatever its handler says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Its body comes too slowly.
    SlowBody = 1,
    /// The node's budget has no place for its body.
    OverBudget,
}

/// What other tasks tell the reader.
#[derive(Debug, Default)]
pub struct ReadState {
    phase: AtomicU8,
    refusal: AtomicU8,
    /// Whether a head has arrived that the reader has not noted.
    new_request: AtomicBool,
    /// Whether the reader waits for the writer.
    waiting: AtomicBool,
    /// Nothing more is read.
    ended: AtomicBool,
}

impl ReadState {
    pub fn phase(&self) -> Phase {
        let all = [Phase::Waiting, Phase::Answering, Phase::Streaming, Phase::Upgraded];
        all[usize::from(self.phase.load(Acquire))]
    }

    /// An upgraded connection stays so.
    pub fn set_phase(&self, phase: Phase) {
        if self.phase() != Phase::Upgraded {
            self.phase.store(phase as u8, Release);
        }
    }

    /// The head of a request has arrived.
    pub fn begin_request(&self) {
        self.set_phase(Phase::Answering);
        self.new_request.store(true, Release);
    }

    /// Whether the head of a request has arrived since this was asked last.
    pub fn take_new_request(&self) -> bool {
        self.new_request.load(Acquire) && self.new_request.swap(false, Acquire)
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Acquire)
    }

    pub fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Release);
    }

    /// Refuses the request whose body is being read.
    pub fn refuse(&self, refusal: Refusal) {
        self.refusal.store(refusal as u8, Relaxed);
    }

    /// Whether the last request was refused. Asked once.
    pub fn take_refusal(&self) -> Option<Refusal> {
        match self.refusal.swap(0, Relaxed) {
            0 => None,
            slow if slow == Refusal::SlowBody as u8 => Some(Refusal::SlowBody),
            _ => Some(Refusal::OverBudget),
        }
    }

    pub fn end(&self) {
        self.ended.store(true, Release);
    }

    /// Fails once reading has ended.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionAborted`] if it has.
    pub fn check_open(&self) -> io::Result<()> {
        match self.ended.load(Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

/// How long a peer may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a request's head to its last. The first head begins with the connection.
    pub head: Duration,
    /// Between requests, and up to twice that after an answer that took its time.
    pub idle: Duration,
}

/// The deadline of what is being read. Its timer is set only when a wait is longer than the last one.
#[derive(Debug)]
pub struct ReadDeadline {
    patience: Patience,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the present wait began.
    since: Option<Instant>,
    /// Whether the peer has begun with a head.
    in_head: bool,
}

impl ReadDeadline {
    pub fn new(patience: Patience) -> Self {
        Self { patience, sleep: None, since: Some(Instant::now()), in_head: true }
    }

    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Notes that a head has arrived.
    pub fn note_request(&mut self) {
        (self.in_head, self.since) = (false, None);
    }

    /// Notes that something has arrived.
    pub fn note_read(&mut self, phase: Phase) {
        if phase == Phase::Waiting && !self.in_head {
            (self.in_head, self.since) = (true, None);
        }
    }

    /// Pending while the peer may stay silent.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it was silent for too long.
    pub fn poll_silence(&mut self, phase: Phase, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match phase {
            Phase::Waiting => {
                let patience = if self.in_head { self.patience.head } else { self.patience.idle };
                ready!(self.poll_since(patience, context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // An upgraded connection keeps no timer.
            Phase::Upgraded => self.sleep = None,
            // Nobody reads again when the answer is over, so the timer has to find out. It begins anew until then.
            Phase::Answering | Phase::Streaming => {
                self.since = None;
                let _never_now = self.poll_since(self.patience.idle, context);
                self.since = None;
            }
        }
        Poll::Pending
    }

    /// Ready when a peer that has closed its sending side has waited long enough for the answer.
    pub fn poll_half_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_since(HALF_CLOSED, context)
    }

    fn poll_since(&mut self, patience: Duration, context: &mut Context<'_>) -> Poll<()> {
        let due = *self.since.get_or_insert_with(Instant::now) + patience;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.deadline() < due {
            // It was set for an earlier wait, and is moved on once it is over.
            ready!(sleep.as_mut().poll(context));
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(20), idle: Duration::from_secs(75) };

    async fn silent_for(deadline: &mut ReadDeadline, phase: Phase) -> u64 {
        let start = Instant::now();
        let silence = poll_fn(|context| deadline.poll_silence(phase, context));
        match tokio::time::timeout(Duration::from_secs(3600), silence).await {
            Ok(ended) => assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut),
            Err(_) => return u64::MAX,
        }
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn every_head_has_its_time_and_so_has_the_pause_between_two() {
        let mut first = ReadDeadline::new(PATIENCE);
        first.note_read(Phase::Waiting);
        assert_eq!(silent_for(&mut first, Phase::Waiting).await, 20, "bytes do not prolong the first head");
        let mut answered = ReadDeadline::new(PATIENCE);
        answered.note_request();
        let (start, mut polls) = (Instant::now(), 0);
        let silence = poll_fn(|context| {
            polls += 1;
            answered.poll_silence(if polls == 1 { Phase::Answering } else { Phase::Waiting }, context)
        });
        assert!(silence.await.is_err() && start.elapsed() == PATIENCE.idle * 2, "nobody else polls");
        let mut later = ReadDeadline::new(PATIENCE);
        later.note_request();
        assert_eq!(silent_for(&mut later, Phase::Answering).await, u64::MAX);
        assert_eq!(silent_for(&mut later, Phase::Waiting).await, 75, "between requests");
        let mut dripping = ReadDeadline::new(PATIENCE);
        dripping.note_request();
        let idle = poll_fn(|context| dripping.poll_silence(Phase::Waiting, context));
        assert!(tokio::time::timeout(Duration::from_secs(10), idle).await.is_err());
        dripping.note_read(Phase::Waiting);
        assert_eq!(silent_for(&mut dripping, Phase::Waiting).await, 20, "a later head");
        assert_eq!(silent_for(&mut dripping, Phase::Upgraded).await, u64::MAX);
    }
}
