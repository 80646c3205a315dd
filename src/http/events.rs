//! Server-Sent Events: a session whose outlet is a response body.

use std::{
    convert::Infallible,
    pin::Pin,
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::{
    HttpState,
    extract::{PathParam, QueryParams, seq},
    problem::Problem,
};
use crate::{
    error::ApiError,
    event::{JobEvent, Seq},
    gateway::{CloseReason, Delivery, JobResume, Joined, Latest, Offer, Outlet, Session, Subscription},
    id::{JobId, TenantId, UserId},
    net::Connection,
    position::{Position, RoomSet},
    room::Room,
    store::Entry,
    telemetry::EdgeLabel,
};

/// The interval of keep-alive comments.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser should reconnect.
const RETRY: Duration = Duration::from_secs(1);

/// The connection of a request. `None` if an application serves the router without connect info.
type Connected = Option<Extension<ConnectInfo<Connection>>>;

/// Streams the events of a job; `id` is the event's seq
#[utoipa::path(
    get,
    path = "/api/jobs/{jobId}/events",
    operation_id = "streamJob",
    tag = "watching",
    params(
        ("jobId" = String, Path, description = "The job"),
        ("since" = Option<u64>, Query, description = "Replay the events with a larger seq first; 0 for all"),
        ("until" = Option<String>, Query, description = "finished: the stream ends after the job's next ending, or after the replay where it is finished already"),
        ("Last-Event-ID" = Option<String>, Header, description = "As since, and before it"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 422, description = "An invalid job id, since or until", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn of_job(
    State(state): State<Arc<HttpState>>,
    PathParam(job): PathParam<JobId>,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_job(&params, &headers)?;
    let until = params.optional("until")?.unwrap_or(Until::Closed);
    stream(state, connection, Subscription::Job(job, since), until).await
}

/// Streams the events of a user's jobs; `id` is the position in the user's room
#[utoipa::path(
    get,
    path = "/api/users/{userId}/events",
    operation_id = "streamUser",
    tag = "watching",
    params(
        ("userId" = String, Path, description = "The user"),
        ("since" = Option<String>, Query, description = "Replay what came after this position first, or from this time on: RFC 3339 or Unix milliseconds"),
        ("Last-Event-ID" = Option<String>, Header, description = "As since, and before it"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 422, description = "An invalid user id or since", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn of_user(
    State(state): State<Arc<HttpState>>,
    PathParam(user): PathParam<UserId>,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_room(&params, &headers)?;
    stream(state, connection, Subscription::User(user, since), Until::Closed).await
}

/// Streams the events of a tenant's jobs; `id` is the position in the tenant's room
#[utoipa::path(
    get,
    path = "/api/tenants/{tenantId}/events",
    operation_id = "streamTenant",
    tag = "watching",
    params(
        ("tenantId" = String, Path, description = "The tenant"),
        ("since" = Option<String>, Query, description = "Replay what came after this position first, or from this time on: RFC 3339 or Unix milliseconds"),
        ("Last-Event-ID" = Option<String>, Header, description = "As since, and before it"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 422, description = "An invalid tenant id or since", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn of_tenant(
    State(state): State<Arc<HttpState>>,
    PathParam(tenant): PathParam<TenantId>,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_room(&params, &headers)?;
    stream(state, connection, Subscription::Tenant(tenant, since), Until::Closed).await
}

/// Streams the events of all jobs; `id` is the position in the room of all jobs
#[utoipa::path(
    get,
    path = "/api/events",
    operation_id = "streamAll",
    tag = "watching",
    params(
        ("since" = Option<String>, Query, description = "Replay what came after this position first, or from this time on: RFC 3339 or Unix milliseconds"),
        ("Last-Event-ID" = Option<String>, Header, description = "As since, and before it"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 422, description = "An invalid since", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn all(
    State(state): State<Arc<HttpState>>,
    params: QueryParams,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, ApiError> {
    let since = resume_room(&params, &headers)?;
    stream(state, connection, Subscription::AllJobs(since), Until::Closed).await
}

/// When a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
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

/// Where to resume from, and what says so. A browser that reconnects repeats the URL, so its `Last-Event-ID` is the newer
/// one.
fn resume<'a>(
    params: &'a QueryParams,
    headers: &'a HeaderMap,
) -> Result<Option<(&'static str, &'a str)>, ApiError> {
    match headers.get("last-event-id").filter(|id| !id.is_empty()) {
        None => Ok(params.get("since").map(|since| ("since", since))),
        Some(id) => match id.to_str() {
            Ok(id) => Ok(Some(("Last-Event-ID", id))),
            Err(_) => Err(ApiError::invalid("Last-Event-ID: must be visible ASCII characters")),
        },
    }
}

/// Where to resume a job from.
fn resume_job(params: &QueryParams, headers: &HeaderMap) -> Result<Option<JobResume>, ApiError> {
    let since = resume(params, headers)?.map(|(name, text)| seq(name, text)).transpose()?;
    Ok(since.map(JobResume::Since))
}

/// Where to resume a shared room from.
fn resume_room(params: &QueryParams, headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let position = |(name, text): (&str, &str)| {
        text.parse().map_err(|error| ApiError::invalid(format!("{name}: {error}")))
    };
    resume(params, headers)?.map(position).transpose()
}

async fn stream(
    state: Arc<HttpState>,
    connection: Connected,
    subscription: Subscription,
    until: Until,
) -> Result<Response, ApiError> {
    let metrics = state.gateway.metrics();
    let label = EdgeLabel { edge: "sse" };
    let (sender, events) = mpsc::channel(state.options.outbox);
    let end = CancellationToken::new();
    let outlet = Arc::new(SseOutlet {
        sender,
        pending: Arc::default(),
        max_bytes: state.options.outbox_bytes,
        deliveries: metrics.deliveries.get_or_create(&label).clone(),
        end: end.clone(),
        connection: connection.map(|Extension(ConnectInfo(connection))| connection),
        last: OnceLock::new(),
    });
    let session = state.gateway.connect(outlet.clone(), None);
    let joined = session.join(&subscription).await?;
    let is_over = until == Until::Finished && outlet.end_with(&joined);
    if is_over {
        drop(joined);
    } else {
        joined.start();
    }
    let count = ConnectionCount::new(metrics.connections.get_or_create(&label).clone());
    let pending = outlet.pending.clone();
    let draining = state.draining.clone();
    let drain = async move { draining.wait_for_turn().await };
    let events = event_stream(StreamState {
        events,
        pending,
        end,
        drain: Box::pin(drain),
        last_event: None,
        is_over,
        _session: session,
        _count: count,
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
    pending: Arc<AtomicU64>,
    end: CancellationToken,
    /// Resolves when it is this stream's turn to drain, with the reconnect delay of its client.
    drain: Pin<Box<dyn Future<Output = Duration> + Send>>,
    /// The last event of a drained stream.
    last_event: Option<Event>,
    /// Whether the stream has ended.
    is_over: bool,
    _session: Session,
    _count: ConnectionCount,
}

impl StreamState {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        tokio::select! {
            biased;
            () = self.end.cancelled() => return None,
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
        self.pending.fetch_sub(bytes, Ordering::Relaxed);
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

struct SseOutlet {
    sender: mpsc::Sender<QueuedEvent>,
    /// How many bytes wait in the queue.
    pending: Arc<AtomicU64>,
    /// How many bytes may wait.
    max_bytes: u64,
    deliveries: Counter,
    end: CancellationToken,
    /// `None` if an application serves the router without connect info.
    connection: Option<Connection>,
    /// The stream ends with the first terminal event that has this number or a larger one.
    last: OnceLock<Seq>,
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
                let event = Event::default().event("job:gap").id(id).json_data(gap);
                event.inspect_err(|error| tracing::error!(%error, "a gap could not be written")).ok()
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
        self.pending.fetch_add(bytes, Ordering::Relaxed);
        permit.send(QueuedEvent { event, bytes, is_last: self.is_last(delivery) });
        if matches!(delivery, Delivery::Event(..)) {
            self.deliveries.inc();
        }
        Offer::Taken
    }

    fn waiting(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.waiting() >= self.max_bytes || self.sender.capacity() == 0
    }

    fn takes_notices(&self) -> bool {
        false
    }

    fn close(&self, _: CloseReason) {
        self.end.cancel();
        // The body of a client that does not read is never polled again, so the connection is aborted.
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}
