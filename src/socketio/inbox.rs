//! The messages of one socket, handled in the order in which they came, and only so many at a time.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::Serialize;
use socketioxide::{
    adapter::LocalAdapter,
    extract::{AckSender, SocketRef},
    handler::{FromMessageParts, MessageHandler, Value},
    socket::Socket,
};

use super::{
    SocketOutlet,
    request::Request,
    transport,
    upgrades::Upgrades,
    wire::{Exception, History, Refused, Subscribed, Unsubscribed, outcome},
};
use crate::{
    gateway::{CloseReason, Gateway, Offer, Outlet, Registration, Session},
    refusal::{Code, Refusal},
    room::Room,
    telemetry::EdgeLabel,
};

/// How many messages of one client may wait.
const CAPACITY: usize = 256;

/// How long an answer waits for a place in a full socket.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A socket's messages, and the session that they are for.
pub struct Inbox {
    gateway: Gateway,
    limiter: DefaultDirectRateLimiter,
    upgrades: Upgrades,
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
    /// Let in; the client may already send.
    Arriving(Registration),
    /// In.
    Open(Arc<Watcher>),
    /// Gone.
    Closed,
}

/// The session of a socket.
struct Watcher {
    session: Session,
    socket: SocketRef,
    outlet: Arc<SocketOutlet>,
}

struct Message {
    arguments: Value,
    ack: Option<i64>,
    socket: Arc<Socket<LocalAdapter>>,
}

impl Inbox {
    pub fn new(
        gateway: Gateway,
        registration: Registration,
        messages_per_second: u32,
        upgrades: Upgrades,
    ) -> Self {
        let rate = NonZeroU32::new(messages_per_second).unwrap_or(NonZeroU32::MIN);
        let state = State { stage: Stage::Arriving(registration), waiting: VecDeque::new(), busy: false };
        Self {
            gateway,
            limiter: RateLimiter::direct(Quota::per_second(rate)),
            upgrades,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the session, unless the socket has gone already.
    pub fn open(self: &Arc<Self>, socket: &SocketRef) {
        let mut state = self.state();
        let registration = match std::mem::replace(&mut state.stage, Stage::Closed) {
            Stage::Arriving(registration) => registration,
            other => {
                state.stage = other;
                return;
            }
        };
        let metrics = self.gateway.metrics();
        let label = EdgeLabel { edge: "socketio" };
        let outlet = Arc::new(SocketOutlet::new(
            socket.clone(),
            self.upgrades.clone(),
            metrics.deliveries.get_or_create(&label).clone(),
            metrics.connections.get_or_create(&label).clone(),
        ));
        let session = self.gateway.connect(outlet.clone(), Some(registration));
        state.stage = Stage::Open(Arc::new(Watcher { session, socket: socket.clone(), outlet }));
        self.work(state);
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
            return refuse(&self.gateway, &message, "too many messages a second; slow down");
        }
        let mut state = self.state();
        if state.waiting.len() >= CAPACITY {
            drop(state);
            return refuse(
                &self.gateway,
                &message,
                "too many messages wait for their answer; wait for some first",
            );
        }
        state.waiting.push_back(message);
        self.work(state);
    }

    /// Sees to it that somebody handles what waits.
    fn work(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.busy || state.waiting.is_empty() || !matches!(state.stage, Stage::Open(_)) {
            return;
        }
        state.busy = true;
        drop(state);
        let inbox = self.clone();
        self.gateway.tasks().spawn_until_stop("socketio-messages", async move {
            while let Some((message, watcher)) = inbox.next() {
                watcher.handle(&inbox.gateway, message).await;
            }
        });
    }

    fn next(&self) -> Option<(Message, Arc<Watcher>)> {
        let mut state = self.state();
        let next = match &state.stage {
            Stage::Open(watcher) => Some(watcher.clone()),
            Stage::Arriving(_) | Stage::Closed => None,
        };
        let next = next.and_then(|watcher| Some((state.waiting.pop_front()?, watcher)));
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

    /// Answers, if an answer is awaited.
    fn answer(&self, answer: &impl Serialize) -> Offer {
        if self.ack.is_none() {
            return Offer::Taken;
        }
        let mut nothing = Value::Str("".into(), None);
        match AckSender::from_message_parts(&self.socket, &mut nothing, &self.ack) {
            Ok(ack) => outcome(ack.send(answer)),
            Err(never) => match never {},
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Offer {
        match self.ack {
            Some(_) => self.answer(&Refused::new(refusal)),
            None => outcome(self.socket.emit("exception", &Exception(refusal))),
        }
    }
}

/// Refuses a message without waiting: whoever sends too much may miss an answer.
fn refuse(gateway: &Gateway, message: &Message, problem: &str) {
    let refusal = Refusal::new(Code::RateLimited, problem);
    gateway.metrics().reject(refusal.code.as_str());
    message.refuse(&refusal);
}

impl Watcher {
    async fn handle(&self, gateway: &Gateway, message: Message) {
        self.session.set_transport(transport(&self.socket));
        let done = match message.read() {
            Ok(request) => self.serve(gateway, request, &message).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = done {
            gateway.metrics().reject(refusal.code.as_str());
            self.send(|| message.refuse(&refusal)).await;
        }
    }

    async fn serve(&self, gateway: &Gateway, request: Request, message: &Message) -> Result<(), Refusal> {
        match request {
            Request::Subscribe(subscription) => {
                let joined = self.session.join(&subscription).await?;
                // socketioxide's room of the same name, for applications that embed the gateway.
                self.socket.join(joined.room.to_string());
                // The answer first, then what is replayed, then what is live.
                if self.send(|| message.answer(&Subscribed::new(&joined))).await {
                    joined.start();
                }
            }
            Request::Unsubscribe(room) => {
                self.leave(&room).await?;
                self.send(|| message.answer(&Unsubscribed::new(&room))).await;
            }
            Request::History { job, limit, since } => {
                let events = gateway.job_history(&job, limit, since).await?;
                let answer = History::new(job, events);
                self.send(|| message.answer(&answer)).await;
            }
        }
        Ok(())
    }

    async fn leave(&self, room: &Room) -> Result<(), Refusal> {
        self.socket.leave(room.to_string());
        Ok(self.session.leave(room).await?)
    }

    /// Sends something that must arrive, and closes the session if it cannot. Says whether it was sent.
    async fn send(&self, send: impl Fn() -> Offer) -> bool {
        let attempts = async {
            let mut pause = Duration::from_millis(5);
            loop {
                match send() {
                    Offer::Full => tokio::time::sleep(pause).await,
                    other => return other,
                }
                pause = (pause * 2).min(Duration::from_millis(250));
            }
        };
        match tokio::time::timeout(ANSWER_PATIENCE, attempts).await {
            Ok(offer) => offer == Offer::Taken,
            Err(_) => {
                tracing::info!(
                    reason = CloseReason::Unreachable.as_str(),
                    "closing a session that takes no answer"
                );
                self.outlet.close(CloseReason::Unreachable);
                false
            }
        }
    }
}
