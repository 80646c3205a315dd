//! The honest ones: watchers of all kinds of rooms, each from one of some addresses, and a publisher for each job.

use std::net::SocketAddr;

use tokio::time::{Duration, timeout};

use crate::{
    Failure,
    client::Endpoint,
    trial::{Audience, Expectation, Setup, Trial},
    view::{Owners, Room},
};

pub const WATCHERS: usize = 50;

const JOBS: usize = 20;
const OWNERS: Owners = Owners { users: 5 };

/// Events a second.
const RATE: f64 = 50.0;

/// How many events a history keeps: more than any job gets while everything runs.
pub const HISTORY: usize = 1000;

/// How many watchers share an address.
const NEIGHBOURS: usize = 5;

/// How long watchers may take into their rooms while nobody attacks.
const SETTLING: Duration = Duration::from_secs(30);

/// Watchers in their rooms, and publishers that publish.
pub async fn begin(gateway: SocketAddr, seed: u64) -> Result<Trial, Failure> {
    let mut trial = Trial::new(Setup {
        jobs: JOBS,
        seed,
        rate: RATE,
        padding: 200,
        history_cap: HISTORY,
        expectation: Expectation::Everything,
        audience: Audience::Mixed,
        owners: OWNERS,
        jumps: false,
        gateways: vec![gateway],
    });
    for number in 0..WATCHERS {
        let source = Some([127, 0, 1, 1 + (number / NEIGHBOURS) as u8].into());
        let endpoint = Endpoint { addresses: vec![gateway], source, ..Endpoint::default() };
        trial.add(format!("watcher {number}"), rooms(number), endpoint);
    }
    let settled = trial.context.settled.reaches(WATCHERS as u64);
    timeout(SETTLING, settled).await.map_err(|_| "not all watchers are in their rooms")?;
    trial.publish();
    Ok(trial)
}

fn rooms(number: usize) -> Vec<Room> {
    let job = |further: usize| Room::Job((number + further) % JOBS);
    match number % 10 {
        0 => vec![Room::All],
        1 | 2 => vec![Room::User(number / 10 % OWNERS.users)],
        3 => vec![Room::Tenant(number / 10 % OWNERS.tenants())],
        4 => vec![Room::User(number / 10 % OWNERS.users), job(0)],
        _ => vec![job(0), job(1), job(2)],
    }
}
