//! One phase of a run: publisher and watchers at work at once, until everybody has everything, and what it cost.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::figure::{Figure, fault, figure};
use crate::latency::{Histogram, micros};
use crate::proc::thread_cpu;
use crate::publisher::{Plan, Publisher};
use crate::stage::{Cpu, Stage};
use crate::swarm::Swarm;

/// After so long without any delivery what is missing is not waited for any longer.
const QUIET: Duration = Duration::from_secs(10);
/// And after so long at all.
const DRAIN: Duration = Duration::from_secs(150);

/// What a phase was and cost.
pub struct Measured {
    pub seconds: f64,
    pub events: u64,
    pub deliveries: u64,
    /// From the publisher's call to the watcher.
    pub latency: Histogram,
    /// How long the publisher's calls took.
    pub calls: Histogram,
    pub cpu: Cpu,
    late: u64,
    latest: u64,
    watching_cpu: Duration,
    publishing_cpu: Duration,
}

/// Runs a phase. Before every turn of the watchers `tick` may intervene.
pub fn drive(
    stage: &mut Stage,
    swarm: &mut Swarm,
    publisher: &mut Publisher,
    plan: Plan,
    mut tick: impl FnMut(&mut Swarm),
) -> Result<Measured, Error> {
    swarm.stats.latency = Histogram::default();
    let (began, delivered) = (micros(), swarm.stats.tally.delivered());
    let (cpu, own_cpu) = (stage.cpu()?, thread_cpu());
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publisher.run(plan));
        let mut watched = Ok(());
        while !publishing.is_finished() {
            if watched.is_ok() {
                tick(swarm);
                watched = swarm.turn(Duration::from_millis(10));
            } else {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let published = publishing.join().map_err(|_| "the publisher panicked")?;
        // The watchers' error is the cause where both have one.
        watched.and(published)
    });
    stage.check()?;
    let published = published?;
    drain(swarm, publisher, &mut tick)?;
    let end = swarm.stats.last_delivery.max(published.last_answer);
    Ok(Measured {
        seconds: end.saturating_sub(began) as f64 / 1e6,
        events: published.events,
        deliveries: swarm.stats.tally.delivered() - delivered,
        latency: std::mem::take(&mut swarm.stats.latency),
        calls: published.calls,
        cpu: stage.cpu()? - cpu,
        late: published.late,
        latest: published.latest,
        watching_cpu: thread_cpu() - own_cpu,
        publishing_cpu: published.cpu,
    })
}

/// Waits until every watcher has everything, or nothing comes any more.
fn drain(swarm: &mut Swarm, publisher: &Publisher, tick: &mut impl FnMut(&mut Swarm)) -> Result<(), Error> {
    let expected = swarm.stats.tally.expected(&publisher.numbers);
    let (began, mut delivered, mut news) = (Instant::now(), 0, Instant::now());
    while swarm.stats.tally.delivered() < expected && began.elapsed() < DRAIN {
        if swarm.stats.tally.delivered() != delivered || swarm.coming() > 0 {
            (delivered, news) = (swarm.stats.tally.delivered(), Instant::now());
        }
        if news.elapsed() > QUIET {
            break;
        }
        tick(swarm);
        swarm.turn(Duration::from_millis(10))?;
    }
    Ok(())
}

impl Measured {
    /// How much of one processor the load generator's two threads had, so that a reader sees whether it was what
    /// held things up.
    pub fn own_load(&self) -> Vec<Figure> {
        let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / self.seconds.max(1e-6);
        let mut figures = vec![
            figure("watching thread %", share(self.watching_cpu)),
            figure("publishing thread %", share(self.publishing_cpu)),
        ];
        if self.late > 0 {
            figures.push(fault("sent late", self.late));
            figures.push(fault("late by ms", self.latest / 1_000));
        }
        figures
    }
}

/// Processor seconds for each million of something: of the servers, of Redis, and of both.
pub fn cost(cpu: Cpu, count: u64, of: &str) -> Vec<Figure> {
    let each = |seconds: f64| seconds * 1e6 / (count.max(1) as f64);
    let mut figures = vec![figure(format!("server CPU s/M {of}"), each(cpu.servers))];
    if let Some(redis) = cpu.redis {
        figures.push(figure(format!("Redis CPU s/M {of}"), each(redis)));
    }
    figures.push(figure(format!("sum CPU s/M {of}"), each(cpu.servers + cpu.redis.unwrap_or(0.0))));
    figures
}

/// What must not have happened to any watcher.
pub fn faults(swarm: &Swarm, publisher: &Publisher) -> Vec<Figure> {
    let stats = &swarm.stats;
    let verdict = stats.tally.verdict(&publisher.numbers);
    let mut figures = vec![
        fault("lost", verdict.lost),
        fault("duplicated", verdict.duplicated),
        fault("reordered", verdict.reordered),
        fault("gap notices", stats.gaps),
    ];
    let rare = [
        ("numbers in gap notices", stats.gap_numbers),
        ("cut off", stats.cut.values().sum()),
        ("strays", stats.tally.strays()),
        (
            "jobs with holes",
            publisher.numbers.iter().filter(|numbers| !numbers.are_consecutive()).count() as u64,
        ),
    ];
    figures.extend(rare.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| fault(name, count)));
    figures
}
