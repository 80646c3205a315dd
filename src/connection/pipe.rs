//! What a connection's bytes go through. A library (hyper, then a WebSocket implementation) reads and writes it like
//! any stream; what is fanned out goes beside the library: frames that are shared by all who get them wait here, and
//! are written, many at once, where the library's own frames leave room.

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
    boundary::Boundary,
    gate::Pass,
    runs::{Run, Runs},
};
use crate::tasks::Tasks;

/// How many runs of frames go out in one system call at the most.
const GATHERED: usize = 64;

/// The stream of a connection, shared by those who write to it and those who may have to cut it.
#[derive(Debug)]
pub struct Pipe {
    stream: TcpStream,
    /// How many bytes the system has taken, whoever wrote them.
    written: AtomicU64,
    pub pass: Pass,
    out: Mutex<Out>,
    tasks: Tasks,
}

/// What waits to be written, and whose turn it is.
#[derive(Debug, Default)]
struct Out {
    boundary: Boundary,
    beside: Beside,
    runs: Runs,
    /// How many bytes of the first run have been written.
    begun: usize,
    /// How many bytes wait, and how many frames.
    waiting: usize,
    frames: usize,
    library: Option<Turn>,
    /// Whether a task waits until the system takes more.
    draining: bool,
    closed: bool,
}

/// Whether frames may be written beside the library.
#[derive(Debug, Default)]
enum Beside {
    /// It speaks HTTP.
    #[default]
    Never,
    /// It writes frames, and nobody else has asked to.
    NotYet,
    /// As soon as the library has got to this frame of its own, which is not sent.
    After(Bytes),
    Now,
}

/// The library waits for its turn.
#[derive(Debug)]
struct Turn {
    /// How many runs go first: those that were there before.
    after: usize,
    waker: Waker,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Frames.
    pub frames: usize,
    /// Bytes; a frame that is larger passes where nothing else waits.
    pub bytes: u64,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It waits, behind all that waited before; [`Pipe::flush`] sends it.
    Waits,
    /// There is no place for it now.
    Full,
    /// The connection is closed.
    Closed,
}

/// How far writing got.
enum Outcome {
    Done,
    /// The system takes no more for now.
    Blocked,
    Broken,
}

