//! Publishers: one for each job, one event after the other, each repeated under its key until it is answered.

use std::{sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{tally::unix_micros, trial::Context, view::Owners, wire::Stamp};

/// How long one try may take, and all tries of an event together.
const TRY: Duration = Duration::from_secs(20);
const TRIES: Duration = Duration::from_secs(150);

/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How publishers publish.
#[derive(Debug, Clone)]
pub struct Style {
    /// The gateways' addresses, such as `http://127.0.0.1:3000`.
    pub gateways: Vec<String>,
    /// How long one publisher waits from one event to the next.
    pub interval: Duration,
    /// By how many characters payloads are longer than they need to be.
    pub padding: usize,
    /// Whether the store may lose what it has accepted, so that a job's state may be older.
    pub forgetful: bool,
    pub owners: Owners,
}

/// The publisher of one job.
pub struct Publisher {
    job: usize,
    style: Style,
    http: reqwest::Client,
    context: Arc<Context>,
    random: fastrand::Rng,
    serial: u64,
    finished: bool,
    /// What its keys begin with.
    keys: u64,
    /// How often the store had come back when this publisher last tried.
    returns: u64,
}

/// A publish as it is repeated: the same bytes under the same key.
struct Call {
    path: String,
    key: String,
    body: Value,
}

#[derive(Deserialize)]
struct Published {
    seq: u64,
}

/// What became of a try.
enum Outcome {
    Answered(u64),
    /// Unknown: to be repeated.
    Unknown,
    /// Refused as wrong, with the answer's text.
    Refused(StatusCode, String),
}

impl Publisher {
    pub fn new(job: usize, style: Style, http: reqwest::Client, context: Arc<Context>, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let keys = random.u64(..);
        Self { job, style, http, context, random, serial: 0, finished: false, keys, returns: 0 }
    }

    /// Publishes until publishing ends; the event under way is seen through.
    pub async fn run(mut self) {
        let mut due = Instant::now() + self.style.interval.mul_f64(self.random.f64());
        let mut signal = self.context.signal();
        loop {
            let ended = tokio::select! {
                ended = signal.wait_for(|signal| signal.quiet) => Some(ended.is_ok()),
                () = sleep_until(due) => None,
            };
            if ended.is_some() {
                return;
            }
            let call = self.next_call();
            self.see_through(&call).await;
            // Jittered; after an outage it does not make up for what it could not publish.
            due = (due + self.style.interval.mul_f64(0.5 + self.random.f64())).max(Instant::now());
        }
    }

    fn next_call(&mut self) -> Call {
        self.serial += 1;
        let text = Stamp { serial: self.serial, sent: unix_micros() }.text(self.style.padding);
        let (operation, mut body) = match (self.finished, self.random.u8(0..100)) {
            (false, 0..80) => ("progress", json!({"progress": self.random.u8(0..=100), "message": text})),
            (false, 80..85) => ("completed", json!({"result": text})),
            (false, 85..88) => ("error", json!({"error": text})),
            _ => ("update", json!({"status": "running", "data": text})),
        };
        self.finished = matches!(operation, "completed" | "error");
        body["userId"] = format!("user-{}", self.style.owners.user_of(self.job)).into();
        body["tenantId"] = format!("tenant-{}", self.style.owners.tenant_of(self.job)).into();
        Call {
            path: format!("/api/jobs/job-{}/{operation}", self.job),
            key: format!("{:x}-{}", self.keys, self.serial),
            body,
        }
    }

    async fn see_through(&mut self, call: &Call) {
        let (begun, mut pause) = (Instant::now(), PAUSES.0);
        loop {
            let returns = self.context.signal().borrow().returns;
            let first = std::mem::replace(&mut self.returns, returns) != returns;
            let tried = Instant::now();
            let outcome = self.attempt(call).await;
            if first {
                self.note_first(call, &outcome, tried.elapsed());
            }
            match outcome {
                Outcome::Answered(seq) => {
                    self.context.ledger.answered(self.job, seq, self.serial);
                    self.context.counts.answered.add(1);
                    return;
                }
                // The store has lost that the job was reopened.
                Outcome::Refused(StatusCode::CONFLICT, _) if self.style.forgetful => {
                    self.finished = true;
                    return;
                }
                Outcome::Refused(status, answer) => {
                    let (path, serial) = (&call.path, self.serial);
                    self.context.ledger.refused(format!("{path}, serial {serial}: {status} {answer}"));
                    return;
                }
                Outcome::Unknown if begun.elapsed() > TRIES => {
                    let (path, serial) = (&call.path, self.serial);
                    self.context.ledger.refused(format!("{path}, serial {serial}: no answer in {TRIES:?}"));
                    return;
                }
                Outcome::Unknown => {}
            }
            self.context.counts.repeats.add(1);
            sleep(pause.mul_f64(0.5 + self.random.f64())).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// The first try after the store has come back: it is taken.
    fn note_first(&self, call: &Call, outcome: &Outcome, took: Duration) {
        if matches!(outcome, Outcome::Unknown) {
            let path = &call.path;
            self.context
                .ledger
                .refused(format!("{path}: the first try after the store's return was in vain, {took:.1?}"));
        }
        self.context.counts.slowest_first.raise(took.as_millis() as u64);
        self.context.first_tries.add(1);
    }

    async fn attempt(&mut self, call: &Call) -> Outcome {
        let gateway = &self.style.gateways[self.random.usize(0..self.style.gateways.len())];
        let request = self.http.post(format!("{gateway}{}", call.path)).timeout(TRY);
        let request = request.header("Idempotency-Key", &call.key).json(&call.body);
        let begun = Instant::now();
        let Ok(answer) = request.send().await else {
            self.context.counts.slowest_try.raise(begun.elapsed().as_millis() as u64);
            return Outcome::Unknown;
        };
        let (status, retry_after) = (answer.status(), answer.headers().contains_key("retry-after"));
        let text = answer.text().await;
        self.context.counts.slowest_try.raise(begun.elapsed().as_millis() as u64);
        let Ok(text) = text else { return Outcome::Unknown };
        if status.is_server_error() {
            self.context.counts.unavailable.add(1);
            if status != StatusCode::SERVICE_UNAVAILABLE || !retry_after {
                self.context.ledger.refused(format!("{}: {status} without Retry-After: {text}", call.path));
            }
            return Outcome::Unknown;
        }
        match serde_json::from_str::<Published>(&text) {
            Ok(published) if status.is_success() => Outcome::Answered(published.seq),
            _ => Outcome::Refused(status, text),
        }
    }
}
