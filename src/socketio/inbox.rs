//! A bounded queue of one socket's messages, handled in order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

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
    outlet::{OutletShared, SocketOutlet},
    packet::Packet,
    request::{Request, Token, exceeds_rate},
    wire::{ErrorAck, History, Refreshed, Subscribed, Unsubscribed},
};
use crate::{
    access::Pass,
    auth::Authenticator,
    budget::{OverBudget, Purpose, Reservation},
    error::{ApiError, ErrorCode},
    gateway::{CloseReason, Gateway, Latest, Offer, Outlet, Peer, Session},
    room::Room,
};

/// How many bytes of messages of one client may wait, if they are more than one.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// How long an acknowledgement waits in front of a full socket that sends nothing.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket's messages, and its session.
pub struct Inbox {
    gateway: Gateway,
    auth: Authenticator,
    /// How many messages may wait: as many as may come in a second.
    capacity: usize,
    state: Mutex<State>,
}

struct State {
    socket_state: SocketState,
    waiting: VecDeque<Message>,
    /// The bytes of those.
    waiting_bytes: Reservation,
    /// Whether a task is handling messages.
    busy: bool,
}

/// The life of a socket.
enum SocketState {
    /// Admitted, but not told so yet. Nothing here keeps the socket alive: if it closes now, all of this is dropped
    /// with it.
    Admitted(SocketSession),
    /// Connected.
    Open(Arc<SocketSession>, SocketRef),
    /// Disconnected.
    Closed,
}

/// The session of a socket, and where its packets go.
struct SocketSession {
    session: Session,
    outlet: Arc<SocketOutlet>,
}

struct Message {
    arguments: Value,
    ack: Option<i64>,
    socket: Arc<Socket<LocalAdapter>>,
}

