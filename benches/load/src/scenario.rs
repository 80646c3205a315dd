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
use crate::figure::Figure;
use crate::stage::Stage;
use crate::subject::Subject;

/// How many connections may be on their way in at once where that is not what is measured.
const CONNECTING: usize = 256;
/// How long all of them may take.
const CONNECT: Duration = Duration::from_secs(90);

/// The publisher's connections, at the most, where a clock says when to send: enough that none is waited for.
const PACED_LINES: usize = 256;

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
        Duration::from_millis(if self.quick { 500 } else { 2_000 })
    }

    fn window(&self) -> u64 {
        self.window.unwrap_or(64)
    }
}

/// One load.
pub trait Scenario {
    /// What it measures, in a sentence.
    fn about(&self) -> String;

    /// Whether a subject can be put under it.
    fn suits(&self, _subject: Subject) -> bool {
        true
    }

    /// How many processes of the subject it takes.
    fn nodes(&self) -> usize {
        1
    }

    /// Loads what is on the stage and measures it.
    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error>;
}

/// All loads by name, in the order of the tables.
pub fn all() -> Vec<(&'static str, Box<dyn Scenario>)> {
    vec![
        ("fanout-1000", Box::new(fanout::Fanout::full_speed(1_000))),
        ("fanout-5000", Box::new(fanout::Fanout::full_speed(5_000))),
        ("fanout-1000-batch", Box::new(fanout::Fanout::full_speed(1_000).in_batches(16))),
        ("fanout-1000-paced", Box::new(fanout::Fanout::paced(1_000, 20.0))),
        ("fanout-5000-paced", Box::new(fanout::Fanout::paced(5_000, 4.0))),
        ("rooms-1000", Box::new(rooms::Rooms::of_jobs(1, 32))),
        ("rooms-1000-batch", Box::new(rooms::Rooms::of_jobs(100, 4))),
        ("user-rooms", Box::new(rooms::Rooms::of_users())),
        ("idle", Box::new(idle::Idle { watchers: 10_000, jobcast_only: false })),
        ("idle-max", Box::new(idle::Idle { watchers: 19_000, jobcast_only: true })),
        ("storm", Box::new(storm::Storm { wave: 2_000, at_once: 256 })),
        ("return", Box::new(resume::Return { watchers: 10_000 })),
        ("return-all", Box::new(resume::ReturnAll { watchers: 18_000 })),
        ("publish-single", Box::new(publish::Publish { jobs: 1_000, batch: 1, lines: 32 })),
        ("publish-batch", Box::new(publish::Publish { jobs: 100, batch: 1_000, lines: 4 })),
        ("two-nodes", Box::new(fanout::Fanout::full_speed(1_000).on_two_nodes())),
        ("nodes-2", Box::new(nodes::Nodes { nodes: 2, everywhere: false })),
        ("nodes-4", Box::new(nodes::Nodes { nodes: 4, everywhere: false })),
        ("nodes-8", Box::new(nodes::Nodes { nodes: 8, everywhere: false })),
        ("nodes-2-all", Box::new(nodes::Nodes { nodes: 2, everywhere: true })),
        ("nodes-4-all", Box::new(nodes::Nodes { nodes: 4, everywhere: true })),
        ("nodes-8-all", Box::new(nodes::Nodes { nodes: 8, everywhere: true })),
        ("burst", Box::new(burst::Burst { lines: 1 })),
        ("burst-at-once", Box::new(burst::Burst { lines: 10 })),
    ]
}
