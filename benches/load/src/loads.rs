//! The loads by their names, and what each is run against.

use crate::scenario::Scenario;
use crate::scenario::burst::Burst;
use crate::scenario::fanout::Fanout;
use crate::scenario::idle::Idle;
use crate::scenario::nodes::Nodes;
use crate::scenario::publish::Publish;
use crate::scenario::resume::{Return, ReturnAll};
use crate::scenario::rooms::Rooms;
use crate::scenario::storm::Storm;
use crate::subject::Subject;

/// A load, its name, and the subjects that are worth the time.
pub struct Entry {
    pub name: &'static str,
    pub scenario: Box<dyn Scenario>,
    pub subjects: Vec<Subject>,
}

const ALL: &[Subject] = &[
    Subject::Jobcast,
    Subject::JobcastRedis,
    Subject::JobcastMemory,
    Subject::Nestjs,
    Subject::Node,
    Subject::Bun,
    Subject::LimitWrite,
    Subject::LimitCoalesce,
];
/// Those that ask who somebody is.
const ASKING: &[Subject] = &[Subject::JobcastKey, Subject::JobcastToken];
/// Those that keep what they are given.
const KEEPING: &[Subject] =
    &[Subject::Jobcast, Subject::JobcastRedis, Subject::JobcastMemory, Subject::Nestjs];
/// What Jobcast is held against where that takes long.
const FEW: &[Subject] = &[Subject::Jobcast, Subject::Nestjs, Subject::LimitWrite, Subject::LimitCoalesce];
const JOBCAST: &[Subject] = &[Subject::Jobcast, Subject::JobcastRedis, Subject::JobcastMemory];
const EMBEDDED: &[Subject] = &[Subject::Jobcast];
/// Those of which several processes can serve the same jobs.
const SPREADING: &[Subject] = &[Subject::JobcastRedis, Subject::Nestjs];

/// All loads in the order of the tables.
pub fn all() -> Vec<Entry> {
    fn entry(name: &'static str, subjects: &[Subject], scenario: impl Scenario + 'static) -> Entry {
        Entry { name, scenario: Box::new(scenario), subjects: subjects.to_vec() }
    }
    vec![
        entry("fanout-1000", ALL, Fanout::full_speed(1_000)),
        entry("fanout-1000-batch", FEW, Fanout::full_speed(1_000).in_batches(16)),
        entry("fanout-5000", FEW, Fanout::full_speed(5_000)),
        entry("fanout-1000-paced", ALL, Fanout::paced(1_000, 20.0)),
        entry("fanout-5000-paced", FEW, Fanout::paced(5_000, 4.0)),
        entry("rooms-1000", &[ALL, ASKING].concat(), Rooms::of_jobs(1, 32)),
        entry("rooms-1000-batch", KEEPING, Rooms::of_jobs(100, 4)),
        entry("user-rooms", KEEPING, Rooms::of_users()),
        entry("idle", ALL, Idle { watchers: 10_000, shared: false }),
        entry("idle-shared", FEW, Idle { watchers: 10_000, shared: true }),
        entry("idle-max", EMBEDDED, Idle { watchers: 19_000, shared: false }),
        entry("storm", &[ALL, ASKING].concat(), Storm { wave: 2_000, at_once: 256 }),
        entry("return", JOBCAST, Return { watchers: 10_000, users: None }),
        entry("return-users", JOBCAST, Return { watchers: 10_000, users: Some(50) }),
        entry("return-all", JOBCAST, ReturnAll { watchers: 18_000 }),
        entry(
            "publish-single",
            &[KEEPING, ASKING].concat(),
            Publish { jobs: 1_000, batch: 1, connections: 32 },
        ),
        entry("publish-batch", KEEPING, Publish { jobs: 100, batch: 1_000, connections: 4 }),
        entry("two-nodes", SPREADING, Fanout::full_speed(1_000).on_two_nodes()),
        entry("nodes-2", SPREADING, Nodes { nodes: 2, everywhere: false }),
        entry("nodes-4", SPREADING, Nodes { nodes: 4, everywhere: false }),
        entry("nodes-8", SPREADING, Nodes { nodes: 8, everywhere: false }),
        entry("nodes-2-all", SPREADING, Nodes { nodes: 2, everywhere: true }),
        entry("nodes-4-all", SPREADING, Nodes { nodes: 4, everywhere: true }),
        entry("nodes-8-all", SPREADING, Nodes { nodes: 8, everywhere: true }),
        entry("burst", KEEPING, Burst { connections: 1 }),
        entry("burst-at-once", KEEPING, Burst { connections: 10 }),
    ]
}
