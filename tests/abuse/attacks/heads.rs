//! Attacks by heads of requests: slow ones, late ones, too many.

use std::time::Duration;

use crate::{
    Failure,
    hand::{Hand, Line},
};

const KEPT: Duration = Duration::from_secs(60);

/// How long a dripping head waits for its next byte.
const DRIP_MILLIS: u64 = 500;

async fn drip(hand: &mut Hand, line: &mut Line) -> Result<(), Failure> {
    line.send(b"GET /healthz HTTP/1.1\r\nX-Drip: ").await?;
    loop {
        line.send(b"d").await?;
        hand.pause(DRIP_MILLIS).await;
    }
}

/// A connection that has had its first answer.
async fn answered(hand: &Hand) -> Result<Line, Failure> {
    let mut line = hand.connect().await?;
    line.send(&hand.get("/healthz", "")).await?;
    line.until("200").await?;
    Ok(line)
}

pub async fn slowloris(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    drip(&mut hand, &mut line).await
}

pub async fn idle_later(hand: Hand) -> Result<(), Failure> {
    answered(&hand).await?.hold(KEPT).await
}

pub async fn dripping_later(mut hand: Hand) -> Result<(), Failure> {
    let mut line = answered(&hand).await?;
    drip(&mut hand, &mut line).await
}

pub async fn pipelining(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    let requests = hand.get("/openapi.json", "").repeat(100);
    loop {
        line.send(&requests).await?;
        hand.pause(200).await;
    }
}
