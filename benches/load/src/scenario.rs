//! The loads: each a handful of parameters and the figures that it yields.

mod burst;
mod fanout;
mod idle;
mod nodes;
mod publish;
mod resume;
mod rooms;
mod storm;

use std::time::Duration;

use crate::Error;
use crate::drive::{Measured, drive};
use crate::figure::Figure;
use crate::publisher::{Pace, Plan, Publisher, Until};
use crate::stage::Stage;
use crate::subject::Subject;
use crate::swarm::Swarm;

/// How many connections may be on their way in at once where that is not what is measured.
const CONNECTING: usize = 256;
/// How long all of them may take.
const CONNECT: Duration = Duration::from_secs(90);

/// The publisher's connections, at the most, where a clock says when to send: enough that none is waited for.
const PACED_LINES: usize = 256;

/// Publishes in calls of so many events, as fast as they are answered: to warm up, and then to measure.
fn as_fast_as_answered(
    stage: &mut Stage,
    swarm: &mut Swarm,
    publisher: &mut Publisher,
    batch: usize,
    knobs: Knobs,
) -> Result<Measured, Error> {
    let plan = |time| Plan { pace: Pace::Answers, batch, until: Until::Elapsed(time) };
    drive(stage, swarm, publisher, plan(knobs.warm_up()), |_| ())?;
    drive(stage, swarm, publisher, plan(knobs.measured(4.0, 2.0)), |_| ())
}

/// What changes all loads alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knobs {
    /// Short runs: to see that it works, not to measure.
    pub quick: bool,
    /// How long to measure, in place of each load's own time.
    pub seconds: Option<f64>,
    /// How many events may be outstanding in closed loops, in place of 64.
    pub window: Option<u64>,
}

impl Knobs {
    /// How long to measure: of these two, or as asked for.
    fn measured(&self, full: f64, quick: f64) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { quick } else { full }))
    }

    /// How long to run before that, so that code is compiled and memory is there.
    fn warm_up(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 1_500 })
    }

    fn window(&self) -> u64 {
        self.window.unwrap_or(64)
    }
}

/// One load.
pub trait Scenario {
    /// What it measures, in a sentence.
    fn about(&self) -> String;

    /// How many processes of the subject it takes.
    fn nodes(&self) -> usize {
        1
    }

    /// Loads what is on the stage and measures it.
    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error>;
}

/// A load, its name, and the subjects that are worth the time.
pub struct Entry {
    pub name: &'static str,
    pub scenario: Box<dyn Scenario>,
    pub subjects: &'static [Subject],
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
    fn entry(name: &'static str, subjects: &'static [Subject], scenario: impl Scenario + 'static) -> Entry {
        Entry { name, scenario: Box::new(scenario), subjects }
    }
    use {fanout::Fanout, idle::Idle, nodes::Nodes, publish::Publish, rooms::Rooms};
    vec![
        entry("fanout-1000", ALL, Fanout::full_speed(1_000)),
        entry("fanout-1000-batch", FEW, Fanout::full_speed(1_000).in_batches(16)),
        entry("fanout-5000", FEW, Fanout::full_speed(5_000)),
        entry("fanout-1000-paced", ALL, Fanout::paced(1_000, 20.0)),
        entry("fanout-5000-paced", FEW, Fanout::paced(5_000, 4.0)),
        entry("rooms-1000", ALL, Rooms::of_jobs(1, 32)),
        entry("rooms-1000-batch", KEEPING, Rooms::of_jobs(100, 4)),
        entry("user-rooms", KEEPING, Rooms::of_users()),
        entry("idle", ALL, Idle { watchers: 10_000, shared: false }),
        entry("idle-shared", FEW, Idle { watchers: 10_000, shared: true }),
        entry("idle-max", EMBEDDED, Idle { watchers: 19_000, shared: false }),
        entry("storm", ALL, storm::Storm { wave: 2_000, at_once: 256 }),
        entry("return", JOBCAST, resume::Return { watchers: 10_000 }),
        entry("return-all", JOBCAST, resume::ReturnAll { watchers: 18_000 }),
        entry("publish-single", KEEPING, Publish { jobs: 1_000, batch: 1, lines: 32 }),
        entry("publish-batch", KEEPING, Publish { jobs: 100, batch: 1_000, lines: 4 }),
        entry("two-nodes", SPREADING, Fanout::full_speed(1_000).on_two_nodes()),
        entry("nodes-2", SPREADING, Nodes { nodes: 2, everywhere: false }),
        entry("nodes-4", SPREADING, Nodes { nodes: 4, everywhere: false }),
        entry("nodes-8", SPREADING, Nodes { nodes: 8, everywhere: false }),
        entry("nodes-2-all", SPREADING, Nodes { nodes: 2, everywhere: true }),
        entry("nodes-4-all", SPREADING, Nodes { nodes: 4, everywhere: true }),
        entry("nodes-8-all", SPREADING, Nodes { nodes: 8, everywhere: true }),
        entry("burst", KEEPING, burst::Burst { lines: 1 }),
        entry("burst-at-once", KEEPING, burst::Burst { lines: 10 }),
    ]
}
