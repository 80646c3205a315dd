//! The outbox of a connection. hyper and the WebSocket library use it like any stream. Fanned-out frames bypass them:
//! they are shared by all connections, wait here, and are written many at a time between the library's own frames.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{
    first_request_deadline::ReadState,
    frame_scanner::FrameScanner,
    write_queue::{FrameBatch, WriteQueue},
};
use crate::tasks::Tasks;

/// The most batches that one system call writes.
const MAX_BATCHES_PER_WRITE: usize = 64;

/// A connection's socket and what waits for it. Writers share it with tasks that may abort it.
#[derive(Debug)]
pub struct Outbox {
    stream: TcpStream,
    /// Bytes handed to the kernel, by the library and directly.
    written: AtomicU64,
    pub read_state: ReadState,
    state: Mutex<State>,
    tasks: Tasks,
}

/// What waits to be written, and who writes next.
#[derive(Debug, Default)]
struct State {
    scanner: FrameScanner,
    direct: DirectWrites,
    queue: WriteQueue,
    /// How many bytes of the first batch have been written.
    first_written: usize,
    pending_bytes: usize,
    pending_frames: usize,
    library: Option<LibraryTurn>,
    /// Whether a task waits until the socket is writable.
    has_writer: bool,
    closed: bool,
}

/// Whether frames may bypass the library.
#[derive(Debug, Default)]
enum DirectWrites {
    /// The library speaks HTTP.
    #[default]
    Unavailable,
    /// The library writes frames, and nobody else has asked to.
    Off,
    /// They begin once the library writes this frame, which is not sent.
    OnAfter(Bytes),
    On,
}

