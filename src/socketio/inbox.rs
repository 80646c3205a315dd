//! The messages of one socket, handled in the order in which they came, and only so many at a time.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::{
    adapter::LocalAdapter,
    extract::SocketRef,
    handler::{MessageHandler, Value},
    socket::Socket,
};

use super::{
    SocketIoOptions,
    outlet::{Sending, SocketOutlet},
    packet::Packet,
    request::Request,
    transport,
    wire::{Exception, History, Refused, Subscribed, Unsubscribed},
};
use crate::{
    gateway::{CloseReason, Gateway, Offer, Outlet, Peer, Session},
    refusal::{Code, Refusal},
    room::Room,
};

/// How many messages of one client may wait.
const CAPACITY: usize = 256;

/// How long an answer waits for a place in a full socket from which nothing leaves.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A socket's messages, and the session that they are for.
pub struct Inbox {
    gateway: Gateway,
    limiter: DefaultDirectRateLimiter,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    waiting: VecDeque<Message>,
    /// Whether a task handles the messages.
    busy: bool,
}

/// What a socket goes through.
enum Stage {
    /// Let in, but not told so yet. Nothing here keeps the socket alive: should it go now, all of this goes with it.
    Arriving(Watcher),
    /// In.
    Open(Arc<Watcher>, SocketRef),
    /// Gone.
    Closed,
}

/// The session of a socket.
struct Watcher {
    session: Session,
    outlet: Arc<SocketOutlet>,
}

struct Message {
    arguments: Value,
    ack: Option<i64>,
    socket: Arc<Socket<LocalAdapter>>,
}

