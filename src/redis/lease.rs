//! A named lease: of all that ask for it, at most one holds it at a time.

use std::time::Duration;

use tokio::time::Instant;

use super::{client::Client, command::Script, error::Error, jittered};

/// How many times a lease is renewed, or tried for, in its lifetime.
const TRIES: u32 = 3;

/// A lease that somebody would like to hold.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    key: String,
    owner: String,
    lifetime: Duration,
    take: Script,
    leave: Script,
}

/// A lease that is held, until [`Held::lost`] resolves or it expires. It must be renewed by waiting for that.
#[derive(Debug)]
pub struct Held<'a> {
    lease: &'a Lease,
    until: Instant,
}

impl Lease {
    /// The lease of a key, for an owner whose name nobody else has. Whoever dies holds it for `lifetime` at the most.
    pub fn new(client: Client, key: &str, owner: &str, lifetime: Duration) -> Self {
        let take = "local owner = redis.call('GET', KEYS[1])
            if owner and owner ~= ARGV[1] then return 0 end
            redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
            return 1";
        let leave = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";
        let (key, owner) = (key.to_owned(), owner.to_owned());
        Self { client, key, owner, lifetime, take: Script::new(&[take]), leave: Script::new(&[leave]) }
    }

    /// Waits, however long that takes, until this owner holds it.
    pub async fn acquire(&self) -> Held<'_> {
        loop {
            if let Ok(Some(held)) = self.try_acquire().await {
                return held;
            }
            tokio::time::sleep(jittered(self.lifetime / TRIES)).await;
        }
    }

    /// Takes it, unless somebody else holds it.
    ///
    /// # Errors
    /// [`Error`] when there is no answer.
    pub async fn try_acquire(&self) -> Result<Option<Held<'_>>, Error> {
        let until = Instant::now() + self.lifetime;
        let milliseconds = self.lifetime.as_millis() as u64;
        let take = self.client.ask::<bool>(self.take.call(&[&self.key]).arg(&self.owner).arg(milliseconds));
        Ok(take.await?.then_some(Held { lease: self, until }))
    }
}

impl Held<'_> {
    /// Renews it in time, and resolves when that has failed: from then on somebody else may hold it.
    pub async fn lost(&mut self) {
        loop {
            tokio::time::sleep(self.lease.lifetime / TRIES).await;
            match tokio::time::timeout_at(self.until, self.lease.try_acquire()).await {
                Ok(Ok(Some(held))) => self.until = held.until,
                Ok(Ok(None)) | Err(_) => return,
                // It is held until it expires.
                Ok(Err(_)) => {}
            }
        }
    }

    /// Lets somebody else have it at once.
    ///
    /// # Errors
    /// [`Error`] when there is no answer: then it expires by itself.
    pub async fn release(self) -> Result<(), Error> {
        let Lease { client, key, owner, leave, .. } = self.lease;
        client.ask(leave.call(&[key]).arg(owner)).await
    }
}