impl Inbox {
    /// The inbox of a socket that is about to be admitted. Notices may already reach its session.
    ///
    /// # Errors
    /// As [`Gateway::connect`].
    pub fn new(
        gateway: &Gateway,
        auth: &Authenticator,
        (peer, pass): (Peer, Pass),
        options: &SocketIoOptions,
        shared: Arc<OutletShared>,
    ) -> Result<Self, ApiError> {
        let outlet = Arc::new(SocketOutlet::new(shared, peer.client_id.clone()));
        let session = gateway.connect(outlet.clone(), Some(peer), pass)?;
        let socket_state = SocketState::Admitted(SocketSession { session, outlet });
        Ok(Self {
            gateway: gateway.clone(),
            auth: auth.clone(),
            capacity: options.messages_per_second as usize,
            state: Mutex::new(State {
                socket_state,
                waiting: VecDeque::new(),
                waiting_bytes: gateway.budget().charge(Purpose::Request, 0),
                busy: false,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the session, unless the socket has closed already.
    pub fn open(self: &Arc<Self>, socket: &SocketRef) {
        let mut state = self.state();
        match std::mem::replace(&mut state.socket_state, SocketState::Closed) {
            SocketState::Admitted(watcher) => {
                watcher.outlet.open(socket.clone());
                state.socket_state = SocketState::Open(Arc::new(watcher), socket.clone());
                self.work(state);
            }
            other => state.socket_state = other,
        }
    }

    /// Ends the session, after the message that is being handled.
    pub fn close(&self) {
        let mut state = self.state();
        let socket_state = std::mem::replace(&mut state.socket_state, SocketState::Closed);
        let waiting = std::mem::take(&mut state.waiting);
        state.waiting_bytes.set(0);
        // Dropped after the lock is released, because leaving rooms takes other locks.
        drop(state);
        drop((socket_state, waiting));
    }

    /// Notes that a WebSocket carries the packets from here on.
    pub fn note_upgrade(&self) {
        if let SocketState::Admitted(SocketSession { session, .. }) = &self.state().socket_state {
            return session.set_transport("websocket");
        }
        let open = match &self.state().socket_state {
            SocketState::Open(watcher, _) => watcher.clone(),
            SocketState::Admitted(_) | SocketState::Closed => return,
        };
        open.session.set_transport("websocket");
    }

    fn push(self: &Arc<Self>, message: Message) {
        if message.exceeds_rate() {
            return self.refuse(&message, ErrorCode::RateLimited, "too many messages a second; slow down");
        }
        let mut state = self.state();
        if let Err((code, problem)) = state.admit(&message, self.capacity) {
            drop(state);
            return self.refuse(&message, code, problem);
        }
        state.waiting.push_back(message);
        self.work(state);
    }

    /// Refuses a message without waiting. A client that sends too much may miss an acknowledgement.
    fn refuse(&self, message: &Message, code: ErrorCode, problem: &str) {
        let refusal = ApiError::new(code, problem);
        self.gateway.metrics().count_error(refusal.code.as_str());
        let outlet = match &self.state().socket_state {
            SocketState::Open(watcher, _) => watcher.outlet.clone(),
            SocketState::Admitted(_) | SocketState::Closed => return,
        };
        if let Ok(json) = message.refusal(&refusal) {
            let _may_be_missed = outlet.take(&message.telling(&json));
            outlet.flush();
        }
    }

    /// Starts a task for the waiting messages, unless one runs.
    fn work(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.busy || state.waiting.is_empty() || !matches!(state.socket_state, SocketState::Open(..)) {
            return;
        }
        state.busy = true;
        drop(state);
        let inbox = self.clone();
        self.gateway.tasks().spawn_until_stop("socketio-messages", async move {
            while let Some((message, watcher, socket)) = inbox.next() {
                let context = MessageContext { inbox: &inbox, watcher: &watcher, socket: &socket, message };
                context.run().await;
            }
        });
    }

    fn next(&self) -> Option<(Message, Arc<SocketSession>, SocketRef)> {
        let mut state = self.state();
        let next = match &state.socket_state {
            SocketState::Open(watcher, socket) => Some((watcher.clone(), socket.clone())),
            SocketState::Admitted(_) | SocketState::Closed => None,
        };
        let next = next.and_then(|(watcher, socket)| Some((state.pop()?, watcher, socket)));
        if state.waiting.is_empty() {
            // The common case: an idle socket keeps no memory for its queue.
            state.waiting = VecDeque::new();
        }
        state.busy = next.is_some();
        next
    }
}

impl State {
    /// Counts a message that is about to wait, if it may.
    fn admit(&mut self, message: &Message, capacity: usize) -> Result<(), (ErrorCode, &'static str)> {
        let too_many = "too many messages wait for their answer; wait for some first";
        let bytes = message.size() as u64;
        let fits = self.waiting_bytes.bytes() + bytes <= MAX_WAITING_BYTES as u64 || self.waiting.is_empty();
        if self.waiting.len() >= capacity || !fits {
            return Err((ErrorCode::RateLimited, too_many));
        }
        let too_full = "the gateway holds as many bytes as it may; try again later";
        self.waiting_bytes.grow(bytes).map_err(|OverBudget| (ErrorCode::LimitReached, too_full))
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.waiting.pop_front()?;
        self.waiting_bytes.set(self.waiting_bytes.bytes().saturating_sub(message.size() as u64));
        Some(message)
    }
}

/// Hands every message of a socket to its inbox, at once and in order.
pub struct OrderedHandler(pub Arc<Inbox>);

/// A marker type. It keeps this implementation apart from socketioxide's own for closures.
pub struct OrderedMarker;

impl MessageHandler<LocalAdapter, OrderedMarker> for OrderedHandler {
    fn call(&self, socket: Arc<Socket<LocalAdapter>>, arguments: Value, ack: Option<i64>) {
        self.0.push(Message { arguments, ack, socket });
    }
}

impl Message {
    fn size(&self) -> usize {
        self.arguments.as_str().map_or(0, |arguments| arguments.len())
    }

    /// Whether the gate has refused it, because it exceeds the rate.
    fn exceeds_rate(&self) -> bool {
        self.arguments.as_str().is_some_and(|arguments| exceeds_rate(arguments))
    }

    fn read(&self) -> Result<Request, ApiError> {
        match &self.arguments {
            Value::Str(arguments, None) => Request::read(arguments),
            _ => Err(ApiError::invalid("binary payloads are not understood")),
        }
    }

    /// The acknowledgement. `None` if the client awaits none.
    fn answer<'a>(&'a self, answer: &'a RawValue) -> Option<Packet<'a>> {
        Some(Packet::Ack { socket: &self.socket, id: self.ack?, answer })
    }

    /// The JSON of an error: an acknowledgement, or an exception if the client awaits none.
    fn refusal(&self, refusal: &ApiError) -> Result<Box<RawValue>, serde_json::Error> {
        match self.ack {
            Some(_) => to_raw_value(&ErrorAck::new(refusal)),
            None => to_raw_value(&refusal.exception()),
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
struct MessageContext<'a> {
    inbox: &'a Inbox,
    watcher: &'a SocketSession,
    socket: &'a SocketRef,
    message: Message,
}

impl MessageContext<'_> {
    async fn run(&self) {
        let served = match self.message.read() {
            Ok(request) => self.serve(request).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = served {
            self.inbox.gateway.metrics().count_error(refusal.code.as_str());
            match self.message.refusal(&refusal) {
                Ok(json) => _ = self.send(&self.message.telling(&json)).await,
                Err(error) => tracing::error!(%error, "a refusal could not be written"),
            }
        }
    }

    async fn serve(&self, request: Request) -> Result<(), ApiError> {
        match request {
            Request::Subscribe(subscription) => {
                let mut joined = self.watcher.session.join(&subscription).await?;
                if self.watcher.outlet.joins_rooms() {
                    self.socket.join(joined.room.to_string());
                }
                // The acknowledgement comes first, then the replay, then live events.
                let answer = self.answer(&Subscribed::new(&joined));
                let _held = match joined.take_latest() {
                    Latest::Jobs(jobs) => Some(jobs.into_held()),
                    Latest::Job(_) => None,
                };
                if self.send_answer(answer).await {
                    joined.start();
                }
            }
            Request::Unsubscribe(room) => {
                self.leave(&room).await?;
                self.send_answer(self.answer(&Unsubscribed::new(&room))).await;
            }
            Request::History { job, limit, since } => {
                let by = self.watcher.session.pass()?;
                let events = self.inbox.gateway.history_answer(&by.identity, &job, limit, since).await?;
                let answer = self.answer(&History::new(&job, &events));
                let _held = events.into_held();
                self.send_answer(answer).await;
            }
            Request::Refresh(Token(token)) => {
                let pass = self.inbox.auth.check(&token).await?;
                self.watcher.session.renew(pass.clone()).await?;
                self.send_answer(self.answer(&Refreshed::new(&pass))).await;
            }
        }
        Ok(())
    }

    async fn leave(&self, room: &Room) -> Result<(), ApiError> {
        if self.watcher.outlet.joins_rooms() {
            self.socket.leave(room.to_string());
        }
        Ok(self.watcher.session.leave(room).await?)
    }

    /// The JSON of an acknowledgement, if the client awaits one.
    fn answer(&self, answer: &impl Serialize) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        self.message.ack.map(|_| to_raw_value(answer)).transpose()
    }

    /// Sends an acknowledgement. Returns as [`MessageContext::send`].
    async fn send_answer(&self, answer: Result<Option<Box<RawValue>>, serde_json::Error>) -> bool {
        match answer {
            Ok(None) => true,
            Ok(Some(json)) => match self.message.answer(&json) {
                Some(packet) => self.send(&packet).await,
                None => true,
            },
            Err(error) => {
                tracing::error!(%error, "an answer could not be written");
                false
            }
        }
    }

    /// Sends a packet that must not be dropped. Closes the session if the client reads nothing for too long. Says
    /// whether it was sent.
    async fn send(&self, packet: &Packet<'_>) -> bool {
        let outlet = &self.watcher.outlet;
        let (mut waiting, mut pause) = (outlet.waiting(), Duration::from_millis(5));
        let mut deadline = Instant::now() + ACK_TIMEOUT;
        loop {
            // A packet that is refused would be written in vain.
            let offer = if outlet.is_full() { Offer::Full } else { outlet.take(packet) };
            match offer {
                Offer::Full => tokio::time::sleep(pause).await,
                other => {
                    outlet.flush();
                    return other == Offer::Taken;
                }
            }
            pause = (pause * 2).min(Duration::from_millis(250));
            if outlet.waiting() < waiting {
                deadline = Instant::now() + ACK_TIMEOUT;
            } else if Instant::now() >= deadline {
                self.watcher.session.close(CloseReason::Unreachable);
                return false;
            }
            waiting = outlet.waiting();
        }
    }
}
