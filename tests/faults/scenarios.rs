//! The scenarios: each a file, each a field of one kind of fault.

mod cluster;
mod crowd;
mod cuts;
mod drops;
mod failover;
mod gateway_kills;
mod mixed;
mod outage;
mod redis_kills;
mod rolling;
mod room_failover;
mod rotation;
mod slow_fill;
mod stalled;
mod storm;
mod stragglers;
mod torn;

pub use self::cuts::Fault;

use std::{future::Future, pin::Pin};

use crate::{
    Failure,
    site::{Setting, Sizes, StoreKind},
    verdict::Verdict,
};

type Running = Pin<Box<dyn Future<Output = Result<Verdict, Failure>>>>;

/// A scenario, and how large it is in its short and in its long form.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub short: Sizes,
    pub full: Sizes,
    /// The stores that it works with.
    pub stores: &'static [StoreKind],
    pub run: fn(Setting) -> Running,
}

const fn sizes(clients: usize, jobs: usize, rate: f64, seconds: u64, rounds: usize) -> Sizes {
    Sizes { clients, jobs, rate, seconds, rounds }
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "drops",
        about: "watchers lose their network for two seconds every fifteen",
        short: sizes(100, 20, 80.0, 5, 0),
        full: sizes(1000, 50, 100.0, 180, 0),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(drops::run(setting)),
    },
    Scenario {
        name: "redis-kills",
        about: "Redis is killed and started again, under load",
        short: sizes(60, 20, 60.0, 0, 2),
        full: sizes(300, 50, 100.0, 0, 100),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(redis_kills::run(setting)),
    },
    Scenario {
        name: "gateway-kills",
        about: "gateways are killed and started again, under load",
        short: sizes(60, 20, 60.0, 0, 3),
        full: sizes(300, 50, 100.0, 0, 100),
        stores: &[StoreKind::Redis, StoreKind::Embedded],
        run: |setting| Box::pin(gateway_kills::run(setting)),
    },
    Scenario {
        name: "cuts",
        about: "what lies between gateways and Redis is cut, held, delayed",
        short: sizes(60, 20, 60.0, 0, 6),
        full: sizes(200, 50, 100.0, 0, 100),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(cuts::run(setting)),
    },
    Scenario {
        name: "outage",
        about: "Redis is away: nobody is disconnected, publishers are told",
        short: sizes(60, 20, 60.0, 6, 0),
        full: sizes(300, 50, 100.0, 60, 0),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(outage::run(setting)),
    },
    Scenario {
        name: "rolling",
        about: "gateways are restarted in order, one after the other",
        short: sizes(60, 20, 60.0, 0, 1),
        full: sizes(500, 50, 100.0, 0, 5),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(rolling::run(setting)),
    },
    Scenario {
        name: "failover",
        about: "the master is killed and its replica promoted",
        short: sizes(60, 20, 60.0, 0, 2),
        full: sizes(200, 50, 100.0, 0, 20),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(failover::run(setting)),
    },
    Scenario {
        name: "cluster-moves",
        about: "slots of a Redis Cluster move, under load",
        short: sizes(60, 20, 60.0, 0, 6),
        full: sizes(200, 50, 100.0, 0, 100),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(cluster::moves(setting)),
    },
    Scenario {
        name: "cluster-kills",
        about: "masters of a Redis Cluster are killed, their replicas take over, and slots move between that",
        short: sizes(60, 20, 60.0, 0, 2),
        full: sizes(200, 50, 100.0, 0, 20),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(cluster::kills(setting)),
    },
    Scenario {
        name: "room-failover",
        about: "watchers of shared rooms are cut off while the room's server fails over",
        short: sizes(60, 20, 60.0, 0, 2),
        full: sizes(300, 50, 100.0, 0, 50),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(room_failover::run(setting)),
    },
    Scenario {
        name: "crowd",
        about: "very many watchers of users lose their network for two seconds every fifteen",
        short: sizes(400, 20, 60.0, 5, 0),
        full: sizes(10_000, 200, 100.0, 180, 0),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(crowd::run(setting)),
    },
    Scenario {
        name: "slow-fill",
        about: "one job's gap takes long to fill, and delays no other job",
        short: sizes(10, 40, 80.0, 3, 1),
        full: sizes(50, 100, 100.0, 8, 10),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(slow_fill::run(setting)),
    },
    Scenario {
        name: "stalled",
        about: "one watcher stops reading and delays nobody",
        short: sizes(60, 20, 80.0, 2, 1),
        full: sizes(1000, 50, 50.0, 90, 2),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(stalled::run(setting)),
    },
    Scenario {
        name: "storm",
        about: "all watchers lose their connection at once and come back",
        short: sizes(300, 20, 60.0, 0, 1),
        full: sizes(18000, 50, 50.0, 0, 3),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(storm::run(setting)),
    },
    Scenario {
        name: "rotation",
        about: "histories are shorter than what watchers miss",
        short: sizes(60, 5, 100.0, 0, 2),
        full: sizes(300, 10, 200.0, 0, 20),
        stores: &[StoreKind::Redis, StoreKind::Embedded],
        run: |setting| Box::pin(rotation::run(setting)),
    },
    Scenario {
        name: "stragglers",
        about: "one gateway is slow to reach Redis, watchers lose their network",
        short: sizes(100, 20, 60.0, 5, 0),
        full: sizes(300, 50, 100.0, 60, 0),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(stragglers::run(setting)),
    },
    Scenario {
        name: "torn",
        about: "connections of watchers are cut in the middle of what is sent",
        short: sizes(80, 20, 60.0, 4, 0),
        full: sizes(300, 50, 100.0, 60, 0),
        stores: &[StoreKind::Redis, StoreKind::Embedded],
        run: |setting| Box::pin(torn::run(setting)),
    },
    Scenario {
        name: "mixed",
        about: "everything at once",
        short: sizes(60, 20, 60.0, 0, 5),
        full: sizes(300, 50, 100.0, 0, 100),
        stores: &[StoreKind::Redis],
        run: |setting| Box::pin(mixed::run(setting)),
    },
];
