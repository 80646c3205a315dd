//! A trial: watchers and publishers on one set of gateways, from the first connection to the verdict.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::header::{HeaderName, HeaderValue};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Failure,
    client::{Client, Endpoint},
    ledger::Ledger,
    publisher::{Publisher, Style},
    tally::{Latencies, Tally, unix_micros},
    verdict::{self, Verdict},
    view::{Owners, Room, View},
};

/// How long watchers may take to connect, and to catch up in the end.
const SETTLING: Duration = Duration::from_secs(120);
const CATCHING_UP: Duration = Duration::from_secs(90);

/// For how long watchers listen on after they have everything: nothing more may come.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// What everybody in the trial is told.
#[derive(Debug, Clone, Default)]
pub struct Signal {
    /// Publishers publish nothing more.
    pub quiet: bool,
    /// The last number of each job that was answered, once that is known.
    pub last: Option<Arc<Vec<u64>>>,
    /// How often all watchers were to drop their connection.
    pub drops: u64,
    /// How often the store has come back.
    pub returns: u64,
    /// The trial is over.
    pub stop: bool,
}

/// What is counted while a trial runs.
#[derive(Default)]
pub struct Counts {
    pub connections: Tally,
    pub losses: Tally,
    /// Connections that were given up because nothing was heard on them.
    pub silent: Tally,
    pub refused_rooms: Tally,
    pub deliveries: Tally,
    pub answered: Tally,
    /// Publishes that were tried again.
    pub repeats: Tally,
    pub unavailable: Tally,
    /// In milliseconds.
    pub slowest_try: Tally,
    /// The slowest first try after the store has come back, in milliseconds.
    pub slowest_first: Tally,
}

/// What everybody in a trial shares.
pub struct Context {
    pub ledger: Ledger,
    pub counts: Counts,
    pub latencies: Latencies,
    /// How many watchers have been in all their rooms.
    pub settled: Tally,
    /// How many connections have been in all their rooms.
    pub settlings: Tally,
    /// How many watchers have everything.
    pub caught_up: Tally,
    /// How many publishers have tried for the first time after the store has come back.
    pub first_tries: Tally,
    signal: watch::Sender<Signal>,
}

impl Context {
    pub fn signal(&self) -> watch::Receiver<Signal> {
        self.signal.subscribe()
    }

    /// How the first tries after the store's return went, for a report.
    pub fn first_tries_told(&self) -> String {
        let (tries, slowest) = (self.first_tries.get(), self.counts.slowest_first.get());
        format!("{tries} first tries after the store's return, the slowest answered after {slowest} ms")
    }
}

/// What has to hold in the end, beyond what always has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// Everything that was answered arrives.
    Everything,
    /// Histories are short: what is missing is announced.
    Gaps,
    /// The store may have lost what it had accepted. A number that somebody has seen is never given again.
    LostTail,
}

/// Which rooms watchers are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Audience {
    /// Mostly one job's, some several, a user's, a tenant's, all.
    Mixed,
    /// Jobs' only.
    Jobs,
    /// Shared ones only.
    Shared,
    /// One user's each.
    Users,
}

/// What a trial is about.
pub struct Setup {
    pub jobs: usize,
    pub seed: u64,
    /// How many events all publishers together publish a second.
    pub rate: f64,
    pub padding: usize,
    pub history_cap: usize,
    pub expectation: Expectation,
    pub audience: Audience,
    pub owners: Owners,
    /// Whether a job's numbers may jump.
    pub jumps: bool,
    /// The gateways that publishers publish to.
    pub gateways: Vec<SocketAddr>,
}

/// A trial that runs.
pub struct Trial {
    pub context: Arc<Context>,
    /// What publishers publish with, and histories are read with.
    pub http: reqwest::Client,
    setup: Setup,
    watchers: JoinSet<View>,
    publishers: JoinSet<()>,
    random: fastrand::Rng,
    /// Unix, in milliseconds.
    begun: u64,
    /// How many watchers did not have everything when they were waited for.
    late: Option<u64>,
}

impl Trial {
    /// A trial without anybody in it.
    pub fn new(setup: Setup) -> Self {
        let context = Context {
            ledger: Ledger::new(setup.jobs, setup.expectation == Expectation::LostTail, setup.jumps),
            counts: Counts::default(),
            latencies: Latencies::default(),
            settled: Tally::default(),
            settlings: Tally::default(),
            caught_up: Tally::default(),
            first_tries: Tally::default(),
            signal: watch::Sender::default(),
        };
        Self {
            context: Arc::new(context),
            http: http_client(None),
            watchers: JoinSet::new(),
            publishers: JoinSet::new(),
            random: fastrand::Rng::with_seed(setup.seed),
            begun: unix_micros() / 1000,
            late: None,
            setup,
        }
    }

    /// Adds so many watchers, each at its endpoint, and waits until they are in all their rooms.
    pub async fn watch(
        &mut self,
        clients: usize,
        endpoint: impl Fn(usize) -> Endpoint,
    ) -> Result<(), Failure> {
        for number in 0..clients {
            let rooms = rooms(number, &self.setup);
            self.add(format!("watcher {number}"), rooms, endpoint(number));
            // Not all in the same moment: that is the scenario `storm`.
            if number % 50 == 49 {
                self.context.settled.reaches(number as u64 - 40).await;
            }
        }
        let settled = timeout(SETTLING, self.context.settled.reaches(clients as u64)).await;
        settled.map_err(|_| {
            let count = self.context.settled.get();
            format!("only {count} of {clients} watchers were in their rooms within {SETTLING:?}").into()
        })
    }