impl Pipe {
    pub fn new(stream: TcpStream, tasks: Tasks) -> Self {
        Self { stream, written: AtomicU64::new(0), pass: Pass::default(), out: Mutex::default(), tasks }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How many bytes the system has taken for the peer so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many bytes wait beside the library.
    pub fn waiting(&self) -> u64 {
        self.out().waiting as u64
    }

    /// Says that the library writes frames from here on.
    pub fn begin_frames(&self) {
        self.out().beside = Beside::NotYet;
    }

    /// Lets frames be written beside the library as soon as it gets to `mark`, a frame of its own: whatever it was
    /// given before has left then. That one frame is not sent. `false` where the library does not write frames.
    pub fn write_beside_after(&self, mark: Bytes) -> bool {
        let mut out = self.out();
        if matches!(out.beside, Beside::NotYet) {
            out.beside = Beside::After(mark);
        }
        !matches!(out.beside, Beside::Never)
    }

    /// Queues whole frames, so many, which may be shared with other connections; all of them or none. They are sent with
    /// the next [`Pipe::flush`].
    pub fn push(&self, bytes: &Bytes, frames: usize, most: Most) -> Queued {
        let mut out = self.out();
        if out.closed {
            return Queued::Closed;
        }
        // Of several frames the last one must have found place too.
        let before_last = if frames > 1 { bytes.len() } else { 0 };
        if out.frames + frames > most.frames || (out.waiting + before_last) as u64 >= most.bytes {
            return Queued::Full;
        }
        out.waiting += bytes.len();
        out.frames += frames;
        out.runs.push(Run { bytes: bytes.clone(), frames });
        Queued::Waits
    }

    /// Sends what waits, as far as the system takes it at once; the rest follows by itself.
    pub fn flush(self: &Arc<Self>) {
        self.flush_out(&mut self.out());
    }

    fn flush_out(self: &Arc<Self>, out: &mut Out) {
        if matches!(self.write_frames(out), Outcome::Blocked) && !std::mem::replace(&mut out.draining, true) {
            self.tasks.spawn_until_stop("writers", self.clone().drain());
        }
    }

    /// Goes on writing whenever the system takes more, until nothing waits, or the library has its turn.
    async fn drain(self: Arc<Self>) {
        loop {
            let ready = self.stream.writable().await;
            let mut out = self.out();
            if ready.is_ok() && matches!(self.write_frames(&mut out), Outcome::Blocked) {
                continue;
            }
            out.draining = false;
            return;
        }
    }

    fn write_frames(&self, out: &mut Out) -> Outcome {
        loop {
            let due = out.library.as_ref().map_or(out.runs.len(), |turn| turn.after);
            let due = if out.may_write() { due } else { 0 };
            if due == 0 {
                return Outcome::Done;
            }
            let wanted = out.wanted(due);
            match write(&self.stream, &out.runs, out.begun, due) {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                    out.take(count);
                    if count < wanted {
                        return Outcome::Blocked;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Blocked,
                // Whoever reads meets the same error, and ends the connection.
                Err(_) => {
                    out.close();
                    return Outcome::Broken;
                }
            }
        }
    }

    /// Writes for a library that speaks HTTP.
    pub fn poll_write(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll_try(&mut self.out(), context, write)
    }

    /// Writes frames for a library: at most up to the end of one, and once it is its turn.
    pub fn poll_write_frames(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut out = self.out();
        if out.must_wait(context) {
            return Poll::Pending;
        }
        if let Beside::After(mark) = &out.beside
            && out.boundary.is_clear()
            && bytes.starts_with(mark)
        {
            let swallowed = mark.len();
            out.beside = Beside::Now;
            out.library = None;
            self.flush_out(&mut out);
            return Poll::Ready(Ok(swallowed));
        }
        let Ok(unit) = out.boundary.unit(bytes) else {
            return Poll::Ready(Err(ErrorKind::InvalidData.into()));
        };
        let written = ready!(self.poll_try(&mut out, context, |stream| stream.try_write(&bytes[..unit])));
        out.boundary.advance(*written.as_ref().unwrap_or(&0));
        if out.may_write() {
            out.library = None;
            self.flush_out(&mut out);
        }
        Poll::Ready(written)
    }

    fn poll_try(
        &self,
        out: &mut Out,
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
                    // Nobody else goes first when the system takes more.
                    out.library = Some(Turn { after: 0, waker: context.waker().clone() });
                    ready!(self.stream.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ends the sending side, for the library.
    pub fn shut(&self) -> io::Result<()> {
        match SockRef::from(&self.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            outcome => outcome,
        }
    }

    /// Cuts the connection at once. What was not sent yet is lost.
    pub fn cut(&self) {
        self.out().close();
        // Without it the system would go on trying to send what nobody reads.
        let _already_gone = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        let _already_gone = SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// Notes that the library has let go of the connection. Others may still hold it: they must not keep the peer
    /// waiting for its end.
    pub fn release(self: &Arc<Self>) {
        self.out().close();
        if Arc::strong_count(self) > 1 {
            let _already_gone = SockRef::from(&self.stream).shutdown(Shutdown::Both);
        }
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Out {
    fn may_write(&self) -> bool {
        matches!(self.beside, Beside::Now) && self.boundary.is_clear() && !self.closed
    }

    /// Whether the library has to wait because frames go first; then it is woken when it is its turn.
    fn must_wait(&mut self, context: &mut Context<'_>) -> bool {
        if !self.may_write() {
            return false;
        }
        let after = self.library.as_ref().map_or(self.runs.len(), |turn| turn.after);
        self.library = (after > 0).then(|| Turn { after, waker: context.waker().clone() });
        after > 0
    }

    /// How many bytes the first `due` runs have left, of those that go out in one call.
    fn wanted(&self, due: usize) -> usize {
        self.runs.iter().take(due.min(GATHERED)).map(|run| run.bytes.len()).sum::<usize>() - self.begun
    }

    /// Takes away what was written.
    fn take(&mut self, count: usize) {
        self.waiting -= count;
        self.begun += count;
        while let Some(first) = self.runs.first()
            && self.begun >= first.bytes.len()
        {
            self.begun -= first.bytes.len();
            self.frames -= first.frames;
            self.runs.pop();
            if let Some(turn) = &mut self.library {
                turn.after = turn.after.saturating_sub(1);
                if turn.after == 0 {
                    turn.waker.wake_by_ref();
                }
            }
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.runs = Runs::default();
        (self.waiting, self.frames, self.begun) = (0, 0, 0);
        if let Some(turn) = self.library.take() {
            turn.waker.wake();
        }
    }
}

/// Writes the first `due` runs, without the bytes that have been written of the first; not more than go out in one call.
fn write(stream: &TcpStream, runs: &Runs, begun: usize, due: usize) -> io::Result<usize> {
    if due == 1 {
        return stream.try_write(runs.first().map_or(&[][..], |first| &first.bytes[begun..]));
    }
    let mut slices = [IoSlice::new(&[]); GATHERED];
    let count = due.min(GATHERED);
    for (slice, run) in slices.iter_mut().zip(runs.iter()).take(count) {
        *slice = IoSlice::new(&run.bytes);
    }
    slices[0].advance(begun);
    stream.try_write_vectored(&slices[..count])
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::SocketAddr};

    use proptest::{prelude::*, test_runner::TestRunner};
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::connection::text_frame;

    const MOST: Most = Most { frames: 1000, bytes: 1 << 20 };

    async fn connected() -> (Arc<Pipe>, TcpStream) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        let pipe = Arc::new(Pipe::new(stream, Tasks::new()));
        pipe.begin_frames();
        (pipe, peer)
    }

    /// Writes as a library does: in one buffer what there is, and on from where it got to.
    async fn write_all(pipe: &Arc<Pipe>, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = poll_fn(|context| pipe.poll_write_frames(context, bytes)).await.unwrap();
            bytes = &bytes[count..];
        }
    }

    /// The texts of frames that arrive, until there were so many.
    async fn texts(peer: &mut TcpStream, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            assert_eq!(peer.read_u8().await.unwrap(), 0x81, "a frame begins after {texts:?}");
            let length = match peer.read_u8().await.unwrap() {
                126 => peer.read_u16().await.unwrap().into(),
                short => usize::from(short),
            };
            let mut text = vec![0; length];
            peer.read_exact(&mut text).await.unwrap();
            texts.push(String::from_utf8(text).unwrap().trim_end_matches('x').to_owned());
        }
        texts
    }

    fn frame(name: &str, padding: usize) -> Bytes {
        text_frame(&[name.as_bytes(), "x".repeat(padding).as_bytes()])
    }

    #[tokio::test]
    async fn the_mark_is_not_sent_and_what_came_before_it_goes_first() {
        let (pipe, mut peer) = connected().await;
        let mark = frame("mark", 0);
        assert!(pipe.write_beside_after(mark.clone()));
        assert_eq!(pipe.push(&frame("beside", 0), 1, MOST), Queued::Waits);
        pipe.flush();
        write_all(&pipe, &[frame("first", 0), mark, frame("ping", 0)].concat()).await;
        assert_eq!(texts(&mut peer, 3).await, ["first", "beside", "ping"]);
        assert_eq!(pipe.waiting(), 0);
    }

    #[tokio::test]
    async fn nothing_goes_beside_http() {
        let (pipe, _peer) = connected().await;
        pipe.out().beside = Beside::Never;
        assert!(!pipe.write_beside_after(frame("mark", 0)));
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_frames_and_bytes() {
        let (pipe, _peer) = connected().await;
        let few = Most { frames: 3, bytes: 100 };
        assert_eq!(pipe.push(&frame("large", 200), 1, few), Queued::Waits, "nothing else waits");
        assert_eq!(pipe.push(&frame("more", 0), 1, few), Queued::Full);
        let (pipe, _peer) = connected().await;
        let two = [frame("a", 0), frame("b", 0)].concat().into();
        assert_eq!(pipe.push(&two, 2, few), Queued::Waits);
        assert_eq!(pipe.push(&two, 2, few), Queued::Full);
        assert_eq!(pipe.push(&frame("c", 0), 1, few), Queued::Waits);
        pipe.cut();
        assert_eq!(pipe.push(&frame("d", 0), 1, MOST), Queued::Closed);
    }

    /// What two writers write, in turns made by chance, and how long their frames are.
    fn turns() -> impl Strategy<Value = Vec<(bool, usize)>> {
        prop::collection::vec((any::<bool>(), prop_oneof![0usize..100, 3000..9000usize]), 1..60)
    }

    #[test]
    fn frames_of_two_writers_never_mix_and_keep_their_order() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
        let outcome = runner.run(&turns(), |turns| {
            runtime.block_on(async {
                let (pipe, mut peer) = connected().await;
                let mark = frame("mark", 0);
                pipe.write_beside_after(mark.clone());
                let named = |own| turns.iter().enumerate().filter(move |(_, (beside, _))| *beside == own);
                let names = |own| named(own).map(|(place, _)| place.to_string()).collect::<Vec<_>>();
                let frames = |own| named(own).map(|(place, (_, length))| frame(&place.to_string(), *length));
                let (library, fan_out) = (pipe.clone(), pipe.clone());
                let (written, beside): (Vec<_>, Vec<_>) = (frames(false).collect(), frames(true).collect());
                let library = tokio::spawn(async move {
                    write_all(&library, &mark).await;
                    for frame in written {
                        write_all(&library, &frame).await;
                    }
                });
                let fan_out = tokio::spawn(async move {
                    for frame in beside {
                        assert_eq!(fan_out.push(&frame, 1, MOST), Queued::Waits);
                        fan_out.flush();
                        tokio::task::yield_now().await;
                    }
                });
                let got = texts(&mut peer, turns.len()).await;
                library.await.unwrap();
                fan_out.await.unwrap();
                let of = |own: bool| {
                    let is_own = |text: &&String| turns[text.parse::<usize>().unwrap()].0 == own;
                    got.iter().filter(is_own).cloned().collect::<Vec<_>>()
                };
                prop_assert_eq!(of(true), names(true));
                prop_assert_eq!(of(false), names(false));
                Ok(())
            })
        });
        outcome.unwrap();
    }
}
