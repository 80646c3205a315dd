//! Redis, as any part of the gateway may use it: one server or a cluster, commands and scripts, subscriptions, leases.
//! It knows nothing of jobs.

mod batch;
mod client;
mod command;
mod error;
mod lease;
mod options;
mod server;
mod slot_map;
mod subscriber;
mod subscriptions;
mod topology;

pub use ::redis::{FromRedisValue, Value};

pub use self::{
    client::{Client, Reply},
    command::{Command, Script},
    error::Error,
    lease::{Held, Lease},
    options::RedisOptions,
    subscriber::{Listener, Subscriber},
};

use std::time::Duration;

/// Reads a part of an answer.
///
/// # Errors
/// [`Error::Answer`] where it has another form.
pub fn read<T: FromRedisValue>(value: Value) -> Result<T, Error> {
    Ok(::redis::from_redis_value(value)?)
}

/// Between half of a pause and all of it, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
