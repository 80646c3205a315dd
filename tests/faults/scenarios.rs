//! The scenarios: each a file, each a field of one kind of fault.

mod drops;
mod redis_kills;

use std::{future::Future, pin::Pin};

use crate::{
    Failure,
    site::{Setting, Sizes},
    verdict::Verdict,
};

type Running = Pin<Box<dyn Future<Output = Result<Verdict, Failure>>>>;

/// A scenario, and how large it is in its short and in its long form.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub short: Sizes,
    pub full: Sizes,
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
        run: |setting| Box::pin(drops::run(setting)),
    },
    Scenario {
        name: "redis-kills",
        about: "Redis is killed and started again, under load",
        short: sizes(60, 20, 60.0, 0, 2),
        full: sizes(300, 50, 100.0, 0, 100),
        run: |setting| Box::pin(redis_kills::run(setting)),
    },
];
