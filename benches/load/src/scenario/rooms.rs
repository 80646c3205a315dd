//! Many rooms of few watchers: what an event costs when hardly anybody is there to share it.

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

const WATCHERS: u32 = 1_000;
const USERS: u32 = 100;
const JOBS_PER_USER: u32 = WATCHERS / USERS;

/// A thousand watchers, in rooms of their own or of users.
pub struct Rooms {
    of_users: bool,
    batch: usize,
    connections: usize,
}

impl Rooms {
    /// Each watcher in the room of a job of its own.
    pub fn of_jobs(batch: usize, connections: usize) -> Self {
        Self { of_users: false, batch, connections }
    }

    /// Ten watchers for each user, and ten jobs.
    pub fn of_users() -> Self {
        Self { of_users: true, batch: 1, connections: 32 }
    }

    fn assignment(&self, watcher: u32) -> Assignment {
        if self.of_users {
            let user = watcher % USERS;
            Assignment {
                server: 0,
                room: Room::User(user),
                jobs: user * JOBS_PER_USER..(user + 1) * JOBS_PER_USER,
            }
        } else {
            Assignment { server: 0, room: Room::Job(watcher), jobs: watcher..watcher + 1 }
        }
    }
}

impl Scenario for Rooms {
    fn about(&self) -> String {
        let rooms = if self.of_users {
            format!("{WATCHERS} watchers in the rooms of {USERS} users with {JOBS_PER_USER} jobs each")
        } else {
            format!("{WATCHERS} watchers, each of a job of its own")
        };
        let Self { batch, connections, .. } = self;
        match batch {
            1 => format!("{rooms}; one event a call, {connections} calls under way."),
            _ => format!("{rooms}; {batch} events of different jobs a call, {connections} calls under way."),
        }
    }

    fn run(&self, stage: &mut Stage, knobs: Knobs) -> Result<Vec<Figure>, Error> {
        let names = Names::fresh();
        let assignments = (0..WATCHERS).map(|watcher| self.assignment(watcher)).collect();
        let mut swarm = Swarm::new(names.clone(), stage.servers().to_vec(), assignments)?;
        swarm.connect_all(CONNECTING, CONNECT)?;
        let topic = Topic { names, jobs: WATCHERS, jobs_per_user: self.of_users.then_some(JOBS_PER_USER) };
        let mut publisher = Publisher::new(stage.servers(), self.connections, topic)?;

        let measured = as_fast_as_answered(stage, &mut swarm, &mut publisher, self.batch, knobs)?;

        let mut figures = vec![figure("events/s", measured.events as f64 / measured.seconds)];
        figures.extend(cost(measured.cpu, measured.events, "events"));
        figures.extend(quantiles("", &measured.latency, &[0.5, 0.99]));
        figures.extend(quantiles("call", &measured.calls, &[0.5, 0.99]));
        figures.extend(faults(&swarm, &publisher));
        figures.extend(measured.own_load());
        swarm.leave();
        Ok(figures)
    }
}
