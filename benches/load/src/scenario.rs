//! What a load is: a handful of parameters, and the figures that it yields.

pub mod burst;
pub mod fanout;
pub mod idle;
pub mod nodes;
pub mod publish;
pub mod resume;
pub mod rooms;
pub mod storm;

use std::time::Duration;

use crate::drive::{Measured, drive};
use crate::error::Error;
use crate::figure::Figure;
use crate::publisher::{Pace, Plan, Publisher, Until};
use crate::stage::Stage;
use crate::swarm::Swarm;

/// How many connections may be on their way in at once where that is not what is measured.
const CONNECTING: usize = 256;
/// How long all of them may take.
const CONNECT: Duration = Duration::from_secs(90);

/// The publisher's connections, at the most, where a clock says when to send: enough that none is waited for.
const PACED_CONNECTIONS: usize = 256;

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
