//! Makes this node's directory visible to all nodes, and keeps it so by a lease: what a crashed node leaves
//! behind is gone within two minutes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{Pipeline, Value};
use tokio::sync::watch;

use super::{keys::Keys, link::Link};
use crate::{
    id::ClientId,
    room::Room,
    store::{ClientRecord, ClientsPage, Directory, StoreError, clients::Changes},
    timestamp::Timestamp,
};

/// How long what is written stays without being renewed.
const LEASE: Duration = Duration::from_secs(100);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(30);

/// How long the index of clients stays after the last that was written.
const INDEX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How many entries go into one pipeline.
const CHUNK: usize = 200;

/// The directory of this node, as all nodes see it.
#[derive(Debug)]
pub struct SharedDirectory {
    pub directory: Directory,
    link: Link,
    keys: Keys,
    node: String,
    /// The version of the directory that is written.
    written: watch::Sender<u64>,
}

impl SharedDirectory {
    pub fn new(link: Link, keys: Keys, node: &str) -> Self {
        let written = watch::Sender::new(0);
        Self { directory: Directory::followed(), link, keys, node: node.to_owned(), written }
    }

    /// Follows the directory until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut renewal = tokio::time::interval(RENEWAL);
        let mut swept = None;
        loop {
            tokio::select! {
                () = self.directory.changed() => {}
                _ = renewal.tick() => {
                    self.directory.touch_all();
                    swept = self.renew(swept).await.unwrap_or_default();
                }
            }
            while let Err(error) = self.write_changes().await {
                tracing::debug!(%error, "could not write the directory");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Renews this node's lease, and takes some of what crashed nodes left out of the index: from where it was
    /// left off last time. Answers where to go on.
    async fn renew(&self, swept: Option<ClientId>) -> Result<Option<ClientId>, StoreError> {
        let mut pipe = redis::pipe();
        pipe.set_ex(self.keys.node(&self.node), 1, LEASE.as_secs()).ignore();
        self.send(&pipe).await?;
        Ok(self.page(swept.as_ref(), CHUNK).await?.cursor)
    }

    /// Takes all of this node's entries back, at its end.
    pub async fn withdraw(&self) -> Result<(), StoreError> {
        self.directory.clear();
        self.write_changes().await?;
        let mut pipe = redis::pipe();
        pipe.del(self.keys.node(&self.node));
        self.send(&pipe).await.map(|_| ())
    }

    /// Waits until all changes up to now are written.
    pub async fn published(&self) -> Result<(), StoreError> {
        let wanted = self.directory.version();
        let mut written = self.written.subscribe();
        let reached = written.wait_for(|version| *version >= wanted);
        match tokio::time::timeout(Duration::from_secs(5), reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError("redis: the client's record could not be written in time".to_owned())),
        }
    }

    async fn write_changes(&self) -> Result<(), StoreError> {
        let (changes, version) = self.directory.take_changes();
        match self.write(&changes).await {
            Ok(()) => {
                self.written.send_replace(version);
                Ok(())
            }
            Err(error) => {
                self.directory.put_back(changes);
                Err(error)
            }
        }
    }

    async fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let clients: Vec<_> = changes.clients.iter().collect();
        for chunk in clients.chunks(CHUNK) {
            self.write_clients(chunk).await?;
        }
        let rooms: Vec<_> = changes.rooms.iter().collect();
        for chunk in rooms.chunks(CHUNK) {
            let mut pipe = redis::pipe();
            for room in chunk {
                let (key, count) = (self.keys.sessions(room), self.directory.sessions_in(room));
                match count {
                    0 => pipe.hdel(&key, &self.node).ignore(),
                    _ => {
                        pipe.hset(&key, &self.node, count).ignore();
                        pipe.expire(&key, LEASE.as_secs().cast_signed()).ignore()
                    }
                };
            }
            self.send(&pipe).await?;
        }
        Ok(())
    }

    async fn write_clients(&self, clients: &[&ClientId]) -> Result<(), StoreError> {
        let owners = self.owners(clients).await?;
        let mut pipe = redis::pipe();
        for (client, owner) in clients.iter().zip(owners) {
            match self.directory.client(client) {
                Some(record) if owner.as_deref().is_none_or(|owner| self.may_take(owner, &record)) => {
                    self.put(&mut pipe, &record);
                }
                None if owner.as_deref().is_some_and(|owner| owner.starts_with(&self.node)) => {
                    pipe.del(self.keys.client(client)).ignore().del(self.keys.subscriptions(client)).ignore();
                    pipe.zrem(self.keys.clients(), client.as_str()).ignore();
                }
                _ => {}
            }
        }
        self.send(&pipe).await.map(|_| ())
    }

    /// Node and connection time of whoever holds each record now.
    async fn owners(&self, clients: &[&ClientId]) -> Result<Vec<Option<String>>, StoreError> {
        let mut pipe = redis::pipe();
        for client in clients {
            pipe.hmget(self.keys.client(client), &["node", "connectedAt"]);
        }
        let owners: Vec<(Option<String>, Option<String>)> = self.ask(&pipe).await?;
        Ok(owners.into_iter().map(|(node, at)| Some(format!("{} {}", node?, at?))).collect())
    }

