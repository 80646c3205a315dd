//! A Redis server that answers and refuses: it is out of memory, or keys hold what nobody here wrote.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

mod support;

use jobcast::{
    Backend, ClientRecord, Draft, HistoryOptions, Owner, RedisOptions, StoreOptions, Tasks, Timestamp,
    internals::{Accepted, Append, AppendError, Store},
};
use redis::aio::MultiplexedConnection;
use support::RedisServer;

async fn open(server: &RedisServer) -> (Store, Tasks) {
    let backend = Backend::Redis(RedisOptions::new(&server.url()));
    let options = StoreOptions { backend, history: HistoryOptions::default() };
    let tasks = Tasks::new();
    (Store::open(&options, "node", &tasks).await.unwrap().0, tasks)
}

async fn publish(store: &Store, job: &str) -> Result<Accepted, AppendError> {
    let draft = Draft::update(job.parse().unwrap(), "s", None, Owner::default()).unwrap();
    store.append(vec![Append { draft, key: None }], None).await.pop().unwrap()
}

async fn run(connection: &mut MultiplexedConnection, command: &[&str]) {
    redis::cmd(command[0]).arg(&command[1..]).query_async::<redis::Value>(connection).await.unwrap();
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn who_is_out_of_memory_is_not_ready() {
    let server = RedisServer::start().await;
    let (store, _tasks) = open(&server).await;
    let mut connection = server.connection().await;
    publish(&store, "a").await.unwrap();
    store.ping().await.unwrap();
    run(&mut connection, &["CONFIG", "SET", "maxmemory", "1"]).await;
    // Also where nobody publishes.
    assert!(store.ping().await.unwrap_err().to_string().contains("maxmemory"));
    assert!(publish(&store, "a").await.is_err());
    assert!(store.ping().await.is_err());
    run(&mut connection, &["CONFIG", "SET", "maxmemory", "0"]).await;
    publish(&store, "b").await.unwrap();
    store.ping().await.unwrap();
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn keys_of_a_wrong_type_are_said_until_something_is_accepted() {
    let server = RedisServer::start().await;
    let (store, _tasks) = open(&server).await;
    let mut connection = server.connection().await;
    for key in ["jobcast:log:{all-jobs}", "jobcast:state:{job-history:a}", "jobcast:run"] {
        run(&mut connection, &["LPUSH", key, "of another program"]).await;
        assert!(publish(&store, "a").await.is_err(), "{key}");
        assert!(store.ping().await.unwrap_err().to_string().contains("WRONGTYPE"), "{key}");
        run(&mut connection, &["FLUSHALL"]).await;
        publish(&store, "a").await.unwrap();
        store.ping().await.unwrap();
        run(&mut connection, &["FLUSHALL"]).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn one_bad_record_spoils_no_others() {
    let server = RedisServer::start().await;
    let (store, _tasks) = open(&server).await;
    let mut connection = server.connection().await;
    let record = |id: &str| ClientRecord {
        client_id: id.parse().unwrap(),
        connected_at: Timestamp::now(),
        user_id: None,
        address: "127.0.0.1".to_owned(),
        user_agent: "test".to_owned(),
        transport: "websocket".into(),
        node: "node".into(),
        subscriptions: Vec::new(),
    };
    run(&mut connection, &["SET", "client:own", "of another program"]).await;
    for (connection, id) in (1..).zip(["good", "own"]) {
        store.directory().connect(connection, record(id));
    }
    store.publish_directory().await.unwrap();
    for (id, name, value) in
        [("a", "client:a", "x"), ("b", "subscriptions:b", "x"), ("c", "client:c", "\u{fffd}")]
    {
        run(&mut connection, &["ZADD", "jobcast:clients", "0", id]).await;
        run(&mut connection, &["SET", name, value]).await;
    }
    let fields = ["HSET", "client:b", "connectedAt", "2023-11-14T22:13:20.123Z", "node", "other"];
    run(&mut connection, &fields).await;
    let page = store.clients(None, 10).await.unwrap();
    let ids: Vec<_> = page.clients.iter().map(|client| client.client_id.as_str()).collect();
    assert_eq!(ids, ["b", "good", "own"]);
    assert!(store.client(&"a".parse().unwrap()).await.unwrap().is_none());
}
