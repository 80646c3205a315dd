//! Several processes on one Redis: how the cost of an event grows with their number.

use crate::drive::{cost, faults};
use crate::error::Error;
use crate::figure::{Figure, figure, quantiles};
use crate::names::Names;
use crate::order::Topic;
use crate::publisher::Publisher;
use crate::room::Room;
use crate::socket::Assignment;
use crate::stage::Stage;
use crate::swarm::Swarm;

use super::{CONNECT, CONNECTING, Knobs, Scenario, as_fast_as_answered};

const JOBS: u32 = 100;
const WATCHERS: u32 = 1_000;
const CONNECTIONS: usize = 32;

/// The same watchers and jobs on so many processes.
pub struct Nodes {
    pub nodes: usize,
    /// Whether each node also has a watcher of all jobs, so that each event has to reach each node.
    pub everywhere: bool,
}

impl Nodes {
    fn assignments(&self) -> Vec<Assignment> {
        let of_one_job = (0..WATCHERS).map(|watcher| {
            let job = watcher % JOBS;
            Assignment { server: job as usize % self.nodes, room: Room::Job(job), jobs: job..job + 1 }
        });
        let of_all = (0..self.nodes).map(|server| Assignment { server, room: Room::All, jobs: 0..JOBS });
        of_one_job.chain(of_all.take(if self.everywhere { self.nodes } else { 0 })).collect()
    }
}

impl Scenario for Nodes {
    fn about(&self) -> String {
        let nodes = self.nodes;
        let also = if self.everywhere { "; each process also has a watcher of all jobs" } else { "" };
        format!(
            "{nodes} processes on one Redis; {JOBS} jobs with {} watchers each, all of a job's on one process{also}. \
             One event a call, {CONNECTIONS} calls under way, to all processes alike.",
            WATCHERS / JOBS
        )
    }

    fn nodes(&self) -> usize {
        self.nodes
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let names = Names::fresh();
        let mut swarm = Swarm::new(names.clone(), stage.servers().to_vec(), self.assignments())?;
        swarm.connect_all(CONNECTING, CONNECT)?;
        let topic = Topic { names, jobs: JOBS, jobs_per_user: None };
        let mut publisher = Publisher::new(stage.servers(), CONNECTIONS, topic)?;

        let measured = as_fast_as_answered(stage, &mut swarm, &mut publisher, 1, knobs)?;

        let mut figures = vec![figure("events/s", measured.events as f64 / measured.seconds)];
        figures.extend(cost(measured.cpu, measured.events, "events"));
        figures.extend(quantiles("", &measured.latency, &[0.5, 0.99]));
        figures.extend(faults(&swarm, &publisher));
        figures.extend(measured.own_load());
        swarm.leave();
        Ok(figures)
    }
}