    /// Adds one watcher.
    pub fn add(&mut self, name: String, rooms: Vec<Room>, endpoint: Endpoint) {
        let view = View::new(name, rooms, self.setup.jobs, self.setup.owners, self.begun);
        let client = Client::new(view, endpoint, self.context.clone(), self.random.u64(..));
        self.watchers.spawn(client.run());
    }

    /// Starts the publishers.
    pub fn publish(&mut self) {
        let Setup { jobs, rate, padding, expectation, owners, ref gateways, .. } = self.setup;
        let style = Style {
            gateways: gateways.iter().map(|address| format!("http://{address}")).collect(),
            interval: Duration::from_secs_f64(jobs as f64 / rate),
            padding,
            forgetful: expectation == Expectation::LostTail,
            owners,
        };
        for job in 0..jobs {
            let publisher = Publisher::new(
                job,
                style.clone(),
                self.http.clone(),
                self.context.clone(),
                self.random.u64(..),
            );
            self.publishers.spawn(publisher.run());
        }
    }

    /// Has all watchers drop their connection at once and come back at once.
    pub fn drop_all(&self) {
        self.context.signal.send_modify(|signal| signal.drops += 1);
    }

    /// The store has come back: waits until every publisher has tried again, which succeeds at the first try.
    pub async fn store_is_back(&self) -> Result<(), Failure> {
        let all = self.publishers.len() as u64;
        let mut returns = 0;
        self.context.signal.send_modify(|signal| {
            signal.returns += 1;
            returns = signal.returns;
        });
        let tried = timeout(SETTLING, self.context.first_tries.reaches(returns * all)).await;
        tried.map_err(|_| format!("not all publishers tried within {SETTLING:?}").into())
    }

    /// Ends publishing, waits until everybody has everything, and compares.
    pub async fn finish(mut self) -> Result<Verdict, Failure> {
        self.end_publishing().await?;
        let Setup { ref gateways, history_cap, expectation, .. } = self.setup;
        verdict::check_histories(&self.context.ledger, &self.http, gateways, history_cap, expectation)
            .await?;
        self.catch_up().await;
        sleep(AFTERWARDS).await;
        self.context.signal.send_modify(|signal| signal.stop = true);
        let mut views = Vec::new();
        while let Some(view) = self.watchers.join_next().await {
            views.push(view?);
        }
        views.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Verdict::new(&self.context, &views, self.late.unwrap_or(0), expectation))
    }

    /// Ends publishing; events under way are seen through.
    pub async fn end_publishing(&mut self) -> Result<(), Failure> {
        self.context.signal.send_modify(|signal| signal.quiet = true);
        while let Some(ended) = self.publishers.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Waits until all watchers have everything, once.
    pub async fn catch_up(&mut self) {
        if self.late.is_some() {
            return;
        }
        let last = Some(Arc::new(self.context.ledger.last_answered()));
        self.context.signal.send_modify(|signal| signal.last = last);
        let watchers = self.watchers.len() as u64;
        // Who is late is told by what is missing.
        let _in_time = timeout(CATCHING_UP, self.context.caught_up.reaches(watchers)).await;
        self.late = Some(watchers - self.context.caught_up.get());
    }
}

/// A client for a gateway's HTTP side, which shows a key if it has one.
pub fn http_client(key: Option<&str>) -> reqwest::Client {
    let header =
        |key| (HeaderName::from_static("x-api-key"), HeaderValue::from_str(key).expect("a key is ASCII"));
    let headers = key.map(header).into_iter().collect();
    let client = reqwest::Client::builder().no_proxy().default_headers(headers);
    client.build().expect("a client of few options")
}

/// The rooms of a watcher.
fn rooms(number: usize, setup: &Setup) -> Vec<Room> {
    let Setup { jobs, owners, .. } = *setup;
    let job = number % jobs;
    let (user, tenant) = (number % owners.users, number % owners.tenants());
    let shared = |number: usize| match number {
        0 => vec![Room::All],
        1 => vec![Room::User(owners.user_of(job)), Room::Job(job)],
        2 => vec![Room::User(user), Room::Tenant(tenant)],
        3 => vec![Room::All, Room::Job(job)],
        4 => vec![Room::Tenant(tenant)],
        _ => vec![Room::User(user)],
    };
    // Not too many of those that get much.
    let few = number < 400;
    match (setup.audience, number % 20) {
        (Audience::Users, _) => vec![Room::User(user)],
        (Audience::Shared, kind) if few => shared(kind % 6),
        (Audience::Shared, _) => vec![Room::User(user)],
        (Audience::Mixed, kind @ 0..6) if few => shared(kind),
        (_, 6..9) => {
            let mut three = vec![Room::Job(job), Room::Job((job + 1) % jobs), Room::Job((job + 2) % jobs)];
            three.dedup();
            three
        }
        _ => vec![Room::Job(job)],
    }
}
