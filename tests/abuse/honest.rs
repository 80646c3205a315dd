//! The honest ones: watchers of all kinds of rooms, each from one of some addresses, and a publisher for each job.

use std::net::SocketAddr;

use tokio::time::{Duration, timeout};

use crate::{
    Failure,
    client::Endpoint,
    credentials::Attackers,
    trial::{Audience, Expectation, Setup, Trial, http_client},
    view::{Owners, Room},
};
use serde_json::{Value, json};

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
pub async fn begin(
    gateway: SocketAddr,
    watchers: usize,
    attackers: Attackers,
    seed: u64,
) -> Result<Trial, Failure> {
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
    trial.http = http_client(attackers.publishers_key());
    for number in 0..watchers {
        let (rooms, source) = (rooms(number), Some([127, 0, 1, 1 + (number / NEIGHBOURS) as u8].into()));
        let token = attackers.token_of(&claims(&rooms));
        let endpoint = Endpoint { addresses: vec![gateway], source, token, ..Endpoint::default() };
        trial.add(format!("watcher {number}"), rooms, endpoint);
    }
    let settled = trial.context.settled.reaches(watchers as u64);
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

/// What a token needs to say so that its holder may be in these rooms, and no more. A job is watched by its owner where
/// that is possible.
fn claims(rooms: &[Room]) -> Value {
    let user = rooms.iter().find_map(|room| match *room {
        Room::User(user) => Some(user),
        Room::Job(job) => Some(OWNERS.user_of(job)),
        _ => None,
    });
    let mut claims = json!({"jobs": []});
    if let Some(user) = user {
        claims["sub"] = format!("user-{user}").into();
    }
    for room in rooms {
        match *room {
            Room::All => claims["scope"] = "jobs:admin".into(),
            Room::Tenant(tenant) => claims["tenantId"] = format!("tenant-{tenant}").into(),
            Room::Job(job) if user != Some(OWNERS.user_of(job)) => {
                claims["jobs"]
                    .as_array_mut()
                    .into_iter()
                    .for_each(|jobs| jobs.push(format!("job-{job}").into()));
            }
            Room::User(_) | Room::Job(_) => {}
        }
    }
    claims
}
