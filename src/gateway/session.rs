//! A session: one connected watcher, whatever the edge.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{CloseReason, Gateway, Outlet, Place, hub::SessionKey};
use crate::{
    access::Pass,
    error::{ApiError, ErrorCode},
    id::{ClientId, UserId},
    room::Room,
    store::{ClientRecord, Connection, StoreError},
    timestamp::Timestamp,
};

/// For how long a session that ends must have been behind to be worth a line in the log.
const LONG_BEHIND: Duration = Duration::from_secs(5);

/// How long a session that leaves one of several rooms waits for what is on its way, and how often it looks.
const DELIVERY_PATIENCE: Duration = Duration::from_millis(500);
const DELIVERY_PAUSE: Duration = Duration::from_millis(2);

/// Who is at the other end of a connection that gets a record.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The name of its record.
    pub client_id: ClientId,
    /// The address that it came from.
    pub address: String,
    /// What it calls itself.
    pub user_agent: String,
    /// How it is connected.
    pub transport: &'static str,
}

/// One connected watcher. Dropping it leaves all rooms and removes its record; no delivery reaches it after.
pub struct Session {
    pub(super) gateway: Gateway,
    pub(super) key: SessionKey,
    connection: Connection,
    client: Option<ClientId>,
    user: Option<UserId>,
    /// Its place among its user's.
    _place: Option<Place<UserId>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("key", &self.key)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// Connects a watcher. With a peer it gets a record, for all nodes to see, which it takes over from an earlier
    /// connection that used the same name; one without is, for instance, a stream of one request.
    /// Its pass says what it may watch, and for how long: it ends when that expires or is revoked.
    ///
    /// # Errors
    /// [`ErrorCode::LimitReached`] where the pass's user has as many sessions as one may (`limits.connections_per_user`).
    pub fn connect(
        &self,
        outlet: Arc<dyn Outlet>,
        peer: Option<Peer>,
        pass: Pass,
    ) -> Result<Session, ApiError> {
        let (user, pass) = (pass.identity.user().cloned(), Arc::new(pass));
        let place = user.as_ref().map(|user| self.place_of(user)).transpose()?;
        let connection = self.0.connections.fetch_add(1, Ordering::Relaxed);
        let client = peer.as_ref().map(|peer| peer.client_id.clone());
        if let Some(peer) = peer {
            self.0.store.directory().connect(connection, self.record(peer, &pass));
        }
        let key = self.hub(|hub| hub.connect(outlet, connection, pass.clone()));
        if let Some(expires_at) = pass.expires_at {
            self.0.lifetimes.add(key, expires_at);
        }
        if self.is_revoked(&pass) {
            // Since it was checked.
            self.close(key, CloseReason::TokenRevoked);
        }
        Ok(Session { gateway: self.clone(), key, connection, client, user, _place: place })
    }

    /// A place among a user's sessions.
    fn place_of(&self, user: &UserId) -> Result<Place<UserId>, ApiError> {
        let limit = self.0.options.connections_per_user;
        self.0.user_sessions.take(user, limit).ok_or_else(|| {
            let message = format!(
                "the user {user} may have at most {limit} connections to a gateway (limits.connections_per_user); close \
                 one first"
            );
            self.limited("connections_per_user", message)
        })
    }

    /// Counts what a limit refuses, by the limit's name, on the way to whoever asked.
    pub(crate) fn limited(&self, limit: &'static str, message: String) -> ApiError {
        self.0.metrics.count_limited(limit);
        ApiError::new(ErrorCode::LimitReached, message)
    }

    /// Waits until what this node records of its clients is visible to all nodes.
    ///
    /// # Errors
    /// [`StoreError`] when that takes too long.
    pub async fn records_published(&self) -> Result<(), StoreError> {
        self.0.store.publish_directory().await
    }

    /// Takes back that a connection was counted into a room, and one cover of the room.
    pub(super) fn forget(&self, connection: Connection, client: Option<&ClientId>, room: &Room) {
        self.0.store.directory().leave(connection, client, room);
        self.0.store.uncover(room);
    }

    fn record(&self, peer: Peer, pass: &Pass) -> ClientRecord {
        ClientRecord {
            client_id: peer.client_id,
            connected_at: Timestamp::now(),
            user_id: pass.identity.user().cloned(),
            address: peer.address,
            user_agent: peer.user_agent,
            transport: peer.transport.into(),
            node: self.0.node.clone(),
            subscriptions: Vec::new(),
        }
    }
}

impl Session {
    /// Notes the transport that the connection uses by now.
    pub fn set_transport(&self, transport: &'static str) {
        if let Some(client) = self.client() {
            self.gateway.0.store.directory().set_transport(self.connection, client, transport);
        }
    }

    /// Ends the connection behind the session, and says why in the log.
    pub fn close(&self, reason: CloseReason) {
        self.gateway.close(self.key, reason);
    }

    /// What the session may do, and for how long.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] where the session has ended.
    pub fn pass(&self) -> Result<Arc<Pass>, ApiError> {
        let ended = || ApiError::new(ErrorCode::Unavailable, "the session has ended");
        self.gateway.hub(|hub| hub.pass(self.key)).ok_or_else(ended)
    }

