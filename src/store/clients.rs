//! Who is connected to this node, and how many of its sessions are in each room.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::{id::ClientId, id::UserId, room::Room, timestamp::Timestamp};

/// What is recorded of a connected client (contract, sections 3 and 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientRecord {
    /// The client's own name, or its socket's id.
    pub client_id: ClientId,
    /// When it connected.
    pub connected_at: Timestamp,
    /// The user that its token names.
    pub user_id: Option<UserId>,
    /// The address that it came from.
    pub address: String,
    /// What it calls itself.
    pub user_agent: String,
    /// How it is connected: `websocket` or `polling`.
    pub transport: Cow<'static, str>,
    /// The node that it is connected to.
    pub node: Arc<str>,
    /// The rooms that it is in, in order.
    pub subscriptions: Vec<Room>,
}

/// Some of the connected clients, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientsPage {
    /// The clients.
    pub clients: Vec<ClientRecord>,
    /// Where the next page begins; `None` at the end.
    pub cursor: Option<ClientId>,
}

/// One connection, as told from every other that this node ever had.
pub type Connection = u64;

/// What this node knows of its own clients. All operations are immediate.
///
/// The record of a client belongs to its newest connection: an older one can neither change nor remove it.
#[derive(Debug, Default)]
pub struct Directory {
    state: Mutex<State>,
    changed: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct State {
    clients: BTreeMap<ClientId, (Connection, ClientRecord)>,
    rooms: HashMap<Room, usize>,
    version: u64,
    /// `None` where nobody follows the changes: then they must not pile up.
    changes: Option<Changes>,
}

impl State {
    fn client_changed(&mut self, client: &ClientId) {
        if let Some(changes) = &mut self.changes {
            changes.clients.insert(client.clone());
        }
    }

    fn room_changed(&mut self, room: &Room) {
        if let Some(changes) = &mut self.changes {
            changes.rooms.insert(room.clone());
        }
    }
}

/// What changed since it was last taken, so that a shared store can follow.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Clients whose record came, went or changed.
    pub clients: HashSet<ClientId>,
    /// Rooms whose count changed.
    pub rooms: HashSet<Room>,
}

