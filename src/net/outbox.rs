//! The outbox of a connection: its one writer. What hyper and the WebSocket library write, and what the fan-out pushes,
//! goes to the socket in one order. What the socket does not take waits here, and is counted.

mod state;

use std::{
    io::{self, ErrorKind, IoSlice},
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::state::{AwaitedMark, End, Mode, Stall, State};
use super::{
    acceptor::Place,
    frame::{is_close, split_first},
    reading::{Phase, ReadState},
    stream::Stream,
    supervisor::Supervisor,
    write_queue::WriteQueue,
};
use crate::budget::Purpose;

/// The most batches that one system call writes.
const MAX_BATCHES_PER_WRITE: usize = 64;

/// How long the library may take to write the mark.
const MARK_PATIENCE: Duration = Duration::from_secs(5);

/// How long the rest of a connection that the library has ended may take.
const LINGER: Duration = Duration::from_secs(10);

/// Over what time the rate of a peer is measured that does not take all of an answer.
const RATE_WINDOW: Duration = Duration::from_secs(15);

/// The same for a stream of events, whose session is closed by `limits.behind` when more is to be sent.
const STREAM_WINDOW: Duration = Duration::from_secs(60);

/// A connection's socket and what waits for it. Writers share it with tasks that may abort it.
#[derive(Debug)]
pub struct Outbox {
    stream: Stream,
    /// Bytes handed to the kernel.
    written: AtomicU64,
    pub reading: ReadState,
    state: Mutex<State>,
    supervisor: Arc<Supervisor>,
    /// Given back when nobody holds the connection any more.
    _place: Place,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Frames.
    pub frames: usize,
    /// Bytes. A larger frame passes if nothing else waits.
    pub bytes: u64,
}

/// The outcome of [`Outbox::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// The frames wait behind all earlier ones. [`Outbox::flush`] sends them.
    Queued,
    /// The queue is full.
    Full,
    /// The connection is closed.
    Closed,
}

/// What [`Outbox::look_after`] has found.
#[derive(Debug, Clone, Copy)]
pub enum Waiting {
    /// Bytes that wait, and how many of them others may share.
    Bytes { all: u64, shared: u64 },
    /// The connection is cut.
    Cut,
}

