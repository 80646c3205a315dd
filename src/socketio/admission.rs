//! Limits how many clients connect at once. Each address gets its turn, so that one that sends many does not keep out
//! the others. After a mass disconnect each client connects quickly in its turn, instead of all timing out.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use slotmap::{SlotMap, new_key_type};
use socketioxide::extract::SocketRef;
use tokio::{sync::oneshot, time::Instant};

use super::polling::socket_id;
use crate::{
    error::{ApiError, ErrorCode},
    net::{Connection, network},
    tasks::Tasks,
};

/// How long a client holds a slot. A slower client continues without one.
const SLOT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client holds a slot that sends nothing after its first request.
const FOLLOW_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client waits for a slot before it is told to try again later. Stock clients give up after 20 s. Admitting
/// a client just before that is wasted work, and in a long queue every admission would be.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often slots are looked through for expired ones, while somebody waits.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(50);

new_key_type! {
    /// Names a slot that is in use.
    struct SlotKey;
}

/// The slots of clients that are connecting.
#[derive(Debug, Clone)]
pub struct Admission {
    queue: Arc<Mutex<Queue>>,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Queue {
    free: usize,
    in_use: SlotMap<SlotKey, InUse>,
    /// Who waits, by address.
    waiting: HashMap<IpAddr, VecDeque<oneshot::Sender<SlotKey>>>,
    /// The addresses of those who wait, the next one first.
    turns: VecDeque<IpAddr>,
    /// Whether a task takes expired slots back.
    has_reclaimer: bool,
}

#[derive(Debug)]
struct InUse {
    since: Instant,
    followed_up: bool,
}

impl InUse {
    fn is_expired(&self) -> bool {
        let limit = if self.followed_up { SLOT_TIMEOUT } else { FOLLOW_UP_TIMEOUT };
        self.since.elapsed() >= limit
    }
}

/// A slot. It is released once its client has connected, has gone, or has held it for too long.
#[derive(Debug, Clone)]
pub struct Slot(Arc<SlotHandle>);

#[derive(Debug)]
struct SlotHandle {
    key: SlotKey,
    queue: Arc<Mutex<Queue>>,
}

impl Slot {
    /// Notes that the client has sent more than its first request.
    pub fn follow_up(&self) {
        if let Some(slot) = lock(&self.0.queue).in_use.get_mut(self.0.key) {
            slot.followed_up = true;
        }
    }

    fn release(&self) {
        lock(&self.0.queue).release(self.0.key);
    }
}

impl Drop for SlotHandle {
    fn drop(&mut self) {
        lock(&self.queue).release(self.key);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn release(&mut self, key: SlotKey) {
        if self.in_use.remove(key).is_some() {
            self.free += 1;
            self.issue();
        }
    }

    /// Gives free slots to those who wait, one address after the other.
    fn issue(&mut self) {
        while self.free > 0
            && let Some(address) = self.turns.pop_front()
        {
            let Some(waiting) = self.waiting.get_mut(&address) else { continue };
            let next = std::iter::from_fn(|| waiting.pop_front()).find(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(&address);
            } else {
                self.turns.push_back(address);
            }
            if let Some(waiter) = next {
                let key = self.in_use.insert(InUse { since: Instant::now(), followed_up: false });
                match waiter.send(key) {
                    Ok(()) => self.free -= 1,
                    Err(key) => _ = self.in_use.remove(key),
                }
            }
        }
    }

    fn wait(&mut self, address: IpAddr) -> oneshot::Receiver<SlotKey> {
        let (waiter, slot) = oneshot::channel();
        let waiting = self.waiting.entry(address).or_default();
        if waiting.is_empty() {
            self.turns.push_back(address);
        }
        waiting.push_back(waiter);
        self.issue();
        slot
    }

    /// Takes expired slots back. Says whether somebody still waits.
    fn reclaim(&mut self) -> bool {
        let expired: Vec<SlotKey> =
            self.in_use.iter().filter(|(_, slot)| slot.is_expired()).map(|(key, _)| key).collect();
        expired.into_iter().for_each(|key| self.release(key));
        let waits = |waiting: &VecDeque<oneshot::Sender<_>>| waiting.iter().any(|waiter| !waiter.is_closed());
        self.waiting.retain(|_, waiting| waits(waiting));
        self.turns.retain(|address| self.waiting.contains_key(address));
        self.has_reclaimer = !self.turns.is_empty();
        self.has_reclaimer
    }
}

impl Admission {
    pub fn new(slots: usize, tasks: Tasks) -> Self {
        let queue = Queue { free: slots.max(1), ..Queue::default() };
        Self { queue: Arc::new(Mutex::new(queue)), tasks }
    }