impl Inbox {
    /// The inbox of a socket that is about to be let in, with a session that notices may already reach.
    pub fn new(gateway: &Gateway, peer: Peer, options: &SocketIoOptions, sending: Arc<Sending>) -> Self {
        let rate = NonZeroU32::new(options.messages_per_second).unwrap_or(NonZeroU32::MIN);
        let outlet = Arc::new(SocketOutlet::new(sending, peer.client_id.clone()));
        let session = gateway.connect(outlet.clone(), Some(peer));
        let stage = Stage::Arriving(Watcher { session, outlet });
        Self {
            gateway: gateway.clone(),
            limiter: RateLimiter::direct(Quota::per_second(rate)),
            state: Mutex::new(State { stage, waiting: VecDeque::new(), busy: false }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the session, unless the socket has gone already.
    pub fn open(self: &Arc<Self>, socket: &SocketRef) {
        let mut state = self.state();
        match std::mem::replace(&mut state.stage, Stage::Closed) {
            Stage::Arriving(watcher) => {
                watcher.outlet.open(socket.clone());
                state.stage = Stage::Open(Arc::new(watcher), socket.clone());
                self.work(state);
            }
            other => state.stage = other,
        }
    }

    /// Ends the session, once what is being handled is done.
    pub fn close(&self) {
        let mut state = self.state();
        let stage = std::mem::replace(&mut state.stage, Stage::Closed);
        let waiting = std::mem::take(&mut state.waiting);
        // Dropped without the lock: leaving rooms takes others.
        drop(state);
        drop((stage, waiting));
    }

    fn push(self: &Arc<Self>, message: Message) {
        if self.limiter.check().is_err() {
            return self.refuse(&message, "too many messages a second; slow down");
        }
        let mut state = self.state();
        if state.waiting.len() >= CAPACITY {
            drop(state);
            return self.refuse(&message, "too many messages wait for their answer; wait for some first");
        }
        state.waiting.push_back(message);
        self.work(state);
    }

    /// Refuses a message without waiting: whoever sends too much may miss an answer.
    fn refuse(&self, message: &Message, problem: &str) {
        let refusal = Refusal::new(Code::RateLimited, problem);
        self.gateway.metrics().reject(refusal.code.as_str());
        let outlet = match &self.state().stage {
            Stage::Open(watcher, _) => watcher.outlet.clone(),
            Stage::Arriving(_) | Stage::Closed => return,
        };
        if let Ok(json) = message.refusal(&refusal) {
            let _may_be_missed = outlet.take(&message.telling(&json));
            outlet.flush();
        }
    }

    /// Sees to it that somebody handles what waits.
    fn work(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.busy || state.waiting.is_empty() || !matches!(state.stage, Stage::Open(..)) {
            return;
        }
        state.busy = true;
        drop(state);
        let inbox = self.clone();
        self.gateway.tasks().spawn_until_stop("socketio-messages", async move {
            while let Some((message, watcher, socket)) = inbox.next() {
                let handling =
                    Handling { gateway: &inbox.gateway, watcher: &watcher, socket: &socket, message };
                handling.run().await;
            }
        });
    }

    fn next(&self) -> Option<(Message, Arc<Watcher>, SocketRef)> {
        let mut state = self.state();
        let next = match &state.stage {
            Stage::Open(watcher, socket) => Some((watcher.clone(), socket.clone())),
            Stage::Arriving(_) | Stage::Closed => None,
        };
        let next = next.and_then(|(watcher, socket)| Some((state.waiting.pop_front()?, watcher, socket)));
        if state.waiting.is_empty() {
            // Nearly always, for nearly all.
            state.waiting = VecDeque::new();
        }
        state.busy = next.is_some();
        next
    }
}

/// Hands every message of a socket to its inbox, at once and in order.
pub struct InOrder(pub Arc<Inbox>);

/// Tells this handler's kind from those that socketioxide makes of closures.
pub struct OneByOne;

impl MessageHandler<LocalAdapter, OneByOne> for InOrder {
    fn call(&self, socket: Arc<Socket<LocalAdapter>>, arguments: Value, ack: Option<i64>) {
        self.0.push(Message { arguments, ack, socket });
    }
}

impl Message {
    fn read(&self) -> Result<Request, Refusal> {
        match &self.arguments {
            Value::Str(arguments, None) => Request::read(arguments),
            _ => Err(Refusal::invalid("binary payloads are not understood")),
        }
    }

    /// The answer as it goes out; `None` where none is awaited.
    fn answer<'a>(&'a self, answer: &'a RawValue) -> Option<Packet<'a>> {
        Some(Packet::Ack { socket: &self.socket, id: self.ack?, answer })
    }

    /// What tells of a refusal: the answer, or an event where none is awaited.
    fn refusal(&self, refusal: &Refusal) -> Result<Box<RawValue>, serde_json::Error> {
        match self.ack {
            Some(_) => to_raw_value(&Refused::new(refusal)),
            None => to_raw_value(&Exception(refusal)),
        }
    }

    fn telling<'a>(&'a self, refusal: &'a RawValue) -> Packet<'a> {
        self.answer(refusal).unwrap_or(Packet::Event {
            name: "exception",
            argument: refusal,
            positions: None,
        })
    }
}

/// A message that is being handled.
struct Handling<'a> {
    gateway: &'a Gateway,
    watcher: &'a Watcher,
    socket: &'a SocketRef,
    message: Message,
}

impl Handling<'_> {
    async fn run(&self) {
        self.watcher.session.set_transport(transport(self.socket));
        let served = match self.message.read() {
            Ok(request) => self.serve(request).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = served {
            self.gateway.metrics().reject(refusal.code.as_str());
            match self.message.refusal(&refusal) {
                Ok(json) => _ = self.send(&self.message.telling(&json)).await,
                Err(error) => tracing::error!(%error, "a refusal could not be written"),
            }
        }
    }

    async fn serve(&self, request: Request) -> Result<(), Refusal> {
        match request {
            Request::Subscribe(subscription) => {
                let joined = self.watcher.session.join(&subscription).await?;
                if self.watcher.outlet.joins_rooms() {
                    self.socket.join(joined.room.to_string());
                }
                // The answer first, then what is replayed, then what is live.
                if self.answer(&Subscribed::new(&joined)).await {
                    joined.start();
                }
            }
            Request::Unsubscribe(room) => {
                self.leave(&room).await?;
                self.answer(&Unsubscribed::new(&room)).await;
            }
            Request::History { job, limit, since } => {
                let events = self.gateway.job_history(&job, limit, since).await?;
                self.answer(&History::new(job, events)).await;
            }
        }
        Ok(())
    }

    async fn leave(&self, room: &Room) -> Result<(), Refusal> {
        if self.watcher.outlet.joins_rooms() {
            self.socket.leave(room.to_string());
        }
        Ok(self.watcher.session.leave(room).await?)
    }

    /// Sends an answer, if one is awaited, as [`Handling::send`] does.
    async fn answer(&self, answer: &impl Serialize) -> bool {
        if self.message.ack.is_none() {
            return true;
        }
        match to_raw_value(answer) {
            Ok(json) => match self.message.answer(&json) {
                Some(packet) => self.send(&packet).await,
                None => true,
            },
            Err(error) => {
                tracing::error!(%error, "an answer could not be written");
                false
            }
        }
    }

    /// Sends something that must arrive, and closes the session if the client takes nothing for too long. Says whether
    /// it was sent.
    async fn send(&self, packet: &Packet<'_>) -> bool {
        let outlet = &self.watcher.outlet;
        let (mut waiting, mut pause) = (outlet.waiting(), Duration::from_millis(5));
        let mut deadline = Instant::now() + ANSWER_PATIENCE;
        loop {
            match outlet.take(packet) {
                Offer::Full => tokio::time::sleep(pause).await,
                other => {
                    outlet.flush();
                    return other == Offer::Taken;
                }
            }
            pause = (pause * 2).min(Duration::from_millis(250));
            if outlet.waiting() < waiting {
                deadline = Instant::now() + ANSWER_PATIENCE;
            } else if Instant::now() >= deadline {
                self.watcher.session.close(CloseReason::Unreachable);
                return false;
            }
            waiting = outlet.waiting();
        }
    }
}
