//! Long-polling sessions: whose they are, how many bytes wait for them, and their upgrade to a WebSocket. socketioxide
//! tells neither, and ends in a jam if a client begins an upgrade that it does not complete.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use axum::extract::{ConnectInfo, Request};
use socketioxide::{TransportType, extract::SocketRef};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{admission::Slot, gate::Gate, inbox::Inbox};
use crate::{
    budget::{Budget, Purpose, Reservation},
    gateway::CloseReason,
    net::{Connection, Limits},
};

/// How long a poll waits while an upgrade is under way. It must end, so that the client can pause its polling.
const POLL_DURING_UPGRADE: Duration = Duration::from_millis(100);

/// A session that began with polls. The socket owns it.
#[derive(Debug)]
pub struct PollingSession {
    /// The only address that may use the session. `None` if an application serves the router without connect info.
    address: Option<IpAddr>,
    pub gate: Mutex<Gate>,
    backlog: Mutex<Backlog>,
    upgrade: watch::Sender<Upgrade>,
    inbox: Mutex<Weak<Inbox>>,
    pub slot: Option<Slot>,
    pub aborted: CancellationToken,
    abort_reason: OnceLock<CloseReason>,
}

/// How far an upgrade is.
#[derive(Debug)]
enum Upgrade {
    None,
    /// The client has asked for a WebSocket.
    Begun,
    /// The WebSocket works.
    Probed,
    /// The WebSocket carries the packets. Its connection is unknown without connect info.
    Done(Option<Connection>),
}

/// How much waits for the next polls.
///
/// What is queued is counted by the caller, and is at most what is sent. What is sent includes pings. So the difference
/// may be slightly low, and is reset whenever nothing waits.
#[derive(Debug)]
struct Backlog {
    /// The bytes and packets that will have been sent once the last queued packet is out.
    queued: (u64, u64),
    sent: (u64, u64),
    held: Reservation,
}

impl Backlog {
    fn pending(&self) -> (u64, u64) {
        (self.queued.0.saturating_sub(self.sent.0), self.queued.1.saturating_sub(self.sent.1))
    }

    fn add(&mut self, bytes: u64) {
        self.queued = (self.queued.0.max(self.sent.0) + bytes, self.queued.1.max(self.sent.1) + 1);
        self.held.set(self.pending().0);
    }
}

impl PollingSession {
    pub fn new(address: Option<IpAddr>, gate: Gate, budget: &Budget, slot: Option<Slot>) -> Self {
        let held = budget.charge(Purpose::Outbox, 0);
        Self {
            address,
            gate: Mutex::new(gate),
            backlog: Mutex::new(Backlog { queued: (0, 0), sent: (0, 0), held }),
            upgrade: watch::Sender::new(Upgrade::None),
            inbox: Mutex::default(),
            slot,
            aborted: CancellationToken::new(),
            abort_reason: OnceLock::new(),
        }
    }

    /// The session that a socket began with.
    pub fn of(socket: &SocketRef) -> Option<Arc<Self>> {
        socket.req_parts().extensions.get::<Arc<Self>>().cloned()
    }

    /// Counts a packet that is about to be queued, if it fits.
    pub fn add(&self, bytes: usize, limits: Limits) -> bool {
        let mut backlog = self.backlog();
        let (pending, packets) = backlog.pending();
        let fits = pending < limits.bytes && packets < limits.frames as u64;
        if fits {
            backlog.add(bytes as u64);
        }
        fits
    }

    /// Undoes a [`PollingSession::add`] whose packet was not queued.
    pub fn remove(&self, bytes: usize) {
        let mut backlog = self.backlog();
        let (queued, packets) = backlog.queued;
        backlog.queued = (queued.saturating_sub(bytes as u64), packets.saturating_sub(1));
        let pending = backlog.pending().0;
        backlog.held.set(pending);
    }

