//! The names of everything that Jobcast keeps in Redis (contract, section 5).

use crate::{
    id::{ClientId, JobId},
    room::Room,
};

/// Names under one prefix, so that two gateways with different prefixes never meet.
///
/// A job's state and its channel carry the name of its history list as their hash tag, another room's index and its
/// channel the name of the room: so in a cluster they share a slot, and one script may touch them.
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
        self.of_job("state", job)
    }

    pub fn channel(&self, room: &Room) -> String {
        match room {
            Room::Job(job) => self.of_job("feed", job),
            other => format!("{}{{{other}}}", self.channels()),
        }
    }

    pub fn broadcast_channel(&self) -> String {
        format!("{}jobcast:feed:broadcast", self.prefix)
    }

    /// The index of a room's active jobs; the job's own room has none.
    pub fn active(&self, room: &Room) -> String {
        format!("{}{{{room}}}", self.indexes())
    }

    /// What comes before the names of rooms other than a job's in the names of their indexes.
    pub fn indexes(&self) -> String {
        format!("{}jobcast:active:", self.prefix)
    }

    /// What comes before the names of rooms other than a job's in the names of their channels.
    pub fn channels(&self) -> String {
        format!("{}jobcast:feed:", self.prefix)
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

    /// The gateways that live.
    pub fn nodes(&self) -> String {
        format!("{}jobcast:nodes", self.prefix)
    }

    /// The gateways that have told one run of a server what their watchers have seen.
    pub fn told(&self, run: &str) -> String {
        format!("{}jobcast:told:{run}", self.prefix)
    }

    fn of_job(&self, table: &str, job: &JobId) -> String {
        format!("{}jobcast:{table}:{{{}}}", self.prefix, self.history(job))
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
        assert_eq!(keys.channel(&Room::Job(job)), "p:jobcast:feed:{p:job-history:j}");
        assert_eq!(keys.channel(&Room::AllJobs), "p:jobcast:feed:{all-jobs}");
        assert_eq!(keys.active(&Room::AllJobs), "p:jobcast:active:{all-jobs}");
    }
}