impl Outbox {
    pub fn new(stream: Stream, supervisor: Arc<Supervisor>, place: Place) -> Self {
        Self {
            stream,
            written: AtomicU64::new(0),
            reading: ReadState::default(),
            state: Mutex::default(),
            supervisor,
            _place: place,
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// How many bytes have been handed to the kernel so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many bytes wait, of the library and of the fan-out.
    pub fn pending_bytes(&self) -> u64 {
        self.state().pending().0 as u64
    }

    /// Whether the library still holds the connection.
    pub fn is_open(&self) -> bool {
        matches!(self.state().end, End::Open | End::Closing | End::LastWritten)
    }

    /// The library writes frames from here on, each call whole ones.
    pub fn start_websocket(&self) {
        self.state().mode = Mode::Frames;
    }

    /// Lets frames of the fan-out follow once the library writes `mark`. Everything that the library was given earlier
    /// then goes first. The mark itself is never sent; if it does not come in time, they follow without it. `false` if
    /// the library does not write frames.
    pub fn write_directly_after(self: &Arc<Self>, mark: Bytes) -> bool {
        let mut state = self.state();
        if matches!(state.mode, Mode::Frames) {
            let awaited = AwaitedMark { mark, since: Instant::now(), after: WriteQueue::default() };
            state.mode = Mode::Marked(Box::new(awaited));
        }
        self.settle(&mut state);
        !matches!(state.mode, Mode::Http)
    }

    /// Queues `frames` whole frames, all or none. Other connections may share the bytes. The next [`Outbox::flush`]
    /// sends them.
    pub fn push(&self, bytes: &Bytes, frames: usize, limits: Limits) -> Push {
        let mut state = self.state();
        if state.end != End::Open {
            return Push::Closed;
        }
        // The bound holds before the last frame: a single large frame may pass, a batch may not.
        let before_last = if frames > 1 { bytes.len() } else { 0 };
        let (pending_bytes, pending_frames) = state.pending();
        if pending_frames + frames > limits.frames || (pending_bytes + before_last) as u64 >= limits.bytes {
            return Push::Full;
        }
        match &mut state.mode {
            Mode::Marked(awaited) => awaited.after.push(bytes.clone(), frames),
            _ => state.queue.push(bytes.clone(), frames),
        }
        Push::Queued
    }

    /// Writes what waits until the socket is full. A task writes the rest.
    pub fn flush(self: &Arc<Self>) {
        self.flush_state(&mut self.state());
    }

    fn flush_state(self: &Arc<Self>, state: &mut State) {
        self.write_queued(state);
        self.settle(state);
    }

    /// Writes whenever the socket is writable, until nothing waits.
    async fn write_when_ready(self: Arc<Self>) {
        loop {
            let ready = self.stream.writable().await;
            let mut state = self.state();
            match ready {
                Ok(()) => self.write_queued(&mut state),
                Err(_) => state.close(),
            }
            state.has_writer = !state.queue.is_empty();
            let goes_on = state.has_writer;
            self.settle(&mut state);
            if !goes_on {
                return;
            }
        }
    }

    /// Writes until the queue is empty or the socket is full.
    fn write_queued(&self, state: &mut State) {
        while !state.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_BATCHES_PER_WRITE];
            let (count, wanted) = state.queue.slices(&mut slices);
            let written = match &slices[..count] {
                [one] => self.stream.try_write(one),
                slices => self.stream.try_write_vectored(slices),
            };
            match written {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                    state.queue.advance(count);
                    if count < wanted {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The reader gets the same error and ends the connection.
                Err(_) => return state.close(),
            }
        }
    }

    /// What follows on every write: counts what waits, has it written later, wakes who waited for it.
    fn settle(self: &Arc<Self>, state: &mut State) {
        let own = state.queue.own_bytes() + state.unwritten + self.stream.held();
        match (&mut state.reservation, own) {
            (None, 0) => {}
            (Some(_), 0) => state.reservation = None,
            (Some(reservation), own) => reservation.set(own as u64),
            (None, own) => {
                let budget = self.supervisor.budget();
                state.reservation = Some(budget.charge(Purpose::Outbox, own as u64));
            }
        }
        if state.queue.is_empty() && state.unwritten == 0 {
            state.stall = None;
            self.end_drained(state);
        } else {
            let written = self.written();
            state.stall.get_or_insert_with(|| Stall { since: Instant::now(), written });
        }
        if !state.queue.is_empty() && !std::mem::replace(&mut state.has_writer, true) {
            self.supervisor.tasks().spawn_until_stop("writers", self.clone().write_when_ready());
        }
        if !state.may_be_left_alone() && !std::mem::replace(&mut state.is_supervised, true) {
            self.supervisor.add(self);
        }
        if !state.holds_up_reading() {
            self.wake_reader(state);
        }
    }

    /// Ends what was to be ended once nothing waits.
    fn end_drained(&self, state: &mut State) {
        match state.end {
            End::Open | End::Closing | End::Closed => {}
            End::LastWritten => self.stream.end(Shutdown::Write),
            End::Lingering(_) => {
                state.close();
                self.stream.end(Shutdown::Both);
            }
        }
    }

    /// Writes for the library while it speaks HTTP. `offered` bytes wait in the library.
    pub fn poll_write(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        offered: usize,
        write: impl Fn(&Stream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&self.stream) {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                    let mut state = self.state();
                    if state.unwritten > 0 {
                        state.unwritten = offered - count;
                        self.settle(&mut state);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut state = self.state();
                    if state.end == End::Closed {
                        return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
                    }
                    state.unwritten = offered;
                    self.settle(&mut state);
                    drop(state);
                    ready!(self.stream.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes whole frames for the library. Takes all of them; what the socket does not take waits here.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] if they are not whole, [`ErrorKind::BrokenPipe`] once the connection is closed.
    pub fn write_frames(self: &Arc<Self>, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.end == End::Closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let (mut from, mut rest) = (bytes, bytes);
        while !rest.is_empty() {
            let (frame, after) = split_first(rest).ok_or(ErrorKind::InvalidData)?;
            if state.awaits(frame) {
                self.write_or_queue(&mut state, &from[..from.len() - rest.len()]);
                state.share();
                from = after;
            } else if is_close(frame) {
                state.end = End::Closing;
            }
            rest = after;
        }
        self.write_or_queue(&mut state, from);
        self.flush_state(&mut state);
        Ok(bytes.len())
    }

    fn write_or_queue(&self, state: &mut State, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let written = if state.queue.is_empty() { self.stream.try_write(bytes).unwrap_or(0) } else { 0 };
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        if written < bytes.len() {
            state.queue.push(Bytes::copy_from_slice(&bytes[written..]), 0);
        }
    }

    /// Whether the reader has to wait: what the library wrote does. It is woken when that has changed.
    pub fn holds_up_reading(&self, context: &Context<'_>) -> bool {
        let mut state = self.state();
        let holds = state.holds_up_reading();
        if holds {
            self.wake_later(&mut state, context);
        }
        holds
    }

    /// Wakes the reader when the answer is over, or all of it is written.
    pub fn wake_when_answered(&self, context: &Context<'_>) {
        self.wake_later(&mut self.state(), context);
    }

    fn wake_later(&self, state: &mut State, context: &Context<'_>) {
        state.reader = Some(context.waker().clone());
        self.reading.set_waiting(true);
    }

    fn wake_reader(&self, state: &mut State) {
        if let Some(reader) = state.reader.take() {
            self.reading.set_waiting(false);
            reader.wake();
        }
    }

    /// Whether the socket does not take what hyper wants to write.
    pub fn is_writing_answer(&self) -> bool {
        self.state().unwritten > 0
    }

    /// The library has got the whole answer. Wakes the reader if it waits for that.
    pub fn answered(&self) {
        self.reading.set_phase(Phase::Waiting);
        if self.reading.is_waiting() {
            self.wake_reader(&mut self.state());
        }
    }

    /// Ends the sending side once what waits is written, for the library.
    pub fn shutdown_write(self: &Arc<Self>) {
        let mut state = self.state();
        if matches!(state.end, End::Open | End::Closing) {
            (state.end, state.unwritten) = (End::LastWritten, 0);
        }
        self.settle(&mut state);
    }

    /// Aborts the connection at once. Unsent bytes are lost.
    pub fn abort(&self) {
        self.reading.end();
        self.state().close();
        self.stream.reset();
    }

    /// Called when the library drops the stream. What waits is still written. Other handles may live on, so the socket
    /// is shut down here.
    pub fn release(self: &Arc<Self>) {
        let mut state = self.state();
        state.unwritten = 0;
        state.reader = None;
        if state.end == End::Closed || matches!(state.mode, Mode::Http) || state.queue.is_empty() {
            state.close();
            drop(state);
            if Arc::strong_count(self) > 1 {
                self.stream.end(Shutdown::Both);
            }
        } else {
            state.end = End::Lingering(Instant::now() + LINGER);
            self.settle(&mut state);
        }
    }

    /// Ends a connection that takes too little or lingers for too long, and sends what waits for a mark that does not
    /// come. `None` once there is nothing to look after.
    pub fn look_after(self: &Arc<Self>, now: Instant, min_rate: u64) -> Option<Waiting> {
        let mut state = self.state();
        if matches!(&state.mode, Mode::Marked(awaited) if now.duration_since(awaited.since) > MARK_PATIENCE) {
            tracing::warn!("the Socket.IO library did not write what it was given; events go on without it");
            state.share();
            self.flush_state(&mut state);
        }
        if state.may_be_left_alone() {
            state.is_supervised = false;
            return None;
        }
        if self.is_too_slow(&mut state, now, min_rate) {
            drop(state);
            self.abort();
            return Some(Waiting::Cut);
        }
        let (bytes, own) = (state.pending().0, state.queue.own_bytes() + state.unwritten);
        Some(Waiting::Bytes { all: bytes as u64, shared: bytes.saturating_sub(own) as u64 })
    }

    fn is_too_slow(&self, state: &mut State, now: Instant, min_rate: u64) -> bool {
        if let End::Lingering(until) = state.end {
            return now >= until;
        }
        // What waits for a WebSocket is bounded by its session.
        let (Mode::Http, Some(stall)) = (&state.mode, &mut state.stall) else { return false };
        let (window, took) = (now.duration_since(stall.since), self.written() - stall.written);
        let is_stream = self.reading.phase() == Phase::Streaming;
        if window < if is_stream { STREAM_WINDOW } else { RATE_WINDOW } {
            return false;
        }
        *stall = Stall { since: now, written: self.written() };
        took < min_rate * window.as_secs()
    }

    /// Calls `count` with the address and the length of frames that others may share.
    pub fn each_shared(&self, mut count: impl FnMut(usize, usize)) {
        self.state().queue.shared().for_each(|(address, length)| count(address, length));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
