//! A Redis Cluster whose slots move and whose masters die, under a store that is published to and followed.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jobcast::{
    Backend, Draft, Entry, HistoryOptions, JobId, Owner, RedisOptions, Room, Seq, StoreOptions, Tasks,
    internals::{Append, Store, Window},
};
use support::{cluster::RedisCluster, follower::Follower};

struct Subject {
    store: Store,
    follower: Follower,
    tasks: Tasks,
}

/// The jobs that are followed. Of so many, each master holds some.
fn jobs() -> Vec<String> {
    (0..12).map(|number| format!("job-{number}")).collect()
}

fn parsed(job: &str) -> JobId {
    job.parse().unwrap()
}

fn user() -> Room {
    Room::User("u".parse().unwrap())
}

/// Publishes until it is answered, as a publisher with an idempotency key does.
async fn publish(store: &Store, job: &str, step: usize) -> Seq {
    let owner = Owner { user: Some("u".parse().unwrap()), tenant: None };
    let begun = Instant::now();
    loop {
        let draft = Draft::progress(parsed(job), 1.0, Some(&step.to_string()), owner.clone()).unwrap();
        let key = format!("step-{step}").parse().ok();
        match store.append(vec![Append { draft, key }], None).await.pop().unwrap() {
            Ok(accepted) => return accepted.seq,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
        }
    }
}

impl Subject {
    /// A store, and who follows the rooms of all jobs, of their owner, and of everything.
    async fn open(cluster: &RedisCluster, wait_replicas: u32) -> Self {
        let redis = RedisOptions { urls: cluster.urls(), wait_replicas, ..RedisOptions::new("") };
        let options = StoreOptions { backend: Backend::Redis(redis), history: HistoryOptions::default() };
        let tasks = Tasks::new();
        let (store, feed) = Store::open(&options, "node", &tasks).await.unwrap();
        let mut rooms: Vec<Room> = jobs().iter().map(|job| Room::Job(parsed(job))).collect();
        rooms.extend([user(), Room::AllJobs]);
        let follower = Follower::new(store.clone(), feed, &rooms).await;
        Self { store, follower, tasks }
    }

    /// The rooms whose channels a server brings.
    async fn rooms_on(cluster: &RedisCluster, server: usize) -> BTreeSet<Room> {
        let mut rooms = BTreeSet::new();
        for job in jobs() {
            if cluster.holder(&format!("job-history:{job}")).await == server {
                rooms.insert(Room::Job(parsed(&job)));
            }
        }
        for (room, tag) in [(user(), "user:u"), (Room::AllJobs, "all-jobs")] {
            if cluster.holder(tag).await == server {
                rooms.insert(room);
            }
        }
        rooms
    }

    /// Everything answered is in history, and has come by all rooms once and in order.
    /// Answers which rooms were interrupted.
    async fn has_all(mut self, answered: &BTreeMap<String, Vec<Seq>>) -> BTreeSet<Room> {
        let count: usize = answered.values().map(Vec::len).sum();
        let rooms = [user(), Room::AllJobs];
        let enough = |follower: &Follower| {
            let of_job = |job: &String| follower.got(&Room::Job(parsed(job))).len() == answered[job].len();
            rooms.iter().all(|room| follower.got(room).len() >= count) && answered.keys().all(of_job)
        };
        self.follower.until(enough).await;
        for (job, seqs) in answered {
            assert!(seqs.is_sorted_by(|one, other| one < other), "{job}: {seqs:?}");
            let history = self.store.history(&parsed(job), Window::Newest(100)).await.unwrap();
            let history: Vec<Seq> =
                history.into_iter().filter_map(Entry::event).map(|event| event.seq()).collect();
            assert_eq!(&history, seqs, "{job}");
            for room in rooms.iter().chain([&Room::Job(parsed(job))]) {
                let got = self.follower.got(room).iter().filter(|(of, _)| of == job);
                assert_eq!(&got.map(|(_, seq)| *seq).collect::<Vec<_>>(), seqs, "{job} in {room}");
            }
        }
        assert!(self.tasks.stop(Duration::from_secs(10)).await);
        self.follower.restored
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_slot_moves_under_its_publishers_and_watchers() {
    let cluster = RedisCluster::start(3, 0).await;
    let subject = Subject::open(&cluster, 0).await;
    let mut answered: BTreeMap<String, Vec<Seq>> = BTreeMap::new();
    let moved = "job-0";
    let keys = [format!("job-history:{moved}"), "jobcast:log:{user:u}".to_owned()];
    let mut ways = Vec::new();
    for key in &keys {
        let from = cluster.holder(key).await;
        ways.push((key, from, (from + 1) % 3));
    }
    let stages = ["before", "moving", "half", "moved", "after"];
    for (step, stage) in stages.iter().enumerate() {
        for (key, from, to) in ways.iter().copied() {
            match *stage {
                "moving" => cluster.begin_move(key, from, to).await,
                "half" => cluster.move_keys(key, from, to).await,
                "moved" => cluster.end_move(key, to).await,
                _ => {}
            }
        }
        for job in jobs() {
            answered.entry(job.clone()).or_default().push(publish(&subject.store, &job, step).await);
        }
        assert_eq!(
            publish(&subject.store, moved, step).await,
            answered[moved][step],
            "{stage}: the key is known"
        );
    }
    subject.has_all(&answered).await;
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
        answered.push(publish(&subject.store, "job-3", step).await);
    }
    cluster.end_move(history, to).await;
    answered.push(publish(&subject.store, "job-3", 5).await);
    subject.has_all(&[("job-3".to_owned(), answered)].into()).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_master_dies_and_its_replica_takes_over() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let subject = Subject::open(&cluster, 1).await;
    let mut answered: BTreeMap<String, Vec<Seq>> = BTreeMap::new();
    let victim = cluster.holder("job-history:job-0").await;
    let on_it = Subject::rooms_on(&cluster, victim).await;
    let crash = async {
        cluster.servers[victim].kill();
        // Without it the new master would have no replica, and nothing would be safe enough to be answered.
        cluster.is_promoted(3 + victim).await;
        cluster.servers[victim].start_again().await;
    };
    let publishing = async {
        for step in 0..20 {
            for job in jobs() {
                answered.entry(job.clone()).or_default().push(publish(&subject.store, &job, step).await);
            }
        }
    };
    tokio::join!(crash, publishing);
    // Rooms on other servers are not touched.
    let restored = subject.has_all(&answered).await;
    assert_eq!(restored, on_it);
}
