//! Makes this node's directory visible to all nodes, and keeps it so by a lease: what a crashed node leaves
//! behind is gone within two minutes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::keys::Keys;
use crate::{
    id::ClientId,
    redis::{Client, Command, Error, FromRedisValue, Reply, Value},
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
    client: Client,
    keys: Keys,
    node: String,
    /// The version of the directory that is written.
    written: watch::Sender<u64>,
}

impl SharedDirectory {
    pub fn new(client: Client, keys: Keys, node: &str) -> Self {
        let written = watch::Sender::new(0);
        Self { directory: Directory::followed(), client, keys, node: node.to_owned(), written }
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
        let call = Command::on("SETEX", &self.keys.node(&self.node)).arg(LEASE.as_secs()).arg(1);
        self.client.ask::<Value>(call).await?;
        Ok(self.page(swept.as_ref(), CHUNK).await?.cursor)
    }

    /// Takes all of this node's entries back, at its end.
    pub async fn withdraw(&self) -> Result<(), StoreError> {
        self.directory.clear();
        self.write_changes().await?;
        self.client
            .ask::<Value>(Command::on("DEL", &self.keys.node(&self.node)))
            .await
            .map(|_| ())
            .map_err(StoreError::from)
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
            let calls = chunk.iter().flat_map(|room| self.count_calls(room)).collect();
            self.client.ask_all::<Value>(calls).await?;
        }
        Ok(())
    }

    async fn write_clients(&self, clients: &[&ClientId]) -> Result<(), StoreError> {
        let owners = self.owners(clients).await?;
        let mut calls = Vec::new();
        for (client, owner) in clients.iter().zip(owners) {
            match self.directory.client(client) {
                Some(record) if owner.as_deref().is_none_or(|owner| self.may_take(owner, &record)) => {
                    if owner.is_some_and(|owner| owner.is_empty()) {
                        calls.push(Command::on("DEL", &self.keys.client(client)));
                    }
                    calls.extend(self.record_calls(&record));
                }
                None if owner.as_deref().is_some_and(|owner| owner.starts_with(&self.node)) => {
                    calls.push(Command::on("DEL", &self.keys.client(client)));
                    calls.push(Command::on("DEL", &self.keys.subscriptions(client)));
                    calls.push(Command::on("ZREM", &self.keys.clients()).arg(client.as_str()));
                }
                _ => {}
            }
        }
        self.client.ask_all::<Value>(calls).await.map(|_| ()).map_err(StoreError::from)
    }

    /// Calls that write how many sessions of this node are in a room.
    fn count_calls(&self, room: &Room) -> Vec<Command> {
        let (key, count) = (self.keys.sessions(room), self.directory.sessions_in(room));
        match count {
            0 => vec![Command::on("HDEL", &key).arg(&self.node)],
            _ => vec![
                Command::on("HSET", &key).arg(&self.node).arg(count),
                Command::on("EXPIRE", &key).arg(LEASE.as_secs()),
            ],
        }
    }

    /// Node and connection time of whoever holds each record now; of one that cannot be read an empty text.
    async fn owners(&self, clients: &[&ClientId]) -> Result<Vec<Option<String>>, StoreError> {
        let call = |client: &&ClientId| {
            Command::on("HMGET", &self.keys.client(client)).arg("node").arg("connectedAt")
        };
        let mut owners = Vec::with_capacity(clients.len());
        for reply in self.client.send(clients.iter().map(call).collect()).await {
            let owner: Option<(Option<String>, Option<String>)> = readable(reply)?;
            owners.push(match owner {
                Some((node, at)) => node.zip(at).map(|(node, at)| format!("{node} {at}")),
                None => Some(String::new()),
            });
        }
        Ok(owners)
    }

    /// Whether a record may replace the one that `owner` holds: the newest connection wins.
    fn may_take(&self, owner: &str, record: &ClientRecord) -> bool {
        let (node, connected_at) = owner.split_once(' ').unwrap_or((owner, ""));
        node == self.node || connected_at <= record.connected_at.to_string().as_str()
    }

    /// Calls that write a record.
    fn record_calls(&self, record: &ClientRecord) -> Vec<Command> {
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
        let lease = LEASE.as_secs();
        let mut calls = vec![
            fields.iter().fold(Command::on("HSET", &key), |call, (name, value)| call.arg(*name).arg(*value)),
            Command::on("EXPIRE", &key).arg(lease),
            Command::on("DEL", &rooms_key),
        ];
        if !record.subscriptions.is_empty() {
            let rooms: Vec<_> = record.subscriptions.iter().map(Room::to_string).collect();
            calls.push(Command::on("SADD", &rooms_key).arg(rooms));
            calls.push(Command::on("EXPIRE", &rooms_key).arg(lease));
        }
        calls.push(Command::on("ZADD", &self.keys.clients()).arg(0).arg(client.as_str()));
        calls.push(Command::on("EXPIRE", &self.keys.clients()).arg(INDEX_LIFETIME.as_secs()));
        calls
    }

    /// The clients of all nodes, by id, after the one named.
    pub async fn page(&self, after: Option<&ClientId>, limit: usize) -> Result<ClientsPage, StoreError> {
        let mut clients = Vec::new();
        let mut after = after.cloned();
        loop {
            let start = after.as_ref().map_or("-".to_owned(), |id| format!("({id}"));
            let wanted = limit - clients.len() + 1;
            let call = Command::on("ZRANGEBYLEX", &self.keys.clients()).arg(start).arg("+");
            let ids: Vec<String> = self.client.ask(call.arg("LIMIT").arg(0).arg(wanted)).await?;
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

    /// The records of these clients. Whoever has none that can be read is taken out of the index.
    async fn records(&self, ids: &[ClientId]) -> Result<Vec<Option<ClientRecord>>, StoreError> {
        let calls = |id: &ClientId| {
            let rooms = Command::on("SMEMBERS", &self.keys.subscriptions(id));
            [Command::on("HGETALL", &self.keys.client(id)), rooms]
        };
        let mut replies = self.client.send(ids.iter().flat_map(calls).collect()).await.into_iter();
        let mut records = Vec::with_capacity(ids.len());
        let mut gone = Vec::new();
        for id in ids {
            let fields = readable(replies.next().unwrap_or(Err(Error::Timeout)))?;
            let rooms = readable(replies.next().unwrap_or(Err(Error::Timeout)))?;
            let record = fields.and_then(|fields| record(id, fields, rooms.unwrap_or_default()));
            if record.is_none() {
                gone.push(Command::on("ZREM", &self.keys.clients()).arg(id.as_str()));
            }
            records.push(record);
        }
        self.client.ask_all::<Value>(gone).await?;
        Ok(records)
    }

    pub async fn client(&self, id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
        Ok(self.records(std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// How many sessions of all live nodes are in a room.
    pub async fn sessions_in(&self, room: &Room) -> Result<usize, StoreError> {
        let counts: HashMap<String, usize> =
            self.client.ask(Command::on("HGETALL", &self.keys.sessions(room))).await?;
        let lives = |node: &String| Command::on("EXISTS", &self.keys.node(node));
        let alive: Vec<bool> = self.client.ask_all(counts.keys().map(lives).collect()).await?;
        Ok(counts.values().zip(alive).filter(|(_, alive)| *alive).map(|(count, _)| count).sum())
    }
}

/// Reads an answer; `None` where the key holds what nobody here wrote: one bad record must not spoil the others.
fn readable<T: FromRedisValue>(reply: Result<Reply, Error>) -> Result<Option<T>, StoreError> {
    match reply.and_then(Reply::read) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_refusal() || matches!(error, Error::Answer(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A client from the fields of its record and the names of its rooms; `None` where nobody here wrote it.
pub fn record(
    id: &ClientId,
    mut fields: HashMap<String, String>,
    rooms: Vec<String>,
) -> Option<ClientRecord> {
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
        transport: take("transport").into(),
        node: take("node").into(),
        subscriptions,
    })
}
