//! Attacks by answers that are large, and not read or slowly.

use std::time::Duration;

use crate::{
    Failure,
    hand::{Hand, Line},
    preload,
};

/// For how long an answer is not read.
const KEPT: Duration = Duration::from_secs(30);

/// How much a slow reader takes, and how long it waits then: 6 KB/s.
const SIP: usize = 1500;
const SIP_MILLIS: u64 = 250;

const JOBS: &str = "/api/jobs?limit=1000";

fn history(hand: &mut Hand) -> String {
    format!("/api/jobs/{}/history", preload::deep_job(&mut hand.random))
}

async fn asked(hand: &Hand, path: &str) -> Result<Line, Failure> {
    let mut line = hand.connect().await?;
    line.send(&hand.get(path, "")).await?;
    Ok(line)
}

pub async fn unread_jobs(hand: Hand) -> Result<(), Failure> {
    asked(&hand, JOBS).await?.hold(KEPT).await
}

pub async fn unread_history(mut hand: Hand) -> Result<(), Failure> {
    let path = history(&mut hand);
    asked(&hand, &path).await?.hold(KEPT).await
}

pub async fn unread_stream(hand: Hand) -> Result<(), Failure> {
    asked(&hand, "/api/events?since=0").await?.hold(KEPT).await
}

pub async fn slow_reader(mut hand: Hand) -> Result<(), Failure> {
    let path = if hand.number.is_multiple_of(2) { JOBS.to_owned() } else { history(&mut hand) };
    let mut line = asked(&hand, &path).await?;
    loop {
        line.take(SIP).await?;
        hand.pause(SIP_MILLIS).await;
    }
}

pub async fn gzip_reader(mut hand: Hand) -> Result<(), Failure> {
    let path = history(&mut hand);
    let mut line = hand.connect().await?;
    line.send(&hand.get(&path, "Accept-Encoding: gzip\r\nConnection: close\r\n")).await?;
    while let Ok(bytes) = line.take(1 << 16).await {
        drop(bytes);
    }
    hand.note("answers");
    Ok(())
}
