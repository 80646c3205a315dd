//! The verdict: what was answered against what each watcher has, number by number.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    ledger::{Ledger, TOLD},
    ranges::Ranges,
    trial::{Context, Expectation},
    view::{Counts, JobView, View},
    wire::{JobEvent, digest},
};

/// How long a gateway may take to answer for a history, after whatever befell it.
const HISTORY: Duration = Duration::from_secs(60);

/// What a trial came to.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many events publishers were answered for, and how many deliveries of them were due.
    pub answered: u64,
    pub expected: u64,
    pub delivered: u64,
    /// Due, not delivered, but announced as gone.
    pub announced: u64,
    /// Due and neither delivered nor announced.
    pub missing: u64,
    /// How many of these in shared rooms alone.
    pub missing_shared: u64,
    /// Contents that differ from what was answered, or from what others have seen there.
    pub foreign: u64,
    /// Publishes refused or never answered.
    pub refused: u64,
    /// Watchers that did not have everything in the end.
    pub late: u64,
    pub watchers: Counts,
    pub connections: u64,
    pub silent: u64,
    pub repeats: u64,
    pub unavailable: u64,
    pub slowest_try_ms: u64,
    pub differences: Vec<String>,
    /// What the scenario itself found wrong.
    pub complaints: Vec<String>,
    /// What the scenario measured.
    pub remarks: Vec<String>,
    expectation: Option<Expectation>,
}

impl Verdict {
    pub fn new(context: &Context, views: &[View], late: u64, expectation: Expectation) -> Self {
        let (ledger, counts) = (&context.ledger, &context.counts);
        // A store that forgets what it has accepted forgets its keys too.
        if expectation != Expectation::LostTail {
            ledger.check_serials();
        }
        let mut verdict = Self {
            answered: counts.answered.get(),
            late,
            connections: counts.connections.get(),
            silent: counts.silent.get(),
            repeats: counts.repeats.get(),
            unavailable: counts.unavailable.get(),
            slowest_try_ms: counts.slowest_try.get(),
            expectation: Some(expectation),
            ..Self::default()
        };
        let numbers: Vec<Ranges> = (0..ledger.jobs()).map(|job| ledger.numbers(job)).collect();
        for view in views {
            verdict.watchers.add(&view.counts);
            for (job, seen) in &view.jobs {
                verdict.compare(&view.name, ledger, *job, &numbers[*job], seen);
            }
        }
        (verdict.foreign, verdict.refused) = ledger.troubles();
        verdict.differences.append(&mut ledger.differences());
        verdict
    }

    fn compare(&mut self, who: &str, ledger: &Ledger, job: usize, answered: &Ranges, seen: &JobView) {
        let not_delivered = answered.without(&seen.got);
        let missing = not_delivered.without(&seen.gaps);
        self.expected += answered.len();
        self.delivered += answered.len() - not_delivered.len();
        self.announced += not_delivered.len() - missing.len();
        self.missing += missing.len();
        if !seen.by_number {
            self.missing_shared += missing.len();
        }
        for (from, to) in missing.iter() {
            if self.differences.len() < TOLD {
                self.differences.push(format!("{who}: {} {from} to {to} never came", ledger.id(job)));
            }
        }
    }

    /// Whether everything is as promised.
    pub fn holds(&self) -> bool {
        let Counts { duplicated, disordered, needless_gaps, gaps, .. } = self.watchers;
        let gapless = self.expectation != Some(Expectation::Everything) || gaps == 0;
        let wrong =
            [duplicated, disordered, needless_gaps, self.missing, self.foreign, self.refused, self.late];
        gapless && wrong.iter().all(|count| *count == 0) && self.complaints.is_empty() && self.expected > 0
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
        self.needless_gaps += other.needless_gaps;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        self.unrecovered += other.unrecovered;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { duplicated, disordered, needless_gaps, repeated, gaps, unrecovered } = self.watchers;
        write!(
            f,
            "{} answered, {} due: {} delivered, {} announced gone, {} missing ({} in shared rooms), {duplicated} duplicated, \
             {disordered} disordered, {} foreign, {} refused, {} late; {gaps} gaps ({needless_gaps} needless), \
             {unrecovered} unrecovered, {repeated} repeated; {} connections ({} silent), {} publishes repeated \
             ({} times 503, slowest try {} ms)",
            self.answered,
            self.expected,
            self.delivered,
            self.announced,
            self.missing,
            self.missing_shared,
            self.foreign,
            self.refused,
            self.late,
            self.connections,
            self.silent,
            self.repeats,
            self.unavailable,
            self.slowest_try_ms,
        )?;
        for remark in &self.remarks {
            write!(f, "\n       {remark}")?;
        }
        for wrong in self.complaints.iter().chain(&self.differences) {
            write!(f, "\n     ! {wrong}")?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct History {
    events: Vec<Box<RawValue>>,
}

/// Reads all histories: each has the newest events that were answered, in order, with the contents that watchers
/// saw. Differences go to the ledger.
pub async fn check_histories(
    ledger: &Ledger,
    http: &reqwest::Client,
    gateways: &[SocketAddr],
    cap: usize,
    expectation: Expectation,
) -> Result<(), Failure> {
    for job in 0..ledger.jobs() {
        let (id, gateway) = (ledger.id(job), gateways[job % gateways.len()]);
        let url = format!("http://{gateway}/api/jobs/{id}/history?limit={cap}");
        let history: History = match read(http, &url).await {
            Ok(text) => serde_json::from_str(&text)?,
            Err(failure) => {
                ledger.history_differs(format!("history: {failure}"));
                continue;
            }
        };
        let mut kept = Ranges::default();
        let mut last = 0;
        for text in &history.events {
            let event = JobEvent::read(text.get()).ok_or("an event of a history cannot be read")?;
            if event.seq <= last {
                ledger.history_differs(format!("history: {id} {} comes after {last}", event.seq));
            }
            last = event.seq;
            kept.insert(last);
            ledger.seen("history", job, &event, digest(text.get()));
        }
        let oldest_due =
            if history.events.len() < cap { 0 } else { kept.iter().next().map_or(0, |first| first.0) };
        for (from, to) in ledger.numbers(job).without(&kept).iter().filter(|(_, to)| *to >= oldest_due) {
            match expectation {
                Expectation::LostTail => ledger.lost(job, from, to),
                _ => ledger.history_differs(format!("history: {id} {from} to {to} are not in it")),
            }
        }
    }
    Ok(())
}

/// Reads a page, for as long as the gateway may not be ready yet.
async fn read(http: &reqwest::Client, url: &str) -> Result<String, Failure> {
    let begun = Instant::now();
    loop {
        let answer = async { http.get(url).send().await?.error_for_status()?.text().await };
        match answer.await {
            Ok(text) => return Ok(text),
            Err(error) if begun.elapsed() > HISTORY => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
