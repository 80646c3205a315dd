//! Fetching a JWKS: one fetch at a time, bounded in time and size; a success replaces the keys, an outage keeps them.

use std::{net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{AuthError, keys::KeySet};
use crate::{
    tasks::Tasks,
    telemetry::{Metrics, OutcomeLabel},
    timestamp::Timestamp,
};

/// The largest JWKS, in bytes.
const MAX_SIZE: usize = 256 * 1024;

/// When a JWKS is fetched.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How long after one fetch the next begins.
    pub refresh: Duration,
    /// How long after the beginning of one fetch an unknown key may begin the next.
    pub throttle: Duration,
    /// How long a fetch may take, and who waits for it may wait.
    pub timeout: Duration,
    /// For how long after the last success the keys are good.
    pub max_age: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5 * 60),
            throttle: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// The address of a JWKS: by TLS, or on this machine.
#[derive(Debug, Clone)]
pub struct JwksUrl(Url);

/// A text is not the address of a JWKS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an https:// URL, or an http:// URL on a loopback address, without user and password")]
pub struct InvalidJwksUrl;

impl FromStr for JwksUrl {
    type Err = InvalidJwksUrl;

    fn from_str(text: &str) -> Result<Self, InvalidJwksUrl> {
        let url: Url = text.parse().map_err(|_| InvalidJwksUrl)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_local);
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        if is_safe && is_anonymous { Ok(Self(url)) } else { Err(InvalidJwksUrl) }
    }
}

/// The keys that are known.
#[derive(Debug, Clone, Default)]
pub struct KnownKeys {
    /// `None` where there are none yet, or none that are young enough.
    pub keys: Option<Arc<KeySet>>,
    /// Another one whenever the keys are others.
    pub generation: u64,
}

#[derive(Debug, Clone)]
struct State {
    known: KnownKeys,
    /// How many fetches have ended.
    ended: u64,
    /// When the next fetch may begin. `None` while there is one.
    next: Option<Instant>,
}

/// A JWKS that is fetched by a task.
#[derive(Debug)]
pub struct Jwks {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    timeout: Duration,
}

impl Jwks {
    /// Begins to fetch, until the tasks stop.
    ///
    /// # Errors
    /// [`AuthError::HttpClient`].
    pub fn start(
        url: &JwksUrl,
        schedule: Schedule,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Self, AuthError> {
        // A proxy of the environment is for other requests, and a redirect could lead anywhere.
        let client = Client::builder().no_proxy().redirect(Policy::none()).pool_max_idle_per_host(0);
        let client = client.timeout(schedule.timeout).build();
        let client = client.map_err(|error| AuthError::HttpClient(with_causes(&error)))?;
        let (sender, state) = watch::channel(State { known: KnownKeys::default(), ended: 0, next: None });
        let wanted = Arc::new(Notify::new());
        let outcome = |outcome| metrics.jwks_fetches.get_or_create(&OutcomeLabel { outcome }).clone();
        let fetcher = Fetcher {
            client,
            url: url.0.clone(),
            schedule,
            state: sender,
            wanted: wanted.clone(),
            body: Vec::new(),
            last_success: None,
            is_failing: false,
            succeeded: outcome("ok"),
            failed: outcome("failed"),
            fetched_at: metrics.jwks_fetched_at.clone(),
        };
        tasks.spawn_until_stop("jwks", fetcher.run());
        Ok(Self { state, wanted, timeout: schedule.timeout })
    }

    /// The keys that are known now.
    pub fn current(&self) -> KnownKeys {
        self.state.borrow().known.clone()
    }

    /// The keys, after a fetch that is under way, or that may begin now, where none of those that are known is meant.
    pub async fn keys_for(&self, kid: Option<&str>) -> KnownKeys {
        let State { known, ended, next } = self.state.borrow().clone();
        let is_known = known.keys.as_ref().is_some_and(|keys| keys.knows(kid));
        if is_known || next.is_some_and(|next| Instant::now() < next) {
            return known;
        }
        if next.is_some() {
            self.wanted.notify_one();
        }
        let mut state = self.state.clone();
        // Where it takes too long, or the gateway stops, those that are known have to do.
        let _waited = timeout(self.timeout, state.wait_for(|state| state.ended > ended)).await;
        self.current()
    }
}

struct Fetcher {
    client: Client,
    url: Url,
    schedule: Schedule,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
    /// The JWKS in force, as it was fetched.
    body: Vec<u8>,
    last_success: Option<Instant>,
    is_failing: bool,
    succeeded: Counter,
    failed: Counter,
    fetched_at: prometheus_client::metrics::gauge::Gauge,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{}", with_causes(.0))]
    Http(#[from] reqwest::Error),
    #[error("the answer is a {0}, and must be a 200")]
    Status(StatusCode),
    #[error("the answer is larger than {MAX_SIZE} bytes")]
    TooLarge,
    #[error("the answer must be a JWKS, {{\"keys\": […]}}: {0}")]
    NoJwks(#[from] serde_json::Error),
}

impl Fetcher {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            self.state.send_modify(|state| state.next = None);
            let fetched = fetch(&self.client, &self.url).await;
            let known = match fetched {
                Ok(body) => self.succeed(body, began),
                Err(error) => self.fail(&error),
            };
            let next = began + self.schedule.throttle;
            self.state.send_modify(|state| {
                if let Some(known) = known {
                    state.known = known;
                }
                state.ended += 1;
                state.next = Some(next);
            });
            self.wait(began + self.schedule.refresh, next).await;
        }
    }