    /// Puts another pass in place of the session's. It leaves the rooms that it may not see any more, and is told so.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] where the user or the tenant is another one, [`ErrorCode::Unauthorized`] where it was
    /// revoked, and [`ErrorCode::Unavailable`] when the store does not answer. The session then keeps the pass that it has.
    pub async fn renew(&self, pass: Pass) -> Result<(), ApiError> {
        let gateway = &self.gateway;
        let old = self.pass()?;
        if !old.identity.is_same_caller(&pass.identity) {
            let message = "the new token must have the sub and the tenantId of the one before";
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        gateway.check_pass(&pass)?;
        let (mut admitted, mut lost) = (Vec::new(), Vec::new());
        // The same grant has the same rooms: who renews often must not have the store asked for all of them.
        let rooms = match old.identity == pass.identity {
            true => Vec::new(),
            false => gateway.hub(|hub| hub.rooms_of(self.key)),
        };
        for room in rooms {
            match gateway.check_room(&pass.identity, &room).await {
                Ok(why) => admitted.push((room, why)),
                Err(error) if error.code == ErrorCode::Forbidden => lost.push(room),
                Err(error) => return Err(error),
            }
        }
        if let Some(expires_at) = old.expires_at {
            gateway.0.lifetimes.remove(self.key, expires_at);
        }
        if let Some(expires_at) = pass.expires_at {
            gateway.0.lifetimes.add(self.key, expires_at);
        }
        let pass = Arc::new(pass);
        gateway.hub(|hub| {
            hub.renew(self.key, pass.clone(), admitted);
            lost.iter().for_each(|room| hub.put_out(self.key, room));
        });
        if gateway.is_revoked(&pass) {
            // Since it was checked.
            gateway.close(self.key, CloseReason::TokenRevoked);
        }
        Ok(())
    }

    /// Leaves a room. Not having been there is fine.
    ///
    /// # Errors
    /// [`StoreError`] when the session's record could not be updated in time; the room is left all the same.
    pub async fn leave(&self, room: &Room) -> Result<(), StoreError> {
        self.await_delivery(room).await;
        if !self.gateway.hub(|hub| hub.leave(self.key, room)) {
            return Ok(());
        }
        self.give_back_room();
        self.forget(room);
        self.gateway.records_published().await
    }

    /// Waits a moment for what one of several rooms has and has not brought yet. Another room that was joined meanwhile
    /// begins after it, so that nobody else would bring it.
    async fn await_delivery(&self, room: &Room) {
        let gateway = &self.gateway;
        let delivered = async {
            while let Some(place) = gateway.hub(|hub| hub.place_beside_others(self.key, room)) {
                let next = gateway.0.store.log(room, place, 1).await;
                if next.is_ok_and(|page| page.entries.is_empty()) {
                    return;
                }
                tokio::time::sleep(DELIVERY_PAUSE).await;
            }
        };
        // A session that stays behind leaves all the same.
        let _in_time = tokio::time::timeout(DELIVERY_PATIENCE, delivered).await;
    }

    fn client(&self) -> Option<&ClientId> {
        self.client.as_ref()
    }

    /// Counts another room of the session's user, if it has one.
    ///
    /// # Errors
    /// [`ErrorCode::LimitReached`] where the user's sessions are in as many as they may (`limits.rooms_per_user`).
    pub(super) fn take_room(&self) -> Result<Option<Place<UserId>>, ApiError> {
        let limit = self.gateway.0.options.rooms_per_user;
        let Some(user) = &self.user else { return Ok(None) };
        self.gateway.0.user_rooms.take(user, limit).map(Some).ok_or_else(|| {
            let message = format!(
                "the clients of the user {user} may be in at most {limit} rooms together (limits.rooms_per_user); leave \
                 one first"
            );
            self.gateway.limited("rooms_per_user", message)
        })
    }

    /// The same for a room that it is in anyway.
    pub(super) fn add_room(&self) -> Option<Place<UserId>> {
        self.user.as_ref().and_then(|user| self.gateway.0.user_rooms.take(user, usize::MAX))
    }

    fn give_back_room(&self) {
        if let Some(user) = &self.user {
            self.gateway.0.user_rooms.give_back(user);
        }
    }

    /// Counts this session into a room.
    pub(super) fn enter(&self, room: &Room) {
        self.gateway.0.store.directory().enter(self.connection, self.client(), room);
    }

    /// Takes back one [`Session::enter`] and one cover of the room.
    pub(super) fn forget(&self, room: &Room) {
        self.gateway.forget(self.connection, self.client(), room);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Ok(Some(expires_at)) = self.pass().map(|pass| pass.expires_at) {
            self.gateway.0.lifetimes.remove(self.key, expires_at);
        }
        let who = self.gateway.who(self.key);
        if who.has_been_behind_for(LONG_BEHIND) {
            tracing::info!(%who, "a session ends that has been behind for long");
        }
        for room in self.gateway.hub(|hub| hub.disconnect(self.key)) {
            self.give_back_room();
            self.forget(&room);
        }
        if let Some(client) = &self.client {
            self.gateway.0.store.directory().disconnect(self.connection, client);
        }
    }
}
