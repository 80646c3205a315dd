//! A lease in Redis: one holds it, and whoever loses it is told.

// A test's panic is its verdict.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use jobcast::redis::{Client, Lease, RedisOptions};
use support::RedisServer;

const LIFETIME: Duration = Duration::from_millis(900);

async fn lease(server: &RedisServer, owner: &str) -> Lease {
    let client = Client::open(&RedisOptions::new(&server.url())).await.unwrap();
    Lease::new(client, "lease", owner, LIFETIME)
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn one_holds_it_until_it_is_released() {
    let server = RedisServer::start().await;
    let (one, other) = (lease(&server, "one").await, lease(&server, "other").await);
    let mut held = one.acquire().await;
    assert!(other.try_acquire().await.unwrap().is_none());
    // It is renewed for as long as it is watched.
    let watching = tokio::time::timeout(LIFETIME * 2, held.lost()).await;
    assert!(watching.is_err() && other.try_acquire().await.unwrap().is_none());
    let waiting = other.acquire();
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    held.release().await.unwrap();
    waiting.await.release().await.unwrap();
    assert!(one.try_acquire().await.unwrap().is_some());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn who_dies_loses_it_and_who_lost_it_is_told() {
    let server = RedisServer::start().await;
    let (one, other) = (lease(&server, "one").await, lease(&server, "other").await);
    // Nobody renews this one.
    let mut dead = one.try_acquire().await.unwrap().unwrap();
    let _taken = other.acquire().await;
    dead.lost().await;
    // What the owner that lost it does changes nothing.
    dead.release().await.unwrap();
    assert!(one.try_acquire().await.unwrap().is_none());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn who_cannot_renew_it_is_told_before_somebody_else_has_it() {
    let mut server = RedisServer::start().await;
    let lease = lease(&server, "one").await;
    let mut held = lease.acquire().await;
    let begun = tokio::time::Instant::now();
    server.kill();
    held.lost().await;
    assert!(begun.elapsed() <= LIFETIME + Duration::from_millis(200), "{:?}", begun.elapsed());
}
