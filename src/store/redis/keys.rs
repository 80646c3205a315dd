//! The names of everything that Jobcast keeps in Redis (contract, section 5).

use crate::{
    id::{ClientId, JobId},
    room::Room,
};

/// Names under one prefix, so that two gateways with different prefixes never meet.
///
/// A job's state carries the name of its history list as its hash tag, what belongs to another room the name of the room:
/// so in a cluster they share a slot, and one script may touch them. Channels have the names of keys: that of a job its
/// state's, that of another room its log's.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn history(&self, job: &JobId) -> String {
        format!("{}job-history:{job}", self.prefix)
    }

    pub fn state(&self, job: &JobId) -> String {
        format!("{}{{{}}}", self.states(), self.history(job))
    }

    fn states(&self) -> String {
        format!("{}jobcast:state:", self.prefix)
    }

    /// The log of a shared room.
    pub fn log(&self, room: &Room) -> String {
        format!("{}{{{room}}}", self.logs())
    }

    fn logs(&self) -> String {
        format!("{}jobcast:log:", self.prefix)
    }

    /// Where a cluster notes what was logged of each job in a shared room.
    pub fn logged(&self, room: &Room) -> String {
        format!("{}jobcast:logged:{{{room}}}", self.prefix)
    }

    /// The index of a shared room's active jobs.
    pub fn active(&self, room: &Room) -> String {
        format!("{}jobcast:active:{{{room}}}", self.prefix)
    }

    /// The revocations: subject → time, and their version.
    pub fn revocations(&self) -> String {
        format!("{}jobcast:revocations", self.prefix)
    }

    /// Where a server that is no cluster notes as what it ran when it wrote last.
    pub fn run(&self) -> String {
        format!("{}jobcast:run", self.prefix)
    }

    pub fn channel(&self, room: &Room) -> String {
        match room {
            Room::Job(job) => self.state(job),
            shared => self.log(shared),
        }
    }

    /// The room of a channel; that of broadcasts has none.
    pub fn room_of(&self, channel: &str) -> Option<Room> {
        let tag = |rest: &str| rest.strip_prefix('{')?.strip_suffix('}').map(str::to_owned);
        if let Some(rest) = channel.strip_prefix(&self.logs()) {
            return tag(rest)?.parse().ok();
        }
        let history = tag(channel.strip_prefix(&self.states())?)?;
        let job = history.strip_prefix(&self.prefix)?.strip_prefix("job-history:")?;
        Some(Room::Job(job.parse().ok()?))
    }

    pub fn broadcast_channel(&self) -> String {
        format!("{}jobcast:feed:broadcast", self.prefix)
    }

    /// What the names of keys begin with that show that a server takes writes.
    pub fn probes(&self) -> String {
        format!("{}jobcast:probe:", self.prefix)
    }

    pub fn client(&self, client: &ClientId) -> String {
        format!("{}client:{client}", self.prefix)
    }

    pub fn subscriptions(&self, client: &ClientId) -> String {
        format!("{}subscriptions:{client}", self.prefix)
    }

    pub fn clients(&self) -> String {
        format!("{}jobcast:clients", self.prefix)
    }

    pub fn sessions(&self, room: &Room) -> String {
        format!("{}jobcast:sessions:{room}", self.prefix)
    }

    pub fn node(&self, node: &str) -> String {
        format!("{}jobcast:node:{node}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_keys_share_its_slot() {
        let keys = Keys::new("p:");
        let job: JobId = "j".parse().unwrap();
        assert_eq!(keys.history(&job), "p:job-history:j");
        assert_eq!(keys.state(&job), "p:jobcast:state:{p:job-history:j}");
        assert_eq!(keys.log(&Room::AllJobs), "p:jobcast:log:{all-jobs}");
        for room in [Room::Job(job), Room::AllJobs, Room::User("u".parse().unwrap())] {
            assert_eq!(keys.room_of(&keys.channel(&room)), Some(room));
        }
        assert_eq!(keys.room_of(&keys.broadcast_channel()), None);
    }
}