    /// Counts what a poll was answered.
    pub fn note_sent(&self, bytes: u64, packets: u64) {
        let mut backlog = self.backlog();
        backlog.sent = (backlog.sent.0 + bytes, backlog.sent.1 + packets);
        let pending = backlog.pending().0;
        backlog.held.set(pending);
    }

    /// How many bytes wait for the next poll.
    pub fn pending(&self) -> u64 {
        self.backlog().pending().0
    }

    /// Nothing waits for a poll any more.
    pub fn clear(&self) {
        let mut backlog = self.backlog();
        backlog.sent = (backlog.sent.0.max(backlog.queued.0), backlog.sent.1.max(backlog.queued.1));
        backlog.held.set(0);
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        lock(&self.backlog)
    }

    /// Notes the inbox that is told of an upgrade.
    pub fn set_inbox(&self, inbox: &Arc<Inbox>) {
        *lock(&self.inbox) = Arc::downgrade(inbox);
        if matches!(*self.upgrade.borrow(), Upgrade::Done(_)) {
            inbox.note_upgrade();
        }
    }

    /// Begins an upgrade. `None` if there was one, or one is under way.
    pub fn begin_upgrade(self: &Arc<Self>) -> Option<Probe> {
        let begun = self.upgrade.send_if_modified(|upgrade| {
            let idle = matches!(upgrade, Upgrade::None);
            if idle {
                *upgrade = Upgrade::Begun;
            }
            idle
        });
        begun.then(|| Probe(self.clone()))
    }

    /// Resolves when a poll has to end because of an upgrade.
    pub async fn poll_must_end(&self) {
        let mut upgrade = self.upgrade.subscribe();
        // The sender lives as long as the session.
        let _ = upgrade.wait_for(|upgrade| matches!(upgrade, Upgrade::Probed)).await;
        tokio::time::sleep(POLL_DURING_UPGRADE).await;
    }

    /// The connection of the WebSocket, if there is one and it is known.
    pub fn connection(&self) -> Option<Connection> {
        match &*self.upgrade.borrow() {
            Upgrade::Done(connection) => connection.clone(),
            Upgrade::None | Upgrade::Begun | Upgrade::Probed => None,
        }
    }

    /// Aborts the connection and refuses further polls. The client sees a lost network, reconnects and resumes.
    pub fn abort(&self, reason: CloseReason) {
        // The first reason counts.
        let _known = self.abort_reason.set(reason);
        self.aborted.cancel();
        if let Some(connection) = self.connection() {
            connection.abort();
        }
    }

    /// Whether it was aborted for what the client sent.
    pub fn is_refused(&self) -> bool {
        use CloseReason::{Malformed, TooLarge, TooManyMessages};
        matches!(self.abort_reason.get(), Some(Malformed | TooLarge | TooManyMessages))
    }
}

/// An upgrade under way. Unless it is completed, the session goes on as if there had been none.
#[derive(Debug)]
pub struct Probe(Arc<PollingSession>);

impl Probe {
    /// The WebSocket works: polls end from now on.
    pub fn probed(&self) {
        self.0.upgrade.send_replace(Upgrade::Probed);
    }

    /// The client has chosen the WebSocket.
    pub fn complete(self, connection: Option<Connection>) {
        self.0.upgrade.send_replace(Upgrade::Done(connection));
        let inbox = lock(&self.0.inbox).upgrade();
        if let Some(inbox) = inbox {
            inbox.note_upgrade();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.upgrade.send_if_modified(|upgrade| {
            let failed = !matches!(upgrade, Upgrade::Done(_));
            if failed {
                *upgrade = Upgrade::None;
            }
            failed
        });
    }
}

/// The sessions by id. It keeps none alive.
#[derive(Debug, Clone, Default)]
pub struct PollingSessions(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    sessions: HashMap<String, Weak<PollingSession>>,
    /// The size at which those that have ended are removed.
    sweep_at: usize,
}

/// Below this size the table is not swept.
const MIN_SWEEP: usize = 64;

impl Default for Table {
    fn default() -> Self {
        Self { sessions: HashMap::new(), sweep_at: MIN_SWEEP }
    }
}

impl PollingSessions {
    pub fn insert(&self, id: String, session: &Arc<PollingSession>) {
        let mut table = lock(&self.0);
        if table.sessions.len() >= table.sweep_at {
            table.sessions.retain(|_, session| session.strong_count() > 0);
            table.sweep_at = (table.sessions.len() * 2).max(MIN_SWEEP);
        }
        table.sessions.insert(id, Arc::downgrade(session));
    }

