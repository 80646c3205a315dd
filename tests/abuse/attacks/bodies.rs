//! Attacks by bodies that never end.

use std::time::Duration;

use crate::{Failure, hand::Hand};

const KEPT: Duration = Duration::from_secs(30);

/// As much as a batch may have.
const BATCH: usize = 8 << 20;

const PATH: &str = "/api/jobs/others-body/update";

pub async fn endless(hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    line.send(&hand.post_head("/api/events", BATCH, "")).await?;
    line.send(b"[\"").await?;
    let piece = vec![b'x'; 1 << 16];
    for _ in 0..BATCH / piece.len() - 1 {
        line.send(&piece).await?;
    }
    line.hold(KEPT).await
}

pub async fn silent(hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    line.send(&hand.post_head(PATH, 100, "")).await?;
    line.hold(KEPT).await
}

pub async fn dripping(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    line.send(&hand.post_head(PATH, 100_000, "")).await?;
    line.send(&[b' '; 20_000]).await?;
    loop {
        line.send(b" ").await?;
        hand.pause(1000).await;
    }
}
