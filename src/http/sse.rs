//! Server-Sent Events: a session whose outlet is a response body.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    str::FromStr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension,
    extract::ConnectInfo,
    http::{HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde::Serialize;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::HttpState;
use crate::{
    access::Pass,
    budget::{Budget, Purpose, Reservation},
    error::ApiError,
    event::{JobEvent, Seq},
    gateway::{
        CloseReason, Delivery, Expiring, Joined, Latest, Offer, Outlet, Place, Session, Signal, Subscription,
    },
    net::Connection,
    position::RoomSet,
    room::Room,
    store::Entry,
    telemetry::EdgeLabel,
};

/// The interval of keep-alive comments.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser should reconnect.
const RETRY: Duration = Duration::from_secs(1);

/// The connection of a request. `None` if an application serves the router without connect info.
pub type Connected = Option<Extension<ConnectInfo<Connection>>>;

/// When a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When either side closes it.
    Closed,
    /// With the job's next terminal event, or after the replay if the job is finished already.
    Finished,
}

impl FromStr for Until {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "finished" => Ok(Until::Finished),
            _ => Err("must be finished, or left out"),
        }
    }
}

/// Streams the events of a room.
///
/// # Errors
/// As [`Gateway::connect`](crate::gateway::Gateway::connect), [`Session::join`] and [`HttpState::stream_place`].
pub async fn stream(
    state: Arc<HttpState>,
    pass: Pass,
    connection: Connected,
    subscription: Subscription,
    until: Until,
) -> Result<Response, ApiError> {
    let place = state.stream_place(&pass.identity, &connection)?;
    let metrics = state.gateway.metrics();
    let label = EdgeLabel { edge: "sse" };
    let (sender, events) = mpsc::channel(state.options.outbox);
    let end = CancellationToken::new();
    let outlet = Arc::new(SseOutlet {
        sender,
        pending: Arc::new(PendingBytes::new(state.gateway.budget())),
        max_bytes: state.options.outbox_bytes,
        deliveries: metrics.deliveries.get_or_create(&label).clone(),
        end: end.clone(),
        connection: connection.map(|Extension(ConnectInfo(connection))| connection),
        last: OnceLock::new(),
        ending: Arc::default(),
    });
    let session = state.gateway.connect(outlet.clone(), None, pass)?;
    let joined = session.join(&subscription).await?;
    let is_over = until == Until::Finished && outlet.end_with(&joined);
    if is_over {
        drop(joined);
    } else {
        joined.start();
    }
    let count = ConnectionCount::new(metrics.connections.get_or_create(&label).clone());
    let (pending, ending) = (outlet.pending.clone(), outlet.ending.clone());
    let draining = state.draining.clone();
    let drain = async move { draining.wait_for_turn().await };
    let events = event_stream(StreamState {
        events,
        pending,
        end,
        ending,
        drain: Box::pin(drain),
        last_event: None,
        is_over,
        _session: session,
        _count: count,
        _place: place,
    });
    let body = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Proxies must not cache or buffer a live stream.
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

/// The state of a stream. It is dropped with the response body.
struct StreamState {
    events: mpsc::Receiver<QueuedEvent>,
    pending: Arc<PendingBytes>,
    end: CancellationToken,
    /// Why, if the client is told.
    ending: Arc<OnceLock<ApiError>>,
    /// Resolves when it is this stream's turn to drain, with the reconnect delay of its client.
    drain: Pin<Box<dyn Future<Output = Duration> + Send>>,
    /// The last event of a drained stream.
    last_event: Option<Event>,
    /// Whether the stream has ended.
    is_over: bool,
    _session: Session,
    _count: ConnectionCount,
    _place: Option<Place<IpAddr>>,
}

impl StreamState {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        tokio::select! {
            biased;
            () = self.end.cancelled() => {
                self.is_over = true;
                return self.ending.get().and_then(exception);
            }
            reconnect_after = &mut self.drain, if !self.events.is_closed() => {
                self.last_event = Some(Event::default().retry(reconnect_after));
                // Queued events are still sent.
                self.events.close();
            }
            event = self.events.recv() => return self.dequeued(event),
        }
        let event = self.events.recv().await;
        self.dequeued(event)
    }

    fn dequeued(&mut self, event: Option<QueuedEvent>) -> Option<Event> {
        let Some(QueuedEvent { event, bytes, is_last }) = event else { return self.last_event.take() };
        self.pending.remove(bytes);
        self.is_over = is_last;
        Some(event)
    }
}

fn event_stream(state: StreamState) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = stream::iter([Ok(Event::default().retry(RETRY))]);
    let rest = stream::unfold(state, |mut state| async {
        let event = state.next().await?;
        Some((Ok(event), state))
    });
    futures_util::StreamExt::chain(first, rest)
}

/// Counts a connection while it is open.
struct ConnectionCount(Gauge);

