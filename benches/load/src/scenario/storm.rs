//! Watchers that come and go: what letting one in costs.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::figure::{Figure, fault, figure, quantiles};
use crate::latency::Histogram;
use crate::names::Names;
use crate::proc::thread_cpu;
use crate::room::Room;
use crate::socket::Assignment;
use crate::stage::Stage;
use crate::swarm::Swarm;

use super::{CONNECT, Knobs, Scenario};

/// How long the server may take to forget the last ones before its time is read.
const SETTLE: Duration = Duration::from_millis(500);

/// Waves of watchers that connect, subscribe, and leave as soon as the last one is there.
pub struct Storm {
    pub wave: u32,
    pub at_once: usize,
}

impl Scenario for Storm {
    fn about(&self) -> String {
        let Self { wave, at_once } = self;
        format!(
            "{wave} watchers connect and subscribe, {at_once} at once, and leave when all are there; then the next."
        )
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let assignment = |n| Assignment { server: 0, room: Room::Job(n), jobs: n..n + 1 };
        let mut swarm =
            Swarm::new(Names::fresh(), stage.servers().to_vec(), (0..self.wave).map(assignment).collect())?;
        self.waves(&mut swarm, knobs.warm_up())?;
        stage.rest(SETTLE)?;

        swarm.stats.serving = Histogram::default();
        swarm.stats.refused.clear();
        let (cpu, own_cpu) = (stage.cpu()?, thread_cpu());
        let (clients, seconds) = self.waves(&mut swarm, knobs.measured(4.0, 2.0))?;
        let own_cpu = thread_cpu() - own_cpu;
        stage.rest(SETTLE)?;
        let cpu = stage.cpu()? - cpu;

        let each = |seconds: f64| seconds * 1e6 / clients as f64;
        let mut figures = vec![
            figure("clients/s", clients as f64 / seconds),
            figure("server CPU µs/client", each(cpu.servers)),
        ];
        figures.extend(cpu.redis.map(|redis| figure("Redis CPU µs/client", each(redis))));
        figures.push(figure("sum CPU µs/client", each(cpu.servers + cpu.redis.unwrap_or(0.0))));
        figures.extend(quantiles("", &swarm.stats.serving, &[0.5, 0.99]));
        figures.push(fault("refused", swarm.stats.refused.values().sum()));
        figures.push(fault("cut off", swarm.stats.cut.values().sum()));
        figures.push(figure("watching thread %", 100.0 * own_cpu.as_secs_f64() / seconds));
        Ok(figures)
    }
}

impl Storm {
    /// Waves until it is time; how many came and went, and in how many seconds.
    fn waves(&self, swarm: &mut Swarm, time: Duration) -> Result<(u64, f64), Error> {
        let (began, mut clients) = (Instant::now(), 0);
        while began.elapsed() < time {
            swarm.connect_all(self.at_once, CONNECT)?;
            clients += swarm.len() as u64;
            swarm.leave();
        }
        Ok((clients, began.elapsed().as_secs_f64()))
    }
}
