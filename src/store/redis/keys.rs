//! The names of everything that Jobcast keeps in Redis (contract, section 5).

use crate::{
    event::IdempotencyKey,
    id::{ClientId, JobId},
    room::Room,
};

/// Names under one prefix, so that two gateways with different prefixes never meet.
///
/// A job's private keys and its channel carry the name of its history list as their hash tag, and so share its
/// slot in a cluster: one script may touch them all.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn history(&self, job: &JobId) -> String {
        format!("{}job-history:{job}", self.prefix)
    }

    pub fn state(&self, job: &JobId) -> String {
        self.of_job("state", job)
    }

    pub fn idempotency(&self, job: &JobId, key: &IdempotencyKey) -> String {
        format!("{}:{}", self.of_job("idempotency", job), key.as_str())
    }

    pub fn channel(&self, room: &Room) -> String {
        match room {
            Room::Job(job) => self.of_job("feed", job),
            other => format!("{}jobcast:feed:{other}", self.prefix),
        }
    }

    pub fn broadcast_channel(&self) -> String {
        format!("{}jobcast:feed:broadcast", self.prefix)
    }

    pub fn active(&self, room: &Room) -> String {
        format!("{}jobcast:active:{room}", self.prefix)
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
        assert_eq!(keys.channel(&Room::AllJobs), "p:jobcast:feed:all-jobs");
    }
}
