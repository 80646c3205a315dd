//! A Redis server that comes back without the newest of what it had accepted: numbers and positions that were seen are
//! not given again, and nobody waits.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use jobcast::{
    Backend, Draft, HistoryOptions, Owner, Position, RedisOptions, Room, Seq, StoreOptions, Tasks,
    internals::{Append, Feed, FeedItem, Store},
};
use support::RedisServer;

async fn open(server: &RedisServer, wait_replicas: u32, node: &str, tasks: &Tasks) -> (Store, Feed) {
    let backend = Backend::Redis(RedisOptions { wait_replicas, ..RedisOptions::new(&server.url()) });
    let options = StoreOptions { backend, history: HistoryOptions::default() };
    Store::open(&options, node, tasks).await.unwrap()
}

fn append(key: Option<&str>) -> Vec<Append> {
    let owner = Owner { user: Some("u".parse().unwrap()), tenant: None };
    let draft = Draft::progress("a".parse().unwrap(), 1.0, None, owner).unwrap();
    vec![Append { draft, key: key.map(|key| key.parse().unwrap()) }]
}

/// The next event's number, and its positions in the user's room and in that of all jobs.
async fn next(feed: &mut Feed) -> (Seq, [Position; 2]) {
    loop {
        let item = tokio::time::timeout(Duration::from_secs(20), feed.recv()).await;
        if let FeedItem::Event(arrival) = item.expect("what is answered arrives").unwrap() {
            let positions = arrival.positions;
            return (arrival.event.seq(), [positions.user.unwrap(), positions.all_jobs.unwrap()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_and_no_position_that_was_seen_is_given_again() {
    let (mut server, tasks) = (RedisServer::start().await, Tasks::new());
    let (watching, mut feed) = open(&server, 0, "watching", &tasks).await;
    let (publishing, _feed) = open(&server, 0, "publishing", &tasks).await;
    let user = Room::User("u".parse().unwrap());
    watching.cover(&user).await.unwrap();
    let (mut seen, mut seen_at) = (0, [Position::START; 2]);
    for round in 0..4 {
        for step in 0..8 {
            if step == 5 {
                // What comes after is lost.
                redis::cmd("SAVE").query_async::<()>(&mut server.connection().await).await.unwrap();
            }
            // The very first after the server answers is accepted, by whatever gateway.
            let store = if step % 2 == 0 { &publishing } else { &watching };
            let begun = Instant::now();
            let accepted = store.append(append(None), None).await.pop().unwrap().unwrap();
            assert!(begun.elapsed() < Duration::from_secs(1), "round {round}: {:?}", begun.elapsed());
            // Whoever watches is back once its room is confirmed.
            let (seq, at) = next(&mut feed).await;
            assert_eq!(seq, accepted.seq);
            assert!(seq > seen, "{seq} after {seen}");
            assert!(at[0] > seen_at[0] && at[1] > seen_at[1], "{at:?} after {seen_at:?}");
            (seen, seen_at) = (seq, at);
        }
        server.kill();
        server.start_again().await;
        loop {
            let item = tokio::time::timeout(Duration::from_secs(20), feed.recv()).await;
            match item.expect("the feed comes back").unwrap() {
                FeedItem::Restored(rooms) => {
                    assert_eq!(rooms, jobcast::internals::Rooms::Some(vec![user.clone()]));
                    break;
                }
                FeedItem::Interrupted(rooms) => {
                    assert_eq!(rooms, jobcast::internals::Rooms::Some(vec![user.clone()]));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn replicas_that_must_have_an_event_are_waited_for() {
    let (server, tasks) = (RedisServer::start().await, Tasks::new());
    let (store, _feed) = open(&server, 1, "node", &tasks).await;
    let refused = store.append(append(Some("k")), None).await.pop().unwrap().unwrap_err();
    assert!(refused.to_string().contains("redis.wait_replicas"), "{refused}");
    let (host, port) = ("127.0.0.1", server.port().to_string());
    let replica = RedisServer::with(&["--replicaof", host, &port, "--repl-diskless-sync-delay", "0"]).await;
    let mut connection = replica.connection().await;
    // The same key: the event that is there already is answered for once the replica has it.
    while store.append(append(Some("k")), None).await[0].is_err() {}
    let copies: i64 = redis::cmd("LLEN").arg("job-history:a").query_async(&mut connection).await.unwrap();
    assert_eq!(copies, 1);
    assert!(tasks.stop(Duration::from_secs(10)).await);
}