impl ConnectionCount {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One delivery, its size in the outbox, and whether the stream ends with it.
struct QueuedEvent {
    event: Event,
    bytes: u64,
    is_last: bool,
}

/// The bytes that wait in the queue of a stream. The node's budget follows them by steps, so that a reader who keeps up
/// costs nothing there.
struct PendingBytes {
    bytes: AtomicU64,
    /// How many of them the budget knows of.
    counted: AtomicU64,
    held: Mutex<Reservation>,
}

/// How large these steps are.
const STEP: u64 = 16 * 1024;

impl PendingBytes {
    fn new(budget: &Budget) -> Self {
        let held = Mutex::new(budget.charge(Purpose::Outbox, 0));
        Self { bytes: AtomicU64::new(0), counted: AtomicU64::new(0), held }
    }

    fn get(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.count();
    }

    fn count(&self) {
        let steps = || self.get() / STEP * STEP;
        if self.counted.load(Ordering::Relaxed) != steps() {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.set(steps());
            self.counted.store(held.bytes(), Ordering::Relaxed);
        }
    }
}

struct SseOutlet {
    sender: mpsc::Sender<QueuedEvent>,
    pending: Arc<PendingBytes>,
    /// How many bytes may wait.
    max_bytes: u64,
    deliveries: Counter,
    end: CancellationToken,
    /// `None` if an application serves the router without connect info.
    connection: Option<Connection>,
    /// The stream ends with the first terminal event that has this number or a larger one.
    last: OnceLock<Seq>,
    /// Why the stream ends, if the client is told.
    ending: Arc<OnceLock<ApiError>>,
}

/// The last event of a stream that ends for a reason.
fn exception(error: &ApiError) -> Option<Event> {
    written(Event::default().event("exception"), &error.exception())
}

fn written(event: Event, data: &impl Serialize) -> Option<Event> {
    let event = event.json_data(data);
    event.inspect_err(|error| tracing::error!(%error, "an event could not be written")).ok()
}

impl SseOutlet {
    /// Lets the stream end with the job's next terminal event, or with its newest event if that is terminal. Says
    /// whether the stream ends at once.
    fn end_with(&self, joined: &Joined<'_>) -> bool {
        let newest = match &joined.latest {
            Latest::Job(Some(Entry::Event(event))) => Some(event),
            _ => None,
        };
        let _only_once = self.last.set(newest.map_or(0, JobEvent::seq));
        let replays = joined.resumed.is_some_and(|resumed| resumed.replaying > 0);
        newest.is_some_and(|event| event.kind().is_terminal()) && !replays
    }

    fn is_last(&self, delivery: Delivery<'_>) -> bool {
        match (delivery, self.last.get()) {
            // The only room that it was in.
            (Delivery::Signal(Signal::PutOut(_)), _) => true,
            (Delivery::Event(event, ..), Some(last)) => event.kind().is_terminal() && event.seq() >= *last,
            _ => false,
        }
    }

    fn event(&self, delivery: Delivery<'_>) -> Option<Event> {
        match delivery {
            Delivery::Event(event, positions, rooms) => {
                let event_of = Event::default().event(event.kind().name()).data(event.json().get());
                Some(event_of.id(match positions.rooms(event).find(|(room, _)| rooms == RoomSet::of(room)) {
                    Some((Room::Job(_), _)) | None => event.seq().to_string(),
                    Some((_, position)) => position.to_string(),
                }))
            }
            Delivery::Gap(gap, room, position) => {
                let id = if matches!(room, Room::Job(_)) { gap.to.to_string() } else { position.to_string() };
                written(Event::default().event("job:gap").id(id), gap)
            }
            Delivery::Signal(Signal::PutOut(room)) => exception(&Signal::put_out(room)),
            Delivery::Signal(Signal::Expiring(expires_at)) => {
                written(Event::default().event("auth:expiring"), &Expiring { expires_at: *expires_at })
            }
            Delivery::Notice(_) => None,
        }
    }
}

impl Outlet for SseOutlet {
    fn offer(&self, delivery: Delivery<'_>) -> Offer {
        let permit = match self.sender.try_reserve() {
            Ok(_) if self.waiting() >= self.max_bytes => return Offer::Full,
            Ok(permit) => permit,
            Err(TrySendError::Full(())) => return Offer::Full,
            Err(TrySendError::Closed(())) => return Offer::Closed,
        };
        let Some(event) = self.event(delivery) else { return Offer::Taken };
        let bytes = delivery.size() as u64;
        self.pending.add(bytes);
        permit.send(QueuedEvent { event, bytes, is_last: self.is_last(delivery) });
        if matches!(delivery, Delivery::Event(..)) {
            self.deliveries.inc();
        }
        Offer::Taken
    }

    fn flush(&self) {
        self.pending.count();
    }

    fn waiting(&self) -> u64 {
        self.pending.get()
    }

    fn is_full(&self) -> bool {
        self.waiting() >= self.max_bytes || self.sender.capacity() == 0
    }

    fn takes_notices(&self) -> bool {
        false
    }

    fn close(&self, reason: CloseReason) {
        if reason.is_orderly() {
            let _only_once = self.ending.set(reason.error());
            return self.end.cancel();
        }
        self.end.cancel();
        if self.sender.is_closed() {
            // The connection may carry another answer by now.
            return;
        }
        // The body of a client that does not read is never polled again, so the connection is aborted.
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}