    /// Waits for a slot, at most [`QUEUE_TIMEOUT`]. A network of IPv6 shares a turn.
    async fn acquire(&self, address: IpAddr) -> Option<Slot> {
        let (slot, reclaimer_missing) = {
            let mut queue = lock(&self.queue);
            let slot = queue.wait(network(address));
            let missing = !queue.turns.is_empty() && !std::mem::replace(&mut queue.has_reclaimer, true);
            (slot, missing)
        };
        if reclaimer_missing {
            let queue = self.queue.clone();
            self.tasks.spawn_until_stop("socketio-admission", async move {
                while lock(&queue).reclaim() {
                    tokio::time::sleep(RECLAIM_INTERVAL).await;
                }
            });
        }
        let key = tokio::time::timeout(QUEUE_TIMEOUT, slot).await.ok()?.ok()?;
        Some(Slot(Arc::new(SlotHandle { key, queue: self.queue.clone() })))
    }
}

/// Middleware. A request that begins a session waits for a slot.
pub async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    if request.uri().query().and_then(socket_id).is_some() {
        return next.run(request).await;
    }
    let connection = request.extensions().get::<ConnectInfo<Connection>>();
    let address = connection.map_or(Ipv4Addr::UNSPECIFIED.into(), |connection| connection.0.address());
    let Some(slot) = admission.acquire(address).await else {
        return ApiError::new(ErrorCode::Unavailable, "too many clients arrive at once; try again")
            .into_response();
    };
    request.extensions_mut().insert(slot.clone());
    let response = next.run(request).await;
    if response.status().is_client_error() {
        slot.release();
    }
    response
}

/// Releases the slot of a socket that has connected.
pub fn release_admitted(socket: &SocketRef) {
    if let Some(slot) = socket.req_parts().extensions.get::<Slot>() {
        slot.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    async fn waiters(
        admission: &Admission,
        addresses: &[IpAddr],
    ) -> Vec<tokio::task::JoinHandle<(IpAddr, Option<Slot>)>> {
        let mut handles = Vec::new();
        for address in addresses.iter().copied() {
            let admission = admission.clone();
            handles.push(tokio::spawn(async move { (address, admission.acquire(address).await) }));
            tokio::task::yield_now().await;
        }
        handles
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_holds_a_slot_for_a_limited_time_and_a_silent_one_for_less() {
        let admission = Admission::new(1, Tasks::new());
        let begun = Instant::now();
        let first = admission.acquire(A).await.expect("nobody is there");
        first.follow_up();
        tokio::time::advance(SLOT_TIMEOUT / 2).await;
        let second = admission.acquire(A).await.expect("the first has held it for too long");
        assert!((SLOT_TIMEOUT..SLOT_TIMEOUT + 2 * RECLAIM_INTERVAL).contains(&begun.elapsed()));
        let begun = Instant::now();
        let third = admission.acquire(A).await.expect("the second has sent nothing");
        assert!(begun.elapsed() <= FOLLOW_UP_TIMEOUT + 2 * RECLAIM_INTERVAL, "{:?}", begun.elapsed());
        drop((first, second));
        third.release();
        let fourth = admission.acquire(A).await.expect("the third has released it");
        drop(fourth);
        admission.acquire(A).await.expect("the fourth is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_take_turns() {
        let admission = Admission::new(1, Tasks::new());
        let first = admission.acquire(A).await.expect("nobody is there");
        let handles = waiters(&admission, &[A, A, A, A, B, B]).await;
        let mut order = Vec::new();
        first.release();
        for _ in 0..6 {
            let mut queue = lock(&admission.queue);
            order.push([A, B].map(|address| queue.waiting.get(&address).map_or(0, VecDeque::len)));
            let key = queue.in_use.keys().next().expect("somebody has it");
            queue.release(key);
        }
        assert_eq!(order, [[3, 2], [3, 1], [2, 1], [2, 0], [1, 0], [0, 0]]);
        drop(handles);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded() {
        let admission = Admission::new(1, Tasks::new());
        let first = admission.acquire(A).await;
        first.iter().for_each(Slot::follow_up);
        tokio::time::advance(SLOT_TIMEOUT / 2).await;
        let second = async {
            let second = admission.acquire(A).await;
            second.iter().for_each(Slot::follow_up);
            second
        };
        let (second, third) = tokio::join!(second, admission.acquire(A));
        assert!(first.is_some() && second.is_some() && third.is_none());
    }
}
