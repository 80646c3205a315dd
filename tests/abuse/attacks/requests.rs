//! Attacks by requests that are right, too many of them, or sent in odd ways.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use crate::{
    Failure,
    hand::{Hand, status},
};

const CLOSE: &str = "Connection: close\r\n";

/// How often all hands publish in the same moment.
const WAVE: Duration = Duration::from_secs(6);

/// How many events of which size one publish has.
const EVENTS: usize = 60;
const EVENT: usize = 120_000;

/// All publishes of a wave are the same: one is stored, the others wait for that, with all their bytes.
pub async fn publish_bytes(hand: Hand) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let wave = now.as_millis() / WAVE.as_millis() + 1;
    let data = "x".repeat(EVENT);
    let event = |number| {
        let (job, id) = (number % 8, format!("{wave}-{number}"));
        format!(
            r#"{{"event":"job:update","jobId":"others-bytes-{job}","id":"{id}","status":"s","data":"{data}"}}"#
        )
    };
    let events: Vec<_> = (0..EVENTS).map(event).collect();
    let request = hand.post("/api/events", format!("[{}]", events.join(",")).as_bytes(), CLOSE);
    let mut line = hand.connect().await?;
    sleep(WAVE * u32::try_from(wave)? - now).await;
    line.send(&request).await?;
    hand.note(&status(&line.read_to_end().await?));
    Ok(())
}

pub async fn job_ids(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    loop {
        let path = format!("/api/jobs/others-{:x}/progress", hand.random.u64(..));
        line.send(&hand.post(&path, br#"{"progress":50}"#, "")).await?;
        line.until("timestamp").await?;
        hand.pause(40).await;
    }
}

/// How many of both one burst of a hand has.
const EMITS: usize = 250;
const BROADCASTS: usize = 50;

/// Emits to one user and broadcasts, as fast as the gateway takes them.
pub async fn bursts(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    let body = |length| format!(r#"{{"event":"burst","data":"{}"}}"#, "x".repeat(length));
    let emit = hand.post("/api/users/user-4/emit", body(20_000).as_bytes(), "");
    let broadcast = hand.post("/api/broadcast", body(2000).as_bytes(), "");
    loop {
        for request in std::iter::repeat_n(&emit, EMITS).chain(std::iter::repeat_n(&broadcast, BROADCASTS)) {
            line.send(request).await?;
            line.drain();
        }
        hand.pause(4000).await;
    }
}

pub async fn no_identity(mut hand: Hand) -> Result<(), Failure> {
    let headers = format!("{CLOSE}Accept-Encoding: *;q=0\r\n");
    let body = br#"{"progress":50}"#;
    let answer = hand.exchange(&hand.post("/api/jobs/others-identity/progress", body, &headers)).await?;
    hand.note(&status(&answer));
    hand.pause(500).await;
    Ok(())
}

pub async fn half_closed(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    line.send(&hand.post("/api/jobs/others-half/progress", br#"{"progress":50}"#, "")).await?;
    line.end().await?;
    let answer = line.read_to_end().await.unwrap_or_default();
    hand.note(&status(&answer));
    hand.pause(500).await;
    Ok(())
}
