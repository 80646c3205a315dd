//! A TCP proxy that can do to connections what networks do: cut, refuse, delay, hold, close halfway.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// How much is read at once.
const BUFFER: usize = 8 * 1024;

/// What becomes of bytes and of new connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    Normal,
    /// Connections are accepted and closed at once.
    Refusing,
    /// Whatever is read is passed on so much later, each way.
    Slow(Duration),
    /// Nothing is passed on, connections stay open.
    Held,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected to the server behind the proxy.
    There,
    /// From the server back.
    Back,
}

/// What all connections of a proxy look at.
#[derive(Debug, Clone, Copy)]
struct State {
    condition: Condition,
    upstream: SocketAddr,
    /// Connections older than this are cut.
    cut_before: u64,
    /// Connections older than this are held for as long as they live.
    held_before: u64,
    /// Connections older than these are ended halfway: nothing more goes that way.
    closed_before: [u64; 2],
}

/// How many more bytes go each way until everything is cut.
struct Fuse(Mutex<[Option<usize>; 2]>);

pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    /// How many connections there have been; the next one's number.
    opened: Arc<AtomicU64>,
    fuse: Arc<Fuse>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one on a free port.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = State {
            condition: Condition::Normal,
            upstream,
            cut_before: 0,
            held_before: 0,
            closed_before: [0; 2],
        };
        let (state, opened) = (watch::Sender::new(state), Arc::new(AtomicU64::new(0)));
        let fuse = Arc::new(Fuse(Mutex::new([None; 2])));
        let accepting = tokio::spawn(accept(listener, state.clone(), opened.clone(), fuse.clone()));
        Ok(Self { address, state, opened, fuse, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, condition: Condition) {
        self.state.send_modify(|state| state.condition = condition);
    }

    /// Cuts all connections there are (RST).
    pub fn cut(&self) {
        let opened = self.opened.load(Ordering::Acquire);
        self.state.send_modify(|state| state.cut_before = opened);
    }

    /// Cuts all connections as soon as so many more bytes have gone one way: in the middle of whatever goes there.
    pub fn cut_after(&self, bytes: usize, way: Way) {
        self.fuse.0.lock().unwrap_or_else(PoisonError::into_inner)[way as usize] = Some(bytes);
    }

    /// Takes back what [`Proxy::cut_after`] set, where it has not come to that.
    pub fn disarm(&self) {
        *self.fuse.0.lock().unwrap_or_else(PoisonError::into_inner) = [None; 2];
    }

    /// Holds all connections there are for as long as they live; new ones work.
    pub fn hold_old(&self) {
        let opened = self.opened.load(Ordering::Acquire);
        self.state.send_modify(|state| state.held_before = opened);
    }

    /// Ends one way of all connections there are; the other way goes on.
    pub fn close_half(&self, way: Way) {
        let opened = self.opened.load(Ordering::Acquire);
        self.state.send_modify(|state| state.closed_before[way as usize] = opened);
    }

    /// Sends new connections elsewhere.
    pub fn switch(&self, upstream: SocketAddr) {
        self.state.send_modify(|state| state.upstream = upstream);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // Their tasks end by it.
        self.cut();
    }
}

async fn accept(listener: TcpListener, state: watch::Sender<State>, opened: Arc<AtomicU64>, fuse: Arc<Fuse>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: it may get better.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let number = opened.fetch_add(1, Ordering::AcqRel);
        let now = *state.borrow();
        if now.condition == Condition::Refusing {
            continue;
        }
        let link = Link { number, state: state.clone(), opened: opened.clone(), fuse: fuse.clone() };
        tokio::spawn(link.run(stream, now.upstream));
    }
}

/// One connection through the proxy.
#[derive(Clone)]
struct Link {
    number: u64,
    state: watch::Sender<State>,
    opened: Arc<AtomicU64>,
    fuse: Arc<Fuse>,
}

impl Link {
    async fn run(self, mut near: TcpStream, upstream: SocketAddr) {
        // Refused at the other end: refused here.
        let Ok(mut far) = TcpStream::connect(upstream).await else { return };
        let mut state = self.state.subscribe();
        // An error says that the proxy is gone.
        let cut = async {
            let _gone = state.wait_for(|state| state.cut_before > self.number).await;
        };
        let ended = {
            let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
            tokio::select! {
                ended = async {
                    tokio::try_join!(
                        self.pass(near_read, far_write, Way::There),
                        self.pass(far_read, near_write, Way::Back),
                    )
                } => ended.is_ok(),
                () = cut => false,
            }
        };
        if !ended {
            // A reset is passed on as one.
            for stream in [&near, &far] {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// Passes on what comes, until it ends on its own or is ended.
    async fn pass(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way) -> io::Result<()> {
        let mut state = self.state.subscribe();
        let mut closed = self.state.subscribe();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read?,
                _ = closed.wait_for(|state| state.closed_before[way as usize] > self.number) => 0,
            };
            if read == 0 {
                return to.shutdown().await;
            }
            self.condition(&mut state).await;
            let passed = self.fuse.burn(way, read);
            to.write_all(&buffer[..passed]).await?;
            if passed < read {
                let opened = self.opened.load(Ordering::Acquire);
                self.state.send_modify(|state| state.cut_before = opened);
                // Nothing follows on a hole: the cut ends this.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until bytes may be passed on.
    async fn condition(&self, state: &mut watch::Receiver<State>) {
        let now = *state.borrow();
        if let Condition::Slow(delay) = now.condition {
            sleep(delay).await;
        }
        // It ends only when the proxy is gone, and the connection with it.
        let held = |state: &State| state.condition == Condition::Held || state.held_before > self.number;
        let _over = state.wait_for(|state| !held(state)).await;
    }
}

impl Fuse {
    /// Answers how many of so many bytes may still go that way.
    fn burn(&self, way: Way, bytes: usize) -> usize {
        let mut fuses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = &mut fuses[way as usize] else { return bytes };
        if *left >= bytes {
            *left -= bytes;
            return bytes;
        }
        fuses[way as usize].take().unwrap_or(bytes)
    }
}
