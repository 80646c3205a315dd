//! Attacks by what stands in a body.

use crate::{
    Failure,
    hand::{Hand, status},
};

const CLOSE: &str = "Connection: close\r\n";

/// Nearly as much as a batch may have.
const BATCH: usize = 8_000_000;

/// More than one event may have.
const ITEM: usize = 200_000;

async fn send(mut hand: Hand, path: &str, body: &[u8]) -> Result<(), Failure> {
    let answer = hand.exchange(&hand.post(path, body, CLOSE)).await?;
    hand.note(&status(&answer));
    hand.pause(2000).await;
    Ok(())
}

pub async fn large_items(hand: Hand) -> Result<(), Failure> {
    let data = "x".repeat(ITEM);
    let job = hand.number;
    let item =
        format!(r#"{{"event":"job:update","jobId":"others-large-{job}","status":"s","data":"{data}"}}"#);
    let items = vec![item.as_str(); BATCH / item.len()];
    let body = format!("[{}]", items.join(","));
    send(hand, "/api/events", body.as_bytes()).await
}

pub async fn million_items(hand: Hand) -> Result<(), Failure> {
    let body = format!("[{}1]", "1,".repeat(BATCH / 2));
    send(hand, "/api/events", body.as_bytes()).await
}

pub async fn deep_nesting(hand: Hand) -> Result<(), Failure> {
    let body = format!(r#"{{"status":"s","data":{}"#, "[".repeat(100_000));
    send(hand, "/api/jobs/others-deep/update", body.as_bytes()).await
}
