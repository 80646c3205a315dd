//! A Redis Cluster whose slots move and whose masters die, under a gateway that publishes and watches.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jobcast::{
    Backend, Draft, Entry, Gateway, GatewayOptions, HistoryOptions, JobEvent, JobId, Outlet, Owner,
    RedisOptions, Seq, Session, StoreOptions, Subscription,
};
use support::{cluster::RedisCluster, watcher::Watcher};

/// What a watcher got: the numbers of each job, in the order of their arrival.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<BTreeMap<String, Vec<Seq>>>>);

impl Got {
    fn outlet(&self) -> Arc<dyn Outlet> {
        let got = self.0.clone();
        Arc::new(Watcher(move |event: &JobEvent| {
            got.lock().unwrap().entry(event.job().to_string()).or_default().push(event.seq());
        }))
    }

    fn of(&self, job: &str) -> Vec<Seq> {
        self.0.lock().unwrap().get(job).cloned().unwrap_or_default()
    }

    async fn waits_for(&self, job: &str, seqs: &[Seq]) {
        let begun = Instant::now();
        while self.of(job) != seqs {
            let got = self.of(job);
            assert!(begun.elapsed() < Duration::from_secs(60), "{job}: got {got:?}, expected {seqs:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

struct Subject {
    gateway: Gateway,
    by_job: Got,
    by_user: Got,
    _sessions: Vec<Session>,
}

/// The jobs that are watched. Of so many, each master holds some.
fn jobs() -> Vec<String> {
    (0..12).map(|number| format!("job-{number}")).collect()
}

fn parsed(job: &str) -> JobId {
    job.parse().unwrap()
}

impl Subject {
    /// A gateway with one session in the rooms of all jobs, and one in the room of their owner.
    async fn open(cluster: &RedisCluster, wait_replicas: u32) -> Self {
        let redis = RedisOptions { urls: cluster.urls(), wait_replicas, ..RedisOptions::new("") };
        let options = StoreOptions { backend: Backend::Redis(redis), history: HistoryOptions::default() };
        let gateway = Gateway::open(&options, GatewayOptions::default()).await.unwrap();
        let (by_job, by_user) = (Got::default(), Got::default());
        let sessions = vec![gateway.connect(by_job.outlet(), None), gateway.connect(by_user.outlet(), None)];
        for job in jobs() {
            sessions[0].join(&Subscription::Job(parsed(&job), None)).await.unwrap().start();
        }
        sessions[1].join(&Subscription::User("u".parse().unwrap(), None)).await.unwrap().start();
        Self { gateway, by_job, by_user, _sessions: sessions }
    }

    /// Publishes until it is answered, as a publisher with an idempotency key does.
    async fn publish(&self, job: &str, step: usize) -> Seq {
        let owner = Owner { user: Some("u".parse().unwrap()), tenant: None };
        let begun = Instant::now();
        loop {
            let draft = Draft::progress(parsed(job), 1.0, Some(&step.to_string()), owner.clone()).unwrap();
            let key = format!("step-{step}").parse().unwrap();
            match self.gateway.publish(draft, Some(key)).await {
                Ok(published) => return published.seq,
                Err(refusal) => assert!(begun.elapsed() < Duration::from_secs(60), "{refusal}"),
            }
        }
    }

    async fn history(&self, job: &str) -> Vec<Seq> {
        let entries = self.gateway.job_history(&parsed(job), None, None).await.unwrap();
        entries.into_iter().filter_map(Entry::event).map(|event| event.seq()).collect()
    }

    /// Everything answered is in history and has reached both watchers, once and in order.
    async fn has_all(&self, answered: &BTreeMap<String, Vec<Seq>>) {
        for (job, seqs) in answered {
            assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{job}: {seqs:?}");
            assert_eq!(&self.history(job).await, seqs, "{job}");
            self.by_job.waits_for(job, seqs).await;
            self.by_user.waits_for(job, seqs).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_slot_moves_under_its_publishers_and_watchers() {
    let cluster = RedisCluster::start(3, 0).await;
    let subject = Subject::open(&cluster, 0).await;
    let mut answered: BTreeMap<String, Vec<Seq>> = BTreeMap::new();
    let moved = "job-0";
    // One more job of the same slot, which begins while the slot is on its way.
    let history = format!("job-history:{moved}");
    let (from, to) = (cluster.holder(&history).await, (cluster.holder(&history).await + 1) % 3);
    let stages = ["before", "moving", "half", "moved", "after"];
    for (step, stage) in stages.iter().enumerate() {
        match *stage {
            "moving" => cluster.begin_move(&history, from, to).await,
            "half" => cluster.move_keys(&history, from, to).await,
            "moved" => cluster.end_move(&history, to).await,
            _ => {}
        }
        for job in jobs() {
            answered.entry(job.clone()).or_default().push(subject.publish(&job, step).await);
        }
        assert_eq!(subject.publish(moved, step).await, answered[moved][step], "{stage}: the key is known");
    }
    subject.has_all(&answered).await;
    assert!(subject.gateway.stop(Duration::from_secs(10)).await);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_job_begins_while_its_slot_moves() {
    let cluster = RedisCluster::start(3, 0).await;
    let subject = Subject::open(&cluster, 0).await;
    let history = "job-history:job-3";
    let (from, to) = (cluster.holder(history).await, (cluster.holder(history).await + 1) % 3);
    cluster.begin_move(history, from, to).await;
    let mut answered = Vec::new();
    for step in 0..5 {
        answered.push(subject.publish("job-3", step).await);
    }
    cluster.end_move(history, to).await;
    answered.push(subject.publish("job-3", 5).await);
    subject.has_all(&[("job-3".to_owned(), answered)].into()).await;
    assert!(subject.gateway.stop(Duration::from_secs(10)).await);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_master_dies_and_its_replica_takes_over() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let subject = Subject::open(&cluster, 1).await;
    let mut answered: BTreeMap<String, Vec<Seq>> = BTreeMap::new();
    let victim = cluster.holder("job-history:job-0").await;
    let crash = async {
        cluster.servers[victim].kill();
        // Without it the new master would have no replica, and nothing would be safe enough to be answered.
        cluster.is_promoted(3 + victim).await;
        cluster.servers[victim].start_again().await;
    };
    let publishing = async {
        for step in 0..20 {
            for job in jobs() {
                answered.entry(job.clone()).or_default().push(subject.publish(&job, step).await);
            }
        }
    };
    tokio::join!(crash, publishing);
    subject.has_all(&answered).await;
    assert!(subject.gateway.stop(Duration::from_secs(10)).await);
}
