//! Watchers that lose their network and come back: how soon they have everything, and whether it is everything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::drive::{Measured, cost, drive, faults};
use crate::error::Error;
use crate::figure::{Figure, fault, figure, quantiles};
use crate::latency::Histogram;
use crate::names::Names;
use crate::order::Topic;
use crate::publisher::{Pace, Plan, Publisher, Until};
use crate::room::Room;
use crate::socket::Assignment;
use crate::stage::Stage;
use crate::swarm::Swarm;

use super::{CONNECT, CONNECTING, Knobs, PACED_CONNECTIONS, Scenario};

const JOBS: u32 = 100;
/// Events a second, over all jobs.
const RATE: f64 = 50.0;
/// How often each watcher is cut off, and for how long it stays away.
const PERIOD: Duration = Duration::from_secs(15);
const AWAY: Duration = Duration::from_secs(2);
/// How long the last ones may take to come back.
const RETURN: Duration = Duration::from_secs(60);

/// Watchers that are cut off one after another, all the time.
pub struct Return {
    pub watchers: u32,
    /// Whether they are in the rooms of so many users, and come back by position; in jobs' rooms by number without it.
    pub users: Option<u32>,
}

impl Scenario for Return {
    fn about(&self) -> String {
        let watchers = self.watchers;
        let (rooms, place) = match self.users {
            Some(users) => (format!("{users} users with {JOBS} jobs"), "position"),
            None => (format!("{JOBS} jobs"), "number"),
        };
        format!(
            "{watchers} watchers in the rooms of {rooms}, {RATE} events a second; every {PERIOD:?} each is cut off for \
             {AWAY:?} and comes back with the {place} of the last event that it has."
        )
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let (mut swarm, mut publisher) = watchers_that_return(stage, self.watchers, self.users)?;
        let mut outages = Outages { began: Instant::now(), cut: 0, away: VecDeque::new() };
        let time = knobs.measured(60.0, 20.0);
        let plan = Plan { pace: Pace::Rate(RATE), batch: 1, until: Until::Elapsed(time) };
        let measured = drive(stage, &mut swarm, &mut publisher, plan, |swarm| outages.go_on(swarm, time))?;
        outages.end(&mut swarm, time)?;
        everybody_is_back(&mut swarm)?;

        let returns = figure("returns", swarm.stats.serving.len() as f64);
        Ok(figures_of(returns, swarm, &publisher, &measured))
    }
}

/// Who is cut off when, and who comes back.
struct Outages {
    began: Instant,
    cut: u64,
    away: VecDeque<(Instant, usize)>,
}

impl Outages {
    /// Cuts off whose turn it is, until `last`; lets come back who has been away for long enough.
    fn go_on(&mut self, swarm: &mut Swarm, last: Duration) {
        let now = Instant::now();
        let elapsed = (now - self.began).min(last);
        let due = (elapsed.as_secs_f64() / PERIOD.as_secs_f64() * swarm.len() as f64) as u64;
        while self.cut < due {
            let watcher = self.cut as usize % swarm.len();
            if swarm.is_watching(watcher) {
                swarm.cut(watcher);
                self.away.push_back((now + AWAY, watcher));
            }
            self.cut += 1;
        }
        while self.away.front().is_some_and(|(when, _)| *when <= now) {
            self.away.pop_front().into_iter().for_each(|(_, watcher)| swarm.call(watcher));
        }
    }

