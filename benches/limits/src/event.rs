//! Job events: what a publisher sends, and the packet that watchers get.

use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::Moment;

/// The most events that one call may bring.
pub const MAX_BATCH: usize = 1000;

/// The kind of event that is spoken here.
const NAME: &str = "job:progress";

/// What a publisher sends, alone or in a batch. Values pass through to the letter.
#[derive(Debug, Deserialize)]
pub struct Draft<'a> {
    event: Option<&'a str>,
    #[serde(rename = "jobId")]
    job: Option<&'a str>,
    #[serde(borrow)]
    progress: &'a RawValue,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(rename = "userId")]
    user: Option<&'a str>,
}

impl<'a> Draft<'a> {
    /// Reads one event whose job the call names.
    pub fn read(body: &'a [u8], job: &'a str) -> Option<Self> {
        let draft: Self = serde_json::from_slice(body).ok()?;
        Self { event: None, job: Some(job), ..draft }.valid()
    }

    /// Reads a batch of whole events.
    pub fn read_batch(body: &'a [u8]) -> Option<Vec<Self>> {
        let drafts: Vec<Self> = serde_json::from_slice(body).ok()?;
        let are_whole = drafts.iter().all(|draft| draft.event == Some(NAME));
        if drafts.len() > MAX_BATCH || !are_whole {
            return None;
        }
        drafts.into_iter().map(Self::valid).collect()
    }

    fn valid(self) -> Option<Self> {
        (self.job.is_some_and(is_id) && self.user.is_none_or(is_id)).then_some(self)
    }

    /// The job that it is about.
    pub fn job(&self) -> &'a str {
        self.job.unwrap_or_default()
    }

    /// The user that it names.
    pub fn user(&self) -> Option<&'a str> {
        self.user
    }

    /// Writes the packet that every watcher gets.
    pub fn write_packet(&self, at: &Moment, seq: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"42/jobs,["job:progress",{"event":"job:progress","jobId":""#);
        out.extend_from_slice(self.job().as_bytes());
        out.extend_from_slice(br#"","status":"in_progress","progress":"#);
        out.extend_from_slice(self.progress.get().as_bytes());
        if let Some(message) = self.message {
            out.extend_from_slice(br#","message":"#);
            out.extend_from_slice(message.get().as_bytes());
        }
        if let Some(user) = self.user {
            out.extend_from_slice(br#","userId":""#);
            out.extend_from_slice(user.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(br#","timestamp":""#);
        out.extend_from_slice(at.text());
        write!(out, r#"","seq":{seq}}}]"#).expect("a Vec takes all");
    }

    /// Writes what its publisher is answered.
    pub fn write_answer(&self, at: &Moment, seq: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"jobId":""#);
        out.extend_from_slice(self.job().as_bytes());
        write!(out, r#"","seq":{seq},"timestamp":""#).expect("a Vec takes all");
        out.extend_from_slice(at.text());
        out.extend_from_slice(br#""}"#);
    }
}

/// Whether a text is what jobs and users are called by: no character of it needs an escape anywhere.
pub fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn writes_fields_in_order_and_to_the_letter() {
        let at = Clock::new().now();
        let body = br#"{"userId":"u","message":"a\"\u00e9","progress":42.50,"more":[1]}"#;
        let draft = Draft::read(body, "b").unwrap();
        let (mut packet, mut answer) = (Vec::new(), Vec::new());
        draft.write_packet(&at, 7, &mut packet);
        draft.write_answer(&at, 7, &mut answer);
        let expected = format!(
            r#"42/jobs,["job:progress",{{"event":"job:progress","jobId":"b","status":"in_progress","progress":42.50,"message":"a\"\u00e9","userId":"u","timestamp":"{at}","seq":7}}]"#
        );
        assert_eq!(String::from_utf8(packet).unwrap(), expected);
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            format!(r#"{{"jobId":"b","seq":7,"timestamp":"{at}"}}"#)
        );
    }

    #[test]
    fn refuses_what_it_cannot_write() {
        assert!(Draft::read(b"{}", "b").is_none());
        assert!(Draft::read(br#"{"progress":1}"#, "a\"b").is_none());
        assert!(Draft::read(br#"{"progress":1,"userId":"a b"}"#, "b").is_none());
        assert!(Draft::read_batch(br#"[{"event":"job:update","jobId":"b","progress":1}]"#).is_none());
        assert!(Draft::read_batch(br#"[{"event":"job:progress","progress":1}]"#).is_none());
        let one = r#"{"event":"job:progress","jobId":"b","progress":1}"#;
        let batch = |count| format!("[{}]", vec![one; count].join(","));
        assert_eq!(Draft::read_batch(batch(MAX_BATCH).as_bytes()).unwrap().len(), MAX_BATCH);
        assert!(Draft::read_batch(batch(MAX_BATCH + 1).as_bytes()).is_none());
    }
}
