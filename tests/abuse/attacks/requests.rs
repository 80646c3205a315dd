//! Attacks by requests that are right, too many of them, or sent in odd ways.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use crate::{
    Failure,
    hand::{Hand, status},
};

const CLOSE: &str = "Connection: close\r\n";

/// How often all hands publish in the same moment.
const WAVE: Duration = Duration::from_secs(4);

/// How many publishes of a wave are new; the others repeat these under the same key.
const NEW: usize = 8;

pub async fn publish_bytes(hand: Hand) -> Result<(), Failure> {
    let number = hand.number % NEW;
    let body = format!(r#"{{"status":"s","data":"{}"}}"#, "x".repeat(120_000));
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let wave = now.as_millis() / WAVE.as_millis() + 1;
    let headers = format!("{CLOSE}Idempotency-Key: {wave}-{number}\r\n");
    let request = hand.post(&format!("/api/jobs/others-bytes-{number}/update"), body.as_bytes(), &headers);
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

/// A thousand emits to one user, and some broadcasts, as fast as one connection takes them.
pub async fn bursts(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    let body = |length| format!(r#"{{"event":"burst","data":"{}"}}"#, "x".repeat(length));
    let emits = hand.post("/api/users/user-4/emit", body(20_000).as_bytes(), "").repeat(10);
    let broadcasts = hand.post("/api/broadcast", body(2000).as_bytes(), "").repeat(10);
    loop {
        for _ in 0..30 {
            line.send(&emits).await?;
            line.take(1 << 16).await?;
        }
        for _ in 0..5 {
            line.send(&broadcasts).await?;
            line.take(1 << 16).await?;
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