/// The library waits to write.
#[derive(Debug)]
struct LibraryTurn {
    /// How many batches go first: those that were queued earlier.
    batches_first: usize,
    waker: Waker,
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

/// How far a write got.
enum Progress {
    Drained,
    /// The socket takes no more for now.
    Blocked,
    Failed,
}

impl Outbox {
    pub fn new(stream: TcpStream, tasks: Tasks) -> Self {
        Self {
            stream,
            written: AtomicU64::new(0),
            read_state: ReadState::default(),
            state: Mutex::default(),
            tasks,
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How many bytes have been handed to the kernel so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many bytes of frames wait.
    pub fn pending_bytes(&self) -> u64 {
        self.state().pending_bytes as u64
    }

    /// The library writes frames from here on.
    pub fn start_websocket(&self) {
        self.state().direct = DirectWrites::Off;
    }

    /// Starts direct writes once the library writes `mark`. Everything that the library was given earlier has then been
    /// written. The mark itself is never sent. `false` if the library does not write frames.
    pub fn write_directly_after(&self, mark: Bytes) -> bool {
        let mut state = self.state();
        if matches!(state.direct, DirectWrites::Off) {
            state.direct = DirectWrites::OnAfter(mark);
        }
        !matches!(state.direct, DirectWrites::Unavailable)
    }

    /// Queues `frames` whole frames, all or none. Other connections may share the bytes. The next [`Outbox::flush`]
    /// sends them.
    pub fn push(&self, bytes: &Bytes, frames: usize, limits: Limits) -> Push {
        let mut state = self.state();
        if state.closed {
            return Push::Closed;
        }
        // The bound holds before the last frame: a single large frame may pass, a batch may not.
        let before_last = if frames > 1 { bytes.len() } else { 0 };
        if state.pending_frames + frames > limits.frames
            || (state.pending_bytes + before_last) as u64 >= limits.bytes
        {
            return Push::Full;
        }
        state.pending_bytes += bytes.len();
        state.pending_frames += frames;
        state.queue.push(FrameBatch { bytes: bytes.clone(), frames });
        Push::Queued
    }

    /// Writes what waits until the socket is full. A task writes the rest.
    pub fn flush(self: &Arc<Self>) {
        self.flush_state(&mut self.state());
    }

    fn flush_state(self: &Arc<Self>, state: &mut State) {
        if matches!(self.write_frames(state), Progress::Blocked)
            && !std::mem::replace(&mut state.has_writer, true)
        {
            self.tasks.spawn_until_stop("writers", self.clone().write_when_ready());
        }
    }

    /// Writes whenever the socket is writable, until the queue is empty or the library is next.
    async fn write_when_ready(self: Arc<Self>) {
        loop {
            let ready = self.stream.writable().await;
            let mut state = self.state();
            if ready.is_ok() && matches!(self.write_frames(&mut state), Progress::Blocked) {
                continue;
            }
            state.has_writer = false;
            return;
        }
    }

    fn write_frames(&self, state: &mut State) -> Progress {
        loop {
            let allowed = state.library.as_ref().map_or(state.queue.len(), |turn| turn.batches_first);
            let allowed = if state.may_write() { allowed } else { 0 };
            if allowed == 0 {
                return Progress::Drained;
            }
            let wanted = state.wanted(allowed);
            match write(&self.stream, &state.queue, state.first_written, allowed) {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                    state.take(count);
                    if count < wanted {
                        return Progress::Blocked;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Blocked,
                // The reader gets the same error and ends the connection.
                Err(_) => {
                    state.close();
                    return Progress::Failed;
                }
            }
        }
    }

    /// Writes for the library while it speaks HTTP.
    pub fn poll_write(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll_try(&mut self.state(), context, write)
    }

    /// Writes frames for the library: at most one at a time, and only when the library is next.
    pub fn poll_write_frames(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if state.must_wait(context) {
            return Poll::Pending;
        }
        if let DirectWrites::OnAfter(mark) = &state.direct
            && state.scanner.is_between_frames()
            && bytes.starts_with(mark)
        {
            let swallowed = mark.len();
            state.direct = DirectWrites::On;
            state.library = None;
            self.flush_state(&mut state);
            return Poll::Ready(Ok(swallowed));
        }
        let Ok(chunk) = state.scanner.next_chunk(bytes) else {
            return Poll::Ready(Err(ErrorKind::InvalidData.into()));
        };
        let written = ready!(self.poll_try(&mut state, context, |stream| stream.try_write(&bytes[..chunk])));
        state.scanner.advance(*written.as_ref().unwrap_or(&0));
        if state.may_write() {
            state.library = None;
            self.flush_state(&mut state);
        }
        Poll::Ready(written)
    }

    fn poll_try(
        &self,
        state: &mut State,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&self.stream) {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The library writes first once the socket is writable.
                    state.library = Some(LibraryTurn { batches_first: 0, waker: context.waker().clone() });
                    ready!(self.stream.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ends the sending side, for the library.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match SockRef::from(&self.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            outcome => outcome,
        }
    }

    /// Aborts the connection at once. Unsent bytes are lost.
    pub fn abort(&self) {
        self.state().close();
        // Without this the kernel would keep sending to a peer that does not read.
        let _already_gone = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        let _already_gone = SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// Called when the library drops the stream. Other handles may live on, so the socket is shut down here.
    pub fn release(self: &Arc<Self>) {
        self.state().close();
        if Arc::strong_count(self) > 1 {
            let _already_gone = SockRef::from(&self.stream).shutdown(Shutdown::Both);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_write(&self) -> bool {
        matches!(self.direct, DirectWrites::On) && self.scanner.is_between_frames() && !self.closed
    }

    /// Whether frames go first. The library is then woken when it is next.
    fn must_wait(&mut self, context: &mut Context<'_>) -> bool {
        if !self.may_write() {
            return false;
        }
        let batches_first = self.library.as_ref().map_or(self.queue.len(), |turn| turn.batches_first);
        self.library =
            (batches_first > 0).then(|| LibraryTurn { batches_first, waker: context.waker().clone() });
        batches_first > 0
    }

    /// How many bytes one call should write of the first `allowed` batches.
    fn wanted(&self, allowed: usize) -> usize {
        self.queue
            .iter()
            .take(allowed.min(MAX_BATCHES_PER_WRITE))
            .map(|batch| batch.bytes.len())
            .sum::<usize>()
            - self.first_written
    }

    /// Removes what was written.
    fn take(&mut self, count: usize) {
        self.pending_bytes -= count;
        self.first_written += count;
        while let Some(first) = self.queue.first()
            && self.first_written >= first.bytes.len()
        {
            self.first_written -= first.bytes.len();
            self.pending_frames -= first.frames;
            self.queue.pop();
            if let Some(turn) = &mut self.library {
                turn.batches_first = turn.batches_first.saturating_sub(1);
                if turn.batches_first == 0 {
                    turn.waker.wake_by_ref();
                }
            }
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.queue = WriteQueue::default();
        (self.pending_bytes, self.pending_frames, self.first_written) = (0, 0, 0);
        if let Some(turn) = self.library.take() {
            turn.waker.wake();
        }
    }
}

/// Writes the first `allowed` batches, from `first_written` on in the first one, as far as one call takes them.
fn write(stream: &TcpStream, queue: &WriteQueue, first_written: usize, allowed: usize) -> io::Result<usize> {
    if allowed == 1 {
        return stream.try_write(queue.first().map_or(&[][..], |first| &first.bytes[first_written..]));
    }
    let mut slices = [IoSlice::new(&[]); MAX_BATCHES_PER_WRITE];
    let count = allowed.min(MAX_BATCHES_PER_WRITE);
    for (slice, batch) in slices.iter_mut().zip(queue.iter()).take(count) {
        *slice = IoSlice::new(&batch.bytes);
    }
    slices[0].advance(first_written);
    stream.try_write_vectored(&slices[..count])
}

#[cfg(test)]
mod tests;