impl Directory {
    /// A directory whose changes somebody follows with [`Directory::take_changes`].
    pub fn followed() -> Self {
        let state = State { changes: Some(Changes::default()), ..State::default() };
        Self { state: Mutex::new(state), changed: tokio::sync::Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        state.version += 1;
        let result = change(&mut state);
        drop(state);
        self.changed.notify_one();
        result
    }

    /// Records a client, in place of an earlier connection of the same name.
    pub fn connect(&self, connection: Connection, record: ClientRecord) {
        self.change(|state| {
            state.client_changed(&record.client_id);
            state.clients.insert(record.client_id.clone(), (connection, record));
        });
    }

    /// Forgets a client, unless a newer connection has taken its record over.
    pub fn disconnect(&self, connection: Connection, client: &ClientId) {
        self.change(|state| {
            if state.clients.get(client).is_some_and(|(owner, _)| *owner == connection) {
                state.clients.remove(client);
                state.client_changed(client);
            }
        });
    }

    /// Notes the transport that a client uses now.
    pub fn set_transport(&self, connection: Connection, client: &ClientId, transport: &'static str) {
        let change = |record: &mut ClientRecord| {
            let differs = record.transport != transport;
            if differs {
                record.transport = transport.into();
            }
            differs
        };
        self.edit(connection, client, change);
    }

    fn edit(&self, connection: Connection, client: &ClientId, edit: impl FnOnce(&mut ClientRecord) -> bool) {
        self.change(|state| {
            let owned = state.clients.get_mut(client).filter(|(owner, _)| *owner == connection);
            if owned.is_some_and(|(_, record)| edit(record)) {
                state.client_changed(client);
            }
        });
    }

    /// Counts a session into a room, and notes it in its client's record.
    pub fn enter(&self, connection: Connection, client: Option<&ClientId>, room: &Room) {
        self.change(|state| {
            *state.rooms.entry(room.clone()).or_default() += 1;
            state.room_changed(room);
        });
        let Some(client) = client else { return };
        self.edit(connection, client, |record| match record.subscriptions.binary_search(room) {
            Ok(_) => false,
            Err(place) => {
                record.subscriptions.reserve_exact(usize::from(record.subscriptions.is_empty()));
                record.subscriptions.insert(place, room.clone());
                true
            }
        });
    }

    /// Takes back one [`Directory::enter`].
    pub fn leave(&self, connection: Connection, client: Option<&ClientId>, room: &Room) {
        self.change(|state| {
            if let Some(count) = state.rooms.get_mut(room) {
                *count -= 1;
                if *count == 0 {
                    state.rooms.remove(room);
                }
                state.room_changed(room);
            }
        });
        let Some(client) = client else { return };
        self.edit(connection, client, |record| {
            let place = record.subscriptions.binary_search(room);
            place.map(|place| record.subscriptions.remove(place)).is_ok()
        });
    }

    /// The record of one client.
    pub fn client(&self, id: &ClientId) -> Option<ClientRecord> {
        self.state().clients.get(id).map(|(_, record)| record.clone())
    }

    /// The records after the one named, by id.
    pub fn clients(&self, after: Option<&ClientId>, limit: usize) -> ClientsPage {
        let start = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.clone()));
        let state = self.state();
        let mut rest = state.clients.range((start, Bound::Unbounded)).map(|(_, (_, record))| record);
        let clients: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let cursor = rest.next().and(clients.last()).map(|record| record.client_id.clone());
        ClientsPage { clients, cursor }
    }

    /// How many sessions of this node are in a room.
    pub fn sessions_in(&self, room: &Room) -> usize {
        self.state().rooms.get(room).copied().unwrap_or(0)
    }

    /// Resolves once something changed since the last time it did.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How many times anything changed.
    pub fn version(&self) -> u64 {
        self.state().version
    }

    /// Takes what changed since the last call, and the version that this leads to.
    pub fn take_changes(&self) -> (Changes, u64) {
        let mut state = self.state();
        (state.changes.as_mut().map(std::mem::take).unwrap_or_default(), state.version)
    }

    /// Forgets everything, at the end of the node.
    pub fn clear(&self) {
        self.touch_all();
        self.change(|state| {
            state.clients.clear();
            state.rooms.clear();
        });
    }

    /// Marks everything as changed, so that a store that lost it gets it again.
    pub fn touch_all(&self) {
        self.change(|state| {
            let State { clients, rooms, changes, .. } = state;
            if let Some(changes) = changes {
                changes.clients.extend(clients.keys().cloned());
                changes.rooms.extend(rooms.keys().cloned());
            }
        });
    }

    /// Puts changes back that could not be followed, and says nothing of it.
    pub fn put_back(&self, changes: Changes) {
        if let Some(kept) = &mut self.state().changes {
            kept.clients.extend(changes.clients);
            kept.rooms.extend(changes.rooms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> ClientRecord {
        ClientRecord {
            client_id: id.parse().unwrap(),
            connected_at: Timestamp::default(),
            user_id: None,
            address: String::new(),
            user_agent: String::new(),
            transport: "polling".into(),
            node: "n".into(),
            subscriptions: Vec::new(),
        }
    }

    #[test]
    fn the_newest_connection_owns_the_record() {
        let directory = Directory::default();
        let id: ClientId = "c".parse().unwrap();
        directory.connect(1, record("c"));
        directory.enter(1, Some(&id), &Room::AllJobs);
        directory.connect(2, record("c"));
        directory.set_transport(1, &id, "websocket");
        directory.disconnect(1, &id);
        let left = directory.client(&id).unwrap();
        assert_eq!((left.transport.as_ref(), left.subscriptions.len()), ("polling", 0));
        directory.leave(1, Some(&id), &Room::AllJobs);
        directory.disconnect(2, &id);
        assert_eq!(directory.client(&id), None);
        assert_eq!(directory.sessions_in(&Room::AllJobs), 0);
    }

    #[test]
    fn pages_by_id() {
        let directory = Directory::default();
        for (connection, id) in (0..).zip(["c", "a", "b"]) {
            directory.connect(connection, record(id));
        }
        let page = directory.clients(None, 2);
        let ids: Vec<_> = page.clients.iter().map(|record| record.client_id.as_str()).collect();
        assert_eq!((ids, page.cursor.as_ref().map(ClientId::as_str)), (vec!["a", "b"], Some("b")));
        let page = directory.clients(page.cursor.as_ref(), 2);
        assert_eq!((page.clients.len(), page.cursor), (1, None));
    }

    #[test]
    fn tells_what_changed() {
        let directory = Directory::followed();
        directory.connect(1, record("c"));
        directory.enter(1, Some(&"c".parse().unwrap()), &Room::AllJobs);
        let (changes, version) = directory.take_changes();
        assert_eq!((changes.clients.len(), changes.rooms.len(), version), (1, 1, directory.version()));
        assert_eq!(directory.take_changes().0, Changes::default());
        directory.put_back(changes);
        assert_ne!(directory.take_changes().0, Changes::default());
    }
}
