//! The feed: what the channels of covered rooms bring.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{keys::Keys, message};
use crate::{
    event::JobEvent,
    position::Positions,
    redis::Listener,
    store::{FeedItem, FeedSender, Rooms},
};

/// How often it is said that something else than messages came.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Hands what comes to the gateway.
pub struct FeedListener {
    keys: Keys,
    feed: FeedSender,
    /// What came last: on one server a message comes on the channel of each of its rooms, one after the other, and says
    /// for all of them what there is to say.
    last: Mutex<Option<(Positions, JobEvent)>>,
    garbage: Mutex<Garbage>,
}

/// How much came that nobody here wrote.
#[derive(Default)]
struct Garbage {
    count: u64,
    told: Option<Instant>,
}

impl FeedListener {
    pub fn new(keys: Keys, feed: FeedSender) -> Self {
        Self { keys, feed, last: Mutex::default(), garbage: Mutex::default() }
    }

    fn rooms(&self, channels: Vec<String>) -> Option<Rooms> {
        let rooms: Vec<_> = channels.iter().filter_map(|channel| self.keys.room_of(channel)).collect();
        (!rooms.is_empty()).then_some(Rooms::Some(rooms))
    }

    /// Reads what came; `None` for what was handed over already, an error for what nobody here wrote.
    fn read(&self, payload: Vec<u8>) -> Result<Option<FeedItem>, ()> {
        let text = String::from_utf8(payload).map_err(|_| ())?;
        if text.starts_with('{') {
            let notice = serde_json::from_str(&text).map_err(|_| ())?;
            return Ok(Some(FeedItem::Notice(Box::new(notice))));
        }
        let (positions, json) = message::read(&text).ok_or(())?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(there, event)| *there == positions && event.json().get() == json) {
            return Ok(None);
        }
        let arrival = message::arrival(positions, json).ok_or(())?;
        *last = Some((positions, arrival.event.clone()));
        Ok(Some(FeedItem::Event(arrival)))
    }

    fn complain(&self) {
        let mut garbage = self.garbage.lock().unwrap_or_else(PoisonError::into_inner);
        garbage.count += 1;
        if garbage.told.is_none_or(|told| told.elapsed() >= COMPLAINT_PAUSE) {
            tracing::warn!(
                messages = garbage.count,
                "the feed brings what nobody here wrote; it is left out"
            );
            *garbage = Garbage { count: 0, told: Some(Instant::now()) };
        }
    }
}

impl Listener for FeedListener {
    fn message(&self, payload: Vec<u8>) -> bool {
        match self.read(payload) {
            Ok(item) => item.is_none_or(|item| self.feed.try_send(item).is_ok()),
            Err(()) => {
                self.complain();
                true
            }
        }
    }

    fn restored(&self, channels: Vec<String>) -> bool {
        self.rooms(channels).is_none_or(|rooms| self.feed.try_send(FeedItem::Restored(rooms)).is_ok())
    }

    async fn interrupted(&self, channels: Vec<String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(rooms) = self.rooms(channels) {
            // Nobody follows a feed that is closed.
            let _there = self.feed.send(FeedItem::Interrupted(rooms)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::feed;

    #[tokio::test]
    async fn a_message_is_handed_over_once_and_garbage_is_not() {
        let (sender, mut feed) = feed::refusing();
        let listener = FeedListener::new(Keys::new(""), sender);
        let message = |seq: u64| {
            let time = r#""timestamp":"2023-11-14T22:13:20.123Z""#;
            let json = format!(
                r#"{{"event":"job:update","jobId":"j","status":"s","data":null,{time},"seq":{seq}}}"#
            );
            format!("j - - 5-{seq} {json}").into_bytes()
        };
        for payload in [message(1), message(1), b"x".to_vec(), vec![0xff], b"{}".to_vec(), message(2)] {
            assert!(listener.message(payload));
        }
        for seq in 1..=2 {
            let Some(FeedItem::Event(arrival)) = feed.recv().await else { panic!("no event") };
            assert_eq!(arrival.event.seq(), seq);
        }
        assert!(listener.restored(vec!["jobcast:feed:broadcast".to_owned()]));
        assert!(listener.restored(vec!["jobcast:log:{all-jobs}".to_owned()]));
        let restored = feed.recv().await;
        assert!(matches!(restored, Some(FeedItem::Restored(Rooms::Some(rooms))) if rooms.len() == 1));
        assert_eq!(listener.garbage.lock().unwrap().count, 2, "told once, and counted on");
    }
}
