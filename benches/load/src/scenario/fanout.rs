//! One job that many watch: at full speed, and at a steady pace.

use crate::drive::{cost, drive, faults};
use crate::error::Error;
use crate::figure::{Figure, figure, quantiles};
use crate::frontier::Frontier;
use crate::names::Names;
use crate::order::Topic;
use crate::publisher::{Pace, Plan, Publisher, Until};
use crate::room::Room;
use crate::socket::Assignment;
use crate::stage::Stage;
use crate::swarm::Swarm;

use super::{CONNECT, CONNECTING, Knobs, PACED_CONNECTIONS, Scenario};

/// The publisher's connections at full speed.
const CONNECTIONS: usize = 32;

/// Many watchers in one job's room.
pub struct Fanout {
    watchers: usize,
    /// Events a second; `None` for as many as watchers can take.
    rate: Option<f64>,
    /// Events in a call.
    batch: usize,
    nodes: usize,
}

impl Fanout {
    /// As many events as all watchers can take, each in a call of its own, as jobs tell of their progress.
    pub fn full_speed(watchers: usize) -> Self {
        Self { watchers, rate: None, batch: 1, nodes: 1 }
    }

    /// With so many events in a call.
    pub fn in_batches(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// So many events a second, whatever happens.
    pub fn paced(watchers: usize, rate: f64) -> Self {
        Self { watchers, rate: Some(rate), batch: 1, nodes: 1 }
    }

    /// The watchers spread over two processes, the publisher at the first one.
    pub fn on_two_nodes(self) -> Self {
        Self { nodes: 2, ..self }
    }

    fn plan(&self, knobs: Knobs, until: Until) -> Plan {
        let pace = self.rate.map_or_else(|| Pace::Window(knobs.window()), Pace::Rate);
        Plan { pace, batch: self.batch, until }
    }
}

impl Scenario for Fanout {
    fn about(&self) -> String {
        let watchers = self.watchers;
        let spread = if self.nodes == 1 { "" } else { ", half of them on each of two processes" };
        match self.rate {
            None => {
                let calls = if self.batch == 1 {
                    format!("one event a call, over {CONNECTIONS} connections")
                } else {
                    format!("calls of {} events", self.batch)
                };
                format!(
                    "{watchers} watchers of one job{spread}; {calls}. At most 64 events are under way: that is, \
                     not yet with all watchers."
                )
            }
            Some(rate) => {
                format!("{watchers} watchers of one job{spread}; {rate} events a second, one at a time.")
            }
        }
    }

    fn nodes(&self) -> usize {
        self.nodes
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let names = Names::fresh();
        let assignment = |n| Assignment { server: n % self.nodes, room: Room::Job(0), jobs: 0..1 };
        let assignments = (0..self.watchers).map(assignment).collect();
        let mut swarm = Swarm::new(names.clone(), stage.servers().to_vec(), assignments)?;
        swarm.connect_all(CONNECTING, CONNECT)?;
        let connections = if self.rate.is_some() { PACED_CONNECTIONS } else { CONNECTIONS };
        let topic = Topic { names, jobs: 1, jobs_per_user: None };
        let mut publisher = Publisher::new(&stage.servers()[..1], connections, topic)?;
        swarm.stats.follow(Frontier::new(self.watchers as u32, publisher.complete()));

        let first = Plan { pace: Pace::Answers, batch: 1, until: Until::Events(1) };
        drive(stage, &mut swarm, &mut publisher, first, |_| ())?;
        let warm_up = self.plan(knobs, Until::Elapsed(knobs.warm_up()));
        drive(stage, &mut swarm, &mut publisher, warm_up, |_| ())?;
        let time = if self.rate.is_some() { knobs.measured(5.0, 3.0) } else { knobs.measured(4.0, 2.0) };
        let plan = self.plan(knobs, Until::Elapsed(time));
        let measured = drive(stage, &mut swarm, &mut publisher, plan, |_| ())?;

        let mut figures = vec![figure("deliveries/s", measured.deliveries as f64 / measured.seconds)];
        figures.extend(cost(measured.cpu, measured.deliveries, "deliveries"));
        figures.extend(quantiles("", &measured.latency, &[0.5, 0.99, 0.999]));
        figures.extend(faults(&swarm, &publisher));
        figures.extend(measured.own_load());
        swarm.leave();
        Ok(figures)
    }
}
