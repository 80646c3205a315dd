//! Nobody watches: what accepting an event costs.

use crate::drive::{cost, faults};
use crate::error::Error;
use crate::figure::{Figure, figure, quantiles};
use crate::names::Names;
use crate::order::Topic;
use crate::publisher::Publisher;
use crate::stage::Stage;
use crate::swarm::Swarm;

use super::{Knobs, Scenario, as_fast_as_answered};

/// Calls of so many events over so many jobs.
pub struct Publish {
    pub jobs: u32,
    pub batch: usize,
    pub connections: usize,
}

impl Scenario for Publish {
    fn about(&self) -> String {
        let Self { jobs, batch, connections } = self;
        format!("No watchers; calls of {batch} event(s), {connections} under way, over {jobs} jobs.")
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let names = Names::fresh();
        let mut swarm = Swarm::new(names.clone(), stage.servers().to_vec(), Vec::new())?;
        let topic = Topic { names, jobs: self.jobs, jobs_per_user: None };
        let mut publisher = Publisher::new(stage.servers(), self.connections, topic)?;

        let measured = as_fast_as_answered(stage, &mut swarm, &mut publisher, self.batch, knobs)?;

        let mut figures = vec![figure("events/s", measured.events as f64 / measured.seconds)];
        figures.extend(cost(measured.cpu, measured.events, "events"));
        figures.extend(quantiles("call", &measured.calls, &[0.5, 0.99]));
        figures
            .extend(faults(&swarm, &publisher).into_iter().filter(|figure| figure.name == "jobs with holes"));
        figures.extend(measured.own_load());
        Ok(figures)
    }
}