    /// Waits until the next fetch is due, or somebody wants one that may begin.
    async fn wait(&self, due: Instant, next: Instant) {
        let wanted = async {
            loop {
                self.wanted.notified().await;
                if Instant::now() >= next {
                    return;
                }
            }
        };
        tokio::select! {
            () = sleep_until(due) => {}
            () = wanted => {}
        }
    }

    /// The keys that are new, if they are.
    fn succeed(&mut self, (body, keys): (Vec<u8>, KeySet), began: Instant) -> Option<KnownKeys> {
        self.succeeded.inc();
        self.fetched_at.set((Timestamp::now().millis() / 1000).cast_signed());
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("the JWKS can be fetched again (auth.jwks_url)");
        }
        self.last_success = Some(began);
        let known = self.state.borrow().known.clone();
        if known.keys.is_some() && body == self.body {
            return None;
        }
        self.body = body;
        match keys.ignored {
            0 => tracing::info!(keys = keys.count(), "the JWKS has new keys"),
            ignored => {
                tracing::warn!(keys = keys.count(), ignored, "the JWKS has new keys, and some of no use here")
            }
        }
        Some(KnownKeys { keys: Some(Arc::new(keys)), generation: known.generation + 1 })
    }

    /// No keys, if those that there are have become too old.
    fn fail(&mut self, error: &FetchError) -> Option<KnownKeys> {
        self.failed.inc();
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "the JWKS cannot be fetched (auth.jwks_url); the keys that are known stay good");
        }
        let is_young = self.last_success.is_some_and(|last| last.elapsed() < self.schedule.max_age);
        let known = self.state.borrow().known.clone();
        if is_young || known.keys.is_none() {
            return None;
        }
        tracing::error!(
            "the keys of the JWKS are too old; tokens by them are refused until it can be fetched"
        );
        Some(KnownKeys { keys: None, generation: known.generation + 1 })
    }
}

async fn fetch(client: &Client, url: &Url) -> Result<(Vec<u8>, KeySet), FetchError> {
    let mut response = client.get(url.clone()).send().await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_SIZE {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let keys = KeySet::parse(&body)?;
    Ok((body, keys))
}

/// An error with its causes, and without the address, whose query may be secret.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = match error.is_timeout() {
        true => "it took too long".to_owned(),
        false => "the request failed".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
