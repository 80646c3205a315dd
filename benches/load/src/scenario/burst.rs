//! Ten thousand events of one job handed over as fast as they are taken, to a thousand watchers.

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

use super::{CONNECT, CONNECTING, Knobs, Scenario};

const WATCHERS: u32 = 1_000;
const EVENTS: u64 = 10_000;
/// In short runs.
const FEWER_EVENTS: u64 = 2_000;
const BATCH: usize = 1_000;
/// How many events may be on their way while the server warms up.
const WARM_UP_WINDOW: u64 = 64;

/// Ten full batches, on so many connections at once.
pub struct Burst {
    pub connections: usize,
}

impl Scenario for Burst {
    fn about(&self) -> String {
        let calls = if self.connections == 1 { "one call after another" } else { "all calls at once" };
        format!("{EVENTS} events of one job in calls of {BATCH}, {calls}, to {WATCHERS} watchers.")
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let names = Names::fresh();
        let assignment = |_| Assignment { server: 0, room: Room::Job(0), jobs: 0..1 };
        let mut swarm =
            Swarm::new(names.clone(), stage.servers().to_vec(), (0..WATCHERS).map(assignment).collect())?;
        swarm.connect_all(CONNECTING, CONNECT)?;
        let topic = Topic { names, jobs: 1, jobs_per_user: None };
        let mut publisher = Publisher::new(stage.servers(), self.connections, topic)?;
        swarm.stats.follow(Frontier::new(WATCHERS, publisher.complete()));

        let until = Until::Elapsed(knobs.warm_up());
        let warm_up = Plan { pace: Pace::Window(WARM_UP_WINDOW), batch: 16, until };
        drive(stage, &mut swarm, &mut publisher, warm_up, |_| ())?;
        let until = Until::Events(if knobs.quick { FEWER_EVENTS } else { EVENTS });
        let burst = Plan { pace: Pace::Answers, batch: BATCH, until };
        let measured = drive(stage, &mut swarm, &mut publisher, burst, |_| ())?;

        let mut figures = vec![
            figure("seconds", measured.seconds),
            figure("deliveries/s", measured.deliveries as f64 / measured.seconds),
        ];
        figures.extend(cost(measured.cpu, measured.deliveries, "deliveries"));
        figures.extend(quantiles("", &measured.latency, &[0.5, 0.99]));
        figures.extend(quantiles("call", &measured.calls, &[0.5]));
        figures.extend(faults(&swarm, &publisher));
        figures.extend(measured.own_load());
        swarm.leave();
        Ok(figures)
    }
}
