//! A publisher's calls as bytes: which job each event is about, and what it says.

use std::io::Write;

use crate::names::Names;

/// What fills a message, so that a delivered event of a job room takes about 210 bytes with its frame.
const PADDING: &str = "reading rows";

/// What is published about.
#[derive(Clone)]
pub struct Topic {
    pub names: Names,
    /// How many jobs there are; events go round them.
    pub jobs: u32,
    /// Where jobs have users: how many jobs each user has.
    pub jobs_per_user: Option<u32>,
}

impl Topic {
    /// The index of the job that the `nth` event is about.
    pub fn job_of(&self, nth: u64) -> u32 {
        (nth % u64::from(self.jobs)) as u32
    }

    /// Writes the call that publishes the events from the `first` on, so many of them, sent at this time. `header` is one
    /// more line of its head, or nothing.
    pub fn put_call(&self, call: &mut Vec<u8>, header: &str, first: u64, events: usize, sent: u64) {
        let mut body = Vec::with_capacity(events * 160 + 2);
        let path = if events == 1 {
            self.put_event(&mut body, None, first, sent);
            format!("/api/jobs/{}/progress", self.names.job(self.job_of(first)))
        } else {
            for nth in first..first + events as u64 {
                body.push(if nth == first { b'[' } else { b',' });
                self.put_event(&mut body, Some(self.job_of(nth)), nth, sent);
            }
            body.push(b']');
            "/api/events".to_owned()
        };
        let _ = write!(
            call,
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{header}Content-Length: {}\r\n\r\n",
            body.len()
        );
        call.append(&mut body);
    }

    fn put_event(&self, body: &mut Vec<u8>, named: Option<u32>, nth: u64, sent: u64) {
        body.push(b'{');
        if let Some(job) = named {
            let _ = write!(body, r#""event":"job:progress","jobId":"{}","#, self.names.job(job));
        }
        let progress = 10 + nth % 90;
        let _ = write!(body, r#""progress":{progress},"message":"{sent:012} {PADDING}""#);
        if let Some(jobs_per_user) = self.jobs_per_user {
            let _ = write!(body, r#","userId":"{}""#, self.names.user(self.job_of(nth) / jobs_per_user));
        }
        body.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(topic: &Topic, first: u64, events: usize) -> (String, serde_json::Value) {
        let mut call = Vec::new();
        topic.put_call(&mut call, "", first, events, 1_234_567);
        let call = String::from_utf8(call).unwrap();
        let (head, body) = call.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn one_event_goes_to_its_job() {
        let topic = Topic { names: Names::fresh(), jobs: 10, jobs_per_user: None };
        let (line, body) = body(&topic, 13, 1);
        assert_eq!(line, format!("POST /api/jobs/{}/progress HTTP/1.1", topic.names.job(3)));
        assert_eq!(body, serde_json::json!({"progress": 23, "message": "000001234567 reading rows"}));
    }

    #[test]
    fn a_batch_goes_round_the_jobs() {
        let topic = Topic { names: Names::fresh(), jobs: 4, jobs_per_user: Some(2) };
        let (line, body) = body(&topic, 3, 3);
        assert_eq!(line, "POST /api/events HTTP/1.1");
        let told: Vec<_> =
            body.as_array().unwrap().iter().map(|event| (&event["jobId"], &event["userId"])).collect();
        let expected: Vec<_> = [3, 0, 1]
            .map(|job| {
                (serde_json::json!(topic.names.job(job)), serde_json::json!(topic.names.user(job / 2)))
            })
            .to_vec();
        assert_eq!(told, expected.iter().map(|(job, user)| (job, user)).collect::<Vec<_>>());
    }
}
