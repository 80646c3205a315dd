//! Server-Sent Events: a session whose outlet is the body of one answer.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use axum::{
    extract::State,
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
    event::{JobEvent, Seq},
    gateway::{CloseReason, Delivery, JobResume, Offer, Outlet, Session, Subscription},
    id::{JobId, UserId},
    refusal::Refusal,
    telemetry::EdgeLabel,
    timestamp::Timestamp,
};

/// How often a comment shows that an idle stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser should come back after a cut.
const RETRY: Duration = Duration::from_secs(1);

/// Streams the events of a job; `id` is the event's seq
#[utoipa::path(
    get,
    path = "/api/jobs/{jobId}/events",
    operation_id = "streamJob",
    tag = "watching",
    params(
        ("jobId" = String, Path, description = "The job"),
        ("since" = Option<u64>, Query, description = "Replay the events with a larger seq first; 0 for all"),
        ("Last-Event-ID" = Option<String>, Header, description = "As since, and before it"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 422, description = "An invalid job id or since", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn of_job(
    State(state): State<HttpState>,
    InPath(job): InPath<JobId>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let since = resume::<Seq>(&params, &headers)?.map(JobResume::Since);
    stream(state, Subscription::Job(job, since), |event| event.seq()).await
}

/// Streams the events of a user's jobs; `id` is the event's time in Unix milliseconds
#[utoipa::path(
    get,
    path = "/api/users/{userId}/events",
    operation_id = "streamUser",
    tag = "watching",
    params(
        ("userId" = String, Path, description = "The user"),
        ("since" = Option<String>, Query, description = "Replay from this time first: RFC 3339 or Unix milliseconds"),
        ("Last-Event-ID" = Option<String>, Header, description = "As since, and before it"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 422, description = "An invalid user id or since", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn of_user(
    State(state): State<HttpState>,
    InPath(user): InPath<UserId>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let since = resume::<Timestamp>(&params, &headers)?;
    stream(state, Subscription::User(user, since), |event| event.timestamp().millis()).await
}

/// Streams the events of all jobs; `id` is the event's time in Unix milliseconds
#[utoipa::path(
    get,
    path = "/api/events",
    operation_id = "streamAll",
    tag = "watching",
    params(
        ("since" = Option<String>, Query, description = "Replay from this time first: RFC 3339 or Unix milliseconds"),
        ("Last-Event-ID" = Option<String>, Header, description = "As since, and before it"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 422, description = "An invalid since", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn all(
    State(state): State<HttpState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let since = resume::<Timestamp>(&params, &headers)?;
    stream(state, Subscription::AllJobs(since), |event| event.timestamp().millis()).await
}

/// Where to resume from. A browser that reconnects repeats the URL, so its `Last-Event-ID` is the newer one.
fn resume<T: std::str::FromStr<Err: std::fmt::Display>>(
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
    state: HttpState,
    subscription: Subscription,
    id: fn(&JobEvent) -> u64,
) -> Result<Response, Refusal> {
    let metrics = state.gateway.metrics();
    let label = EdgeLabel { edge: "sse" };
    let (sender, frames) = mpsc::channel(state.options.outbox);
    let end = CancellationToken::new();
    let deliveries = metrics.deliveries.get_or_create(&label).clone();
    let outlet = Arc::new(StreamOutlet { sender, id, deliveries, end: end.clone() });
    let session = state.gateway.connect(outlet, None);
    session.join(&subscription).await?.start();
    let open = Open::new(metrics.connections.get_or_create(&label).clone());
    let draining = state.draining.clone();
    let leave = async move { draining.turn().await };
    let frames = frames_of(Streaming {
        frames,
        end,
        leave: Box::pin(leave),
        farewell: None,
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
    frames: mpsc::Receiver<Event>,
    end: CancellationToken,
    /// This stream's turn to leave, and how soon its client should be back.
    leave: Pin<Box<dyn Future<Output = Duration> + Send>>,
    /// What it says at its end.
    farewell: Option<Event>,
    _session: Session,
    _open: Open,
}

impl Streaming {
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            () = self.end.cancelled() => return None,
            reconnect_after = &mut self.leave, if !self.frames.is_closed() => {
                self.farewell = Some(Event::default().retry(reconnect_after));
                // What has been taken is still sent.
                self.frames.close();
            }
            frame = self.frames.recv() => return frame.or_else(|| self.farewell.take()),
        }
        self.frames.recv().await.or_else(|| self.farewell.take())
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

struct StreamOutlet {
    sender: mpsc::Sender<Event>,
    id: fn(&JobEvent) -> u64,
    deliveries: Counter,
    end: CancellationToken,
}

impl Outlet for StreamOutlet {
    fn offer(&self, delivery: Delivery<'_>) -> Offer {
        let place = match self.sender.try_reserve() {
            Ok(place) => place,
            Err(TrySendError::Full(())) => return Offer::Full,
            Err(TrySendError::Closed(())) => return Offer::Closed,
        };
        match delivery {
            Delivery::Event(event) => {
                let id = (self.id)(event).to_string();
                place.send(Event::default().id(id).event(event.kind().name()).data(event.json().get()));
                self.deliveries.inc();
            }
            Delivery::Gap(gap) => match Event::default().event("job:gap").json_data(gap) {
                Ok(frame) => place.send(frame),
                Err(error) => tracing::error!(%error, "a gap could not be written"),
            },
            Delivery::Notice(_) => {}
        }
        Offer::Taken
    }

    fn takes_notices(&self) -> bool {
        false
    }

    fn close(&self, _: CloseReason) {
        self.end.cancel();
    }
}
