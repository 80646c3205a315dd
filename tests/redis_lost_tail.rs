//! A Redis server that comes back without the newest of what it had accepted: no number that a watcher has seen is
//! given again, whichever gateway publishes.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use jobcast::{
    Backend, Gateway, GatewayOptions, HistoryOptions, JobEvent, JobId, RedisOptions, Seq, StoreOptions,
    Subscription,
};
use support::{RedisServer, watcher::Watcher};
use tokio::sync::mpsc;

async fn gateway(server: &RedisServer) -> Gateway {
    let backend = Backend::Redis(RedisOptions::new(&server.url()));
    let options = StoreOptions { backend, history: HistoryOptions::default() };
    Gateway::open(&options, GatewayOptions::default()).await.unwrap()
}

async fn publish(gateway: &Gateway, job: &str) -> Seq {
    // Until it is answered: between two attempts the gateway itself waits for the server.
    for _ in 0..20 {
        if let Ok(published) = gateway.emit_job_progress(job, 1.0, None).await {
            return published.seq;
        }
    }
    panic!("the server does not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn no_number_that_was_seen_is_given_again() {
    let mut server = RedisServer::start().await;
    let (watching, publishing) = (gateway(&server).await, gateway(&server).await);
    let (sender, mut events) = mpsc::unbounded_channel();
    let session = watching
        .connect(Arc::new(Watcher(move |event: &JobEvent| sender.send(event.clone()).unwrap())), None);
    let (job, known): (JobId, usize) = ("a".parse().unwrap(), 5);
    session.join(&Subscription::Job(job, None)).await.unwrap().start();
    let mut seen: Vec<Seq> = Vec::new();
    for _round in 0..5 {
        for step in 0..known + 3 {
            if step == known {
                // What comes after is lost.
                redis::cmd("SAVE").query_async::<()>(&mut server.connection().await).await.unwrap();
            }
            let answered = publish(&publishing, "a").await;
            let newest = seen.last().copied().unwrap_or_default();
            assert!(answered > newest, "{answered} is answered, but {newest} was seen");
            while seen.last() != Some(&answered) {
                let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
                let seq = event.expect("what is answered arrives").unwrap().seq();
                assert!(seen.last().is_none_or(|last| *last < seq), "{seq} after {seen:?}");
                seen.push(seq);
            }
        }
        server.kill();
        server.start_again().await;
    }
    drop(session);
    assert!(watching.stop(Duration::from_secs(10)).await && publishing.stop(Duration::from_secs(10)).await);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn replicas_that_must_have_an_event_are_waited_for() {
    let server = RedisServer::start().await;
    let redis = RedisOptions { wait_replicas: 1, ..RedisOptions::new(&server.url()) };
    let options = StoreOptions { backend: Backend::Redis(redis), history: HistoryOptions::default() };
    let gateway = Gateway::open(&options, GatewayOptions::default()).await.unwrap();
    let key = || "k".parse().ok();
    let draft = || {
        let owner = jobcast::Owner::default();
        jobcast::Draft::progress("a".parse().unwrap(), 1.0, None, owner).unwrap()
    };
    let refusal = gateway.publish(draft(), key()).await.unwrap_err();
    assert!(refusal.to_string().contains("redis.wait_replicas"), "{refusal}");
    let (host, port) = ("127.0.0.1", server.port().to_string());
    let replica = RedisServer::with(&["--replicaof", host, &port, "--repl-diskless-sync-delay", "0"]).await;
    let mut connection = replica.connection().await;
    // The same key: the event that is there already is answered for once the replica has it.
    let mut answered = gateway.publish(draft(), key()).await;
    while answered.is_err() {
        answered = gateway.publish(draft(), key()).await;
    }
    let copies: i64 = redis::cmd("LLEN").arg("job-history:a").query_async(&mut connection).await.unwrap();
    assert_eq!(copies, 1);
    assert!(gateway.stop(Duration::from_secs(10)).await);
}
