//! Server-Sent Events: a session whose outlet is the body of one answer.

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
    extract::{InPath, Params},
    problem::Problem,
};
use crate::{
    connection::Connection,
    event::{JobEvent, Seq},
    gateway::{CloseReason, Delivery, JobResume, Joined, Latest, Offer, Outlet, Session, Subscription},
    id::{JobId, TenantId, UserId},
    position::RoomSet,
    refusal::Refusal,
    room::Room,
    store::Entry,
    telemetry::EdgeLabel,
};

/// How often a comment shows that an idle stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser should come back after a cut.
const RETRY: Duration = Duration::from_secs(1);

/// The connection that a request came on; none where an application serves the router without connect info.
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
    InPath(job): InPath<JobId>,
    params: Params,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, Refusal> {
    let since = resume::<Seq>(&params, &headers)?.map(JobResume::Since);
    let until = params.optional("until")?.unwrap_or(Until::Cut);
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
    InPath(user): InPath<UserId>,
    params: Params,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, Refusal> {
    let since = resume(&params, &headers)?;
    stream(state, connection, Subscription::User(user, since), Until::Cut).await
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
    InPath(tenant): InPath<TenantId>,
    params: Params,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, Refusal> {
    let since = resume(&params, &headers)?;
    stream(state, connection, Subscription::Tenant(tenant, since), Until::Cut).await
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
    params: Params,
    headers: HeaderMap,
    connection: Connected,
) -> Result<Response, Refusal> {
    let since = resume(&params, &headers)?;
    stream(state, connection, Subscription::AllJobs(since), Until::Cut).await
}

/// When a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// When either side cuts it.
    Cut,
    /// With the job's next ending; after the replay, where it is finished already.
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

/// Where to resume from. A browser that reconnects repeats the URL, so its `Last-Event-ID` is the newer one.
fn resume<T: FromStr<Err: std::fmt::Display>>(
    params: &Params,
    headers: &HeaderMap,
) -> Result<Option<T>, Refusal> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else {
        return params.optional("since");
    };
    let parsed = id
        .to_str()
        .map_err(|error| error.to_string())
        .and_then(|id| id.parse().map(Some).map_err(|error: T::Err| error.to_string()));
    parsed.map_err(|error| Refusal::invalid(format!("Last-Event-ID: {error}")))
}

async fn stream(
    state: Arc<HttpState>,
    connection: Connected,
    subscription: Subscription,
    until: Until,
) -> Result<Response, Refusal> {
    let metrics = state.gateway.metrics();
    let label = EdgeLabel { edge: "sse" };
    let (sender, frames) = mpsc::channel(state.options.outbox);
    let end = CancellationToken::new();
    let outlet = Arc::new(StreamOutlet {
        sender,
        waiting: Arc::default(),
        bound: state.options.outbox_bytes,
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
    let open = Open::new(metrics.connections.get_or_create(&label).clone());
    let waiting = outlet.waiting.clone();
    let draining = state.draining.clone();
    let leave = async move { draining.turn().await };
    let frames = frames_of(Streaming {
        frames,
        waiting,
        end,
        leave: Box::pin(leave),
        farewell: None,
        is_over,
        _session: session,
        _open: open,
    });
    let body = Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Proxies must neither keep nor collect what is live.
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

/// What lives as long as the body of the answer.
struct Streaming {
    frames: mpsc::Receiver<Frame>,
    waiting: Arc<AtomicU64>,
    end: CancellationToken,
    /// This stream's turn to leave, and how soon its client should be back.
    leave: Pin<Box<dyn Future<Output = Duration> + Send>>,
    /// What it says at its end.
    farewell: Option<Event>,
    /// Whether nothing more comes.
    is_over: bool,
    _session: Session,
    _open: Open,
}

impl Streaming {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        tokio::select! {
            biased;
            () = self.end.cancelled() => return None,
            reconnect_after = &mut self.leave, if !self.frames.is_closed() => {
                self.farewell = Some(Event::default().retry(reconnect_after));
                // What has been taken is still sent.
                self.frames.close();
            }
            frame = self.frames.recv() => return self.taken(frame),
        }
        let frame = self.frames.recv().await;
        self.taken(frame)
    }

    fn taken(&mut self, frame: Option<Frame>) -> Option<Event> {
        let Some(Frame { event, bytes, is_last }) = frame else { return self.farewell.take() };
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.is_over = is_last;
        Some(event)
    }
}

fn frames_of(streaming: Streaming) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = stream::iter([Ok(Event::default().retry(RETRY))]);
    let rest = stream::unfold(streaming, |mut streaming| async {
        let frame = streaming.next().await?;
        Some((Ok(frame), streaming))
    });
    futures_util::StreamExt::chain(first, rest)
}

/// Counts a connection for as long as it is open.
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One delivery, how many bytes it counts in the outbox, and whether the stream ends with it.
struct Frame {
    event: Event,
    bytes: u64,
    is_last: bool,
}

struct StreamOutlet {
    sender: mpsc::Sender<Frame>,
    /// How many bytes wait for the body to take them.
    waiting: Arc<AtomicU64>,
    /// How many may wait before nothing more is taken.
    bound: u64,
    deliveries: Counter,
    end: CancellationToken,
    /// `None` where an application serves the router without connect info.
    connection: Option<Connection>,
    /// The stream ends with the first ending that has this number or a larger one.
    last: OnceLock<Seq>,
}

impl StreamOutlet {
    /// Has the stream end with the job's next ending, or where it is finished with that one. Says whether nothing is to
    /// come at all.
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

impl Outlet for StreamOutlet {
    fn offer(&self, delivery: Delivery<'_>) -> Offer {
        let place = match self.sender.try_reserve() {
            Ok(_) if self.waiting() >= self.bound => return Offer::Full,
            Ok(place) => place,
            Err(TrySendError::Full(())) => return Offer::Full,
            Err(TrySendError::Closed(())) => return Offer::Closed,
        };
        let Some(event) = self.event(delivery) else { return Offer::Taken };
        let bytes = delivery.size() as u64;
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        place.send(Frame { event, bytes, is_last: self.is_last(delivery) });
        if matches!(delivery, Delivery::Event(..)) {
            self.deliveries.inc();
        }
        Offer::Taken
    }

    fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.waiting() >= self.bound || self.sender.capacity() == 0
    }

    fn takes_notices(&self) -> bool {
        false
    }

    fn close(&self, _: CloseReason) {
        self.end.cancel();
        // A body whose reader takes nothing is never asked for its end.
        if let Some(connection) = &self.connection {
            connection.cut();
        }
    }
}