    /// The session that a request names, if the request comes from the address that began it.
    pub fn of(&self, request: &Request) -> Option<Arc<PollingSession>> {
        let id = request.uri().query().and_then(socket_id)?;
        let session = lock(&self.0).sessions.get(id)?.upgrade()?;
        (session.address == address(request)).then_some(session)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address that a request comes from.
pub fn address(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.address())
}

/// The session id of an Engine.IO request.
pub fn socket_id(query: &str) -> Option<&str> {
    query.split('&').find_map(|parameter| parameter.strip_prefix("sid="))
}

/// The connection of a socket's first request. `None` if an application serves the router without connect info.
pub fn first_connection(socket: &SocketRef) -> Option<Connection> {
    socket.req_parts().extensions.get::<ConnectInfo<Connection>>().map(|info| info.0.clone())
}

/// The WebSocket of a socket. `None` while it is long-polling, where each request has its own connection.
pub fn websocket(socket: &SocketRef) -> Option<Connection> {
    match (socket.transport_type(), PollingSession::of(socket)) {
        (TransportType::Polling, _) => None,
        (TransportType::Websocket, Some(session)) => session.connection(),
        (TransportType::Websocket, None) => first_connection(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(budget: &Budget) -> Arc<PollingSession> {
        Arc::new(PollingSession::new(None, Gate::new(10), budget, None))
    }

    const LIMITS: Limits = Limits { frames: 3, bytes: 100 };

    #[test]
    fn counts_what_waits_and_charges_it() {
        let budget = Budget::new(1000);
        let session = session(&budget);
        assert!(session.add(99, LIMITS) && session.add(50, LIMITS) && !session.add(1, LIMITS));
        assert_eq!((session.pending(), budget.used()), (149, 149));
        session.note_sent(120, 1);
        assert_eq!((session.pending(), budget.used()), (29, 29));
        assert!(
            session.add(1, LIMITS) && session.add(1, LIMITS) && !session.add(1, LIMITS),
            "three packets wait"
        );
        session.remove(1);
        assert_eq!(session.pending(), 30);
        // More is sent than was counted: pings, envelopes, an application's own packets.
        session.note_sent(1000, 9);
        assert_eq!(session.pending(), 0);
        assert!(session.add(7, LIMITS));
        assert_eq!(session.pending(), 7);
        session.clear();
        assert_eq!((session.pending(), budget.used()), (0, 0));
    }

    #[test]
    fn one_upgrade_is_under_way_at_a_time_and_one_succeeds() {
        let session = session(&Budget::new(1));
        let probe = session.begin_upgrade().expect("there was none");
        assert!(session.begin_upgrade().is_none());
        probe.probed();
        drop(probe);
        session.begin_upgrade().expect("the first has failed").complete(None);
        assert!(session.begin_upgrade().is_none());
    }

    #[test]
    fn forgets_sessions_that_have_ended() {
        let (budget, sessions) = (Budget::new(1), PollingSessions::default());
        let held = session(&budget);
        sessions.insert("held".to_owned(), &held);
        for number in 0..10_000 {
            sessions.insert(format!("gone-{number}"), &session(&budget));
        }
        assert!(lock(&sessions.0).sessions.len() <= MIN_SWEEP);
        let request = |id: &str| Request::get(format!("/?sid={id}")).body(axum::body::Body::empty()).unwrap();
        assert!(sessions.of(&request("held")).is_some() && sessions.of(&request("gone-7")).is_none());
    }
}