    /// Whether a record may replace the one that `owner` holds: the newest connection wins.
    fn may_take(&self, owner: &str, record: &ClientRecord) -> bool {
        let (node, connected_at) = owner.split_once(' ').unwrap_or((owner, ""));
        node == self.node || connected_at <= record.connected_at.to_string().as_str()
    }

    fn put(&self, pipe: &mut Pipeline, record: &ClientRecord) {
        let client = &record.client_id;
        let (key, rooms_key) = (self.keys.client(client), self.keys.subscriptions(client));
        let connected_at = record.connected_at.to_string();
        let fields = [
            ("connectedAt", connected_at.as_str()),
            ("userId", record.user_id.as_ref().map_or("", |id| id.as_str())),
            ("address", &record.address),
            ("userAgent", &record.user_agent),
            ("transport", &record.transport),
            ("node", &record.node),
        ];
        let lease = LEASE.as_secs().cast_signed();
        pipe.hset_multiple(&key, &fields).ignore().expire(&key, lease).ignore();
        pipe.del(&rooms_key).ignore();
        if !record.subscriptions.is_empty() {
            let rooms: Vec<_> = record.subscriptions.iter().map(Room::to_string).collect();
            pipe.sadd(&rooms_key, rooms).ignore().expire(&rooms_key, lease).ignore();
        }
        pipe.zadd(self.keys.clients(), client.as_str(), 0).ignore();
        pipe.expire(self.keys.clients(), INDEX_LIFETIME.as_secs().cast_signed()).ignore();
    }

    async fn send(&self, pipe: &Pipeline) -> Result<Value, StoreError> {
        self.ask(pipe).await
    }

    async fn ask<T: redis::FromRedisValue>(&self, pipe: &Pipeline) -> Result<T, StoreError> {
        let mut connection = self.link.commands();
        self.link.within_deadline(pipe.query_async(&mut connection)).await
    }

    /// The clients of all nodes, by id, after the one named.
    pub async fn page(&self, after: Option<&ClientId>, limit: usize) -> Result<ClientsPage, StoreError> {
        let mut clients = Vec::new();
        let mut after = after.cloned();
        loop {
            let start = after.as_ref().map_or("-".to_owned(), |id| format!("({id}"));
            let wanted = limit - clients.len() + 1;
            let mut pipe = redis::pipe();
            pipe.zrangebylex_limit(self.keys.clients(), start, "+", 0, wanted.cast_signed());
            let (ids,): (Vec<String>,) = self.ask(&pipe).await?;
            let exhausted = ids.len() < wanted;
            let ids: Vec<ClientId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
            let records = self.records(&ids).await?;
            after = ids.last().cloned();
            clients.extend(records.into_iter().flatten());
            if clients.len() > limit {
                clients.truncate(limit);
                let cursor = clients.last().map(|record: &ClientRecord| record.client_id.clone());
                return Ok(ClientsPage { clients, cursor });
            }
            if exhausted {
                return Ok(ClientsPage { clients, cursor: None });
            }
        }
    }

    /// The records of these clients. Whoever has none any more is taken out of the index.
    async fn records(&self, ids: &[ClientId]) -> Result<Vec<Option<ClientRecord>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.hgetall(self.keys.client(id)).smembers(self.keys.subscriptions(id));
        }
        let values: Vec<Value> = self.ask(&pipe).await?;
        let mut values = values.into_iter();
        let mut records = Vec::with_capacity(ids.len());
        let mut gone = redis::pipe();
        for id in ids {
            let (fields, rooms) = (values.next().unwrap_or(Value::Nil), values.next().unwrap_or(Value::Nil));
            let record = record(id, redis::from_redis_value(fields)?, redis::from_redis_value(rooms)?);
            if record.is_none() {
                gone.zrem(self.keys.clients(), id.as_str()).ignore();
            }
            records.push(record);
        }
        if !gone.is_empty() {
            self.send(&gone).await?;
        }
        Ok(records)
    }

    pub async fn client(&self, id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
        Ok(self.records(std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// How many sessions of all live nodes are in a room.
    pub async fn sessions_in(&self, room: &Room) -> Result<usize, StoreError> {
        let mut pipe = redis::pipe();
        pipe.hgetall(self.keys.sessions(room));
        let (counts,): (HashMap<String, usize>,) = self.ask(&pipe).await?;
        if counts.is_empty() {
            return Ok(0);
        }
        let mut pipe = redis::pipe();
        for node in counts.keys() {
            pipe.exists(self.keys.node(node));
        }
        let alive: Vec<bool> = self.ask(&pipe).await?;
        Ok(counts.values().zip(alive).filter(|(_, alive)| *alive).map(|(count, _)| count).sum())
    }
}

fn record(id: &ClientId, mut fields: HashMap<String, String>, rooms: Vec<String>) -> Option<ClientRecord> {
    let connected_at: Timestamp = fields.get("connectedAt")?.parse().ok()?;
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    let mut subscriptions: Vec<Room> = rooms.iter().filter_map(|room| room.parse().ok()).collect();
    subscriptions.sort();
    Some(ClientRecord {
        client_id: id.clone(),
        connected_at,
        user_id: take("userId").parse().ok(),
        address: take("address"),
        user_agent: take("userAgent"),
        transport: take("transport"),
        node: take("node"),
        subscriptions,
    })
}
