//! Watchers to whom nothing happens: what one of them weighs.

use std::time::Duration;

use crate::error::Error;
use crate::figure::{Figure, fault, figure};
use crate::names::Names;
use crate::proc::memory;
use crate::room::Room;
use crate::socket::Assignment;
use crate::stage::Stage;
use crate::swarm::Swarm;

use super::{CONNECT, CONNECTING, Knobs, Scenario};

/// How long the server may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// So many watchers.
pub struct Idle {
    pub watchers: u32,
    /// Whether all are in one room; otherwise each is in its own.
    pub shared: bool,
}

impl Scenario for Idle {
    fn about(&self) -> String {
        let rooms = if self.shared { "all of one job" } else { "each of a job of its own" };
        format!("{} watchers, {rooms}, to whom nothing happens.", self.watchers)
    }

    fn run(&self, stage: &mut Stage, _knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let watchers = self.watchers;
        let assignment = |n| {
            let job = if self.shared { 0 } else { n };
            Assignment { server: 0, room: Room::Job(job), jobs: job..job + 1 }
        };
        let mut swarm =
            Swarm::new(Names::fresh(), stage.servers().to_vec(), (0..watchers).map(assignment).collect())?;
        let pid = stage.pids()[0];
        let before = memory(pid)?;
        swarm.connect_all(CONNECTING, CONNECT)?;
        swarm.run_for(SETTLE)?;
        let after = memory(pid)?;
        let each = |kib: f64| kib / f64::from(watchers);
        let mut figures = vec![
            figure("watchers", swarm.stats.watching as f64),
            figure("RSS before MiB", before.rss / 1024.0),
            figure("RSS after MiB", after.rss / 1024.0),
            figure("RSS KiB/watcher", each(after.rss - before.rss)),
        ];
        if let (Some(before), Some(after)) = (before.pss, after.pss) {
            figures.push(figure("PSS KiB/watcher", each(after - before)));
        }
        figures.push(fault("refused", swarm.stats.refused.values().sum()));
        figures.push(fault("cut off", swarm.stats.cut.values().sum()));
        swarm.leave();
        Ok(figures)
    }
}
