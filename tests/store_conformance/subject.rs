//! A store under test, and short ways to say what is done to it.

use std::time::Duration;

use jobcast::{
    Backend, Draft, Entry, HistoryOptions, IdempotencyKey, JobEvent, JobId, Owner, RedisOptions, Seq,
    StoreOptions, Tasks, UserId,
    internals::{Accepted, Append, AppendError, Feed, FeedItem, Store, Window},
};

use crate::support::{RedisServer, cluster::RedisCluster};

/// A store that is open, and all that it runs on.
pub struct Subject {
    pub store: Store,
    pub feed: Feed,
    pub tasks: Tasks,
    pub options: StoreOptions,
    pub redis: Option<RedisServer>,
    cluster: Option<RedisCluster>,
    _folder: Option<tempfile::TempDir>,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Memory,
    Disk,
    Redis,
    Cluster,
}

impl Subject {
    pub async fn open(kind: Kind, history: HistoryOptions) -> Self {
        let (mut redis, mut cluster, mut folder) = (None, None, None);
        let backend = match kind {
            Kind::Memory => Backend::Memory,
            Kind::Disk => {
                let opened = folder.insert(tempfile::tempdir().unwrap());
                Backend::Embedded(opened.path().join("data"))
            }
            Kind::Redis => {
                let server = redis.insert(RedisServer::start().await);
                Backend::Redis(RedisOptions {
                    key_prefix: "p:".to_owned(),
                    ..RedisOptions::new(&server.url())
                })
            }
            Kind::Cluster => {
                let cluster = cluster.insert(RedisCluster::start(3, 0).await);
                let one = RedisOptions::new(&cluster.urls()[0]);
                Backend::Redis(RedisOptions { key_prefix: "p:".to_owned(), ..one })
            }
        };
        let options = StoreOptions { backend, history };
        let (store, feed, tasks) = open(&options, "node").await;
        Self { store, feed, tasks, options, redis, cluster, _folder: folder }
    }

    /// Closes the store and opens it anew, as after a restart of the process.
    pub async fn reopen(&mut self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await);
        // The folder's lock goes with the last handle.
        self.store = Store::open(&memory(), "none", &Tasks::new()).await.unwrap().0;
        (self.store, self.feed, self.tasks) = open(&self.options, "node").await;
    }

    /// A connection to the server of the cluster that holds a key.
    pub async fn cluster_connection(&self, key: &str) -> redis::aio::MultiplexedConnection {
        let cluster = self.cluster.as_ref().unwrap();
        cluster.servers[cluster.holder(key).await].connection().await
    }

    pub async fn append(&self, draft: Draft) -> Result<Accepted, AppendError> {
        self.append_keyed(draft, None).await
    }

    pub async fn append_keyed(&self, draft: Draft, key: Option<&str>) -> Result<Accepted, AppendError> {
        let key = key.map(|key| key.parse::<IdempotencyKey>().unwrap());
        self.store.append(vec![Append { draft, key }], None).await.pop().unwrap()
    }

    pub async fn seqs(&self, id: &str, window: Window) -> Vec<Seq> {
        let entries = self.store.history(&job(id), window).await.unwrap();
        entries.into_iter().filter_map(Entry::event).map(|event| event.seq()).collect()
    }

    pub async fn next_event(&mut self) -> JobEvent {
        loop {
            let item = tokio::time::timeout(Duration::from_secs(10), self.feed.recv()).await;
            if let FeedItem::Event(arrival) = item.expect("the feed brings nothing").unwrap() {
                return arrival.event;
            }
        }
    }
}

pub fn memory() -> StoreOptions {
    StoreOptions { backend: Backend::Memory, ..StoreOptions::default() }
}

pub async fn open(options: &StoreOptions, node: &str) -> (Store, Feed, Tasks) {
    let tasks = Tasks::new();
    let (store, feed) = Store::open(options, node, &tasks).await.unwrap();
    (store, feed, tasks)
}

pub fn job(id: &str) -> JobId {
    id.parse().unwrap()
}

pub fn user(id: &str) -> UserId {
    id.parse().unwrap()
}

pub fn owned(by: &str) -> Owner {
    Owner { user: Some(user(by)), tenant: None }
}

pub fn update(id: &str) -> Draft {
    Draft::update(job(id), "running", None, Owner::default()).unwrap()
}

pub fn progress(id: &str, percent: f64) -> Draft {
    Draft::progress(job(id), percent, None, Owner::default()).unwrap()
}

pub fn history(max_events: usize) -> HistoryOptions {
    HistoryOptions { max_events, retention: Duration::from_secs(3600), ..HistoryOptions::default() }
}