    /// Lets the last ones come back too, even where nothing was published while they were away.
    fn end(&mut self, swarm: &mut Swarm, last: Duration) -> Result<(), Error> {
        while !self.away.is_empty() {
            self.go_on(swarm, last);
            swarm.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }
}

/// Watchers that are all cut off at once, and all come back at once.
pub struct ReturnAll {
    pub watchers: u32,
}

impl Scenario for ReturnAll {
    fn about(&self) -> String {
        let watchers = self.watchers;
        format!(
            "{watchers} watchers in the rooms of {JOBS} jobs, {RATE} events a second; all are cut off at once and all \
             come back at once after {AWAY:?}."
        )
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let (mut swarm, mut publisher) = watchers_that_return(stage, self.watchers, None)?;
        let mut outage =
            Outage { cut_at: Instant::now() + Duration::from_secs(2), called_at: None, over_at: None };
        let time = knobs.measured(20.0, 10.0);
        let plan = Plan { pace: Pace::Rate(RATE), batch: 1, until: Until::Elapsed(time) };
        let measured = drive(stage, &mut swarm, &mut publisher, plan, |swarm| outage.go_on(swarm))?;
        swarm.run_until(RETURN, |swarm| swarm.stats.serving.len() >= u64::from(self.watchers))?;
        outage.go_on(&mut swarm);
        everybody_is_back(&mut swarm)?;

        let served = outage.called_at.zip(outage.over_at).ok_or("not everybody was served again")?;
        let served = figure("all served s", (served.1 - served.0).as_secs_f64());
        Ok(figures_of(served, swarm, &publisher, &measured))
    }
}

/// The one outage of all.
struct Outage {
    cut_at: Instant,
    called_at: Option<Instant>,
    over_at: Option<Instant>,
}

impl Outage {
    fn go_on(&mut self, swarm: &mut Swarm) {
        let now = Instant::now();
        if now >= self.cut_at && swarm.stats.watching == swarm.len() && self.called_at.is_none() {
            (0..swarm.len()).for_each(|watcher| swarm.cut(watcher));
        }
        if now >= self.cut_at + AWAY && self.called_at.is_none() {
            self.called_at = Some(now);
            swarm.call_all(usize::MAX);
        }
        if swarm.stats.serving.len() >= swarm.len() as u64 {
            self.over_at.get_or_insert(now);
        }
    }
}

/// So many watchers, spread over the rooms of jobs or of so many users, that go on where they were whenever they come
/// back.
fn watchers_that_return(
    stage: &Stage,
    watchers: u32,
    users: Option<u32>,
) -> Result<(Swarm, Publisher), Error> {
    let names = Names::fresh();
    let jobs_per_user = users.map(|users| JOBS / users);
    let assignment = |n| {
        let (room, first, count) = match (users, jobs_per_user) {
            (Some(users), Some(each)) => (Room::User(n % users), n % users * each, each),
            _ => (Room::Job(n % JOBS), n % JOBS, 1),
        };
        Assignment { server: 0, room, jobs: first..first + count }
    };
    let mut swarm =
        Swarm::new(names.clone(), stage.servers().to_vec(), (0..watchers).map(assignment).collect())?;
    swarm.connect_all(CONNECTING, CONNECT)?;
    swarm.stats.serving = Histogram::default();
    swarm.stats.resuming = true;
    swarm.faithful = true;
    let topic = Topic { names, jobs: JOBS, jobs_per_user };
    Ok((swarm, Publisher::new(stage.servers(), PACED_CONNECTIONS, topic)?))
}

fn everybody_is_back(swarm: &mut Swarm) -> Result<(), Error> {
    let all = swarm.len();
    if swarm.run_until(RETURN, |swarm| swarm.stats.watching == all)? {
        return Ok(());
    }
    Err(format!(
        "{} of {all} watchers are back after {RETURN:?}: {:?}",
        swarm.stats.watching, swarm.stats.refused
    )
    .into())
}

/// What is told of watchers that came back, after what is told first; they leave.
fn figures_of(first: Figure, mut swarm: Swarm, publisher: &Publisher, measured: &Measured) -> Vec<Figure> {
    let mut figures = vec![first];
    figures.extend(quantiles("replay", &swarm.stats.serving, &[0.5, 0.99]));
    figures.extend(cost(measured.cpu, swarm.stats.serving.len(), "returns"));
    figures.extend(faults(&swarm, publisher));
    figures.push(fault("refused and tried again", swarm.stats.refused.values().sum()));
    figures.extend(measured.own_load());
    swarm.leave();
    figures
}
