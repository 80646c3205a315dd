//! Attacks by sessions of Engine.IO that poll.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::websocket::UPGRADE;
use crate::{
    Failure,
    hand::{Hand, status},
};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const CLOSE: &str = "Connection: close\r\n";

/// For how long an upgrade is left open.
const HALF_UPGRADED: Duration = Duration::from_millis(500);

/// For how long a session is kept.
const KEPT: Duration = Duration::from_secs(25);

/// Begins a session. Answers its id.
async fn handshake(hand: &Hand) -> Result<String, Failure> {
    let answer = hand.exchange(&hand.get(POLLING, CLOSE)).await?;
    let text = String::from_utf8_lossy(&answer);
    let sid = text.split(r#""sid":""#).nth(1).and_then(|rest| rest.split('"').next());
    sid.map(str::to_owned).ok_or_else(|| "no session".into())
}

async fn post(hand: &Hand, sid: &str, packet: &str) -> Result<(), Failure> {
    let path = format!("{POLLING}&sid={sid}");
    let answer = hand.exchange(&hand.post(&path, packet.as_bytes(), CLOSE)).await?;
    if status(&answer) == "200" { Ok(()) } else { Err("refused".into()) }
}

async fn poll(hand: &Hand, sid: &str) -> Result<(), Failure> {
    let answer = hand.exchange(&hand.get(&format!("{POLLING}&sid={sid}"), CLOSE)).await?;
    if status(&answer) == "200" { Ok(()) } else { Err("ended".into()) }
}

/// A session in the namespace. Answers its id.
pub async fn join(hand: &Hand) -> Result<String, Failure> {
    let sid = handshake(hand).await?;
    post(hand, &sid, "40/jobs,").await?;
    poll(hand, &sid).await?;
    Ok(sid)
}

/// One whose upgrade was cut.
async fn jammed(hand: &Hand) -> Result<String, Failure> {
    let sid = join(hand).await?;
    let mut line = hand.connect().await?;
    line.send(&hand.get(&format!("/socket.io/?EIO=4&transport=websocket&sid={sid}"), UPGRADE)).await?;
    line.hold(HALF_UPGRADED).await?;
    Ok(sid)
}

pub async fn jam(mut hand: Hand) -> Result<(), Failure> {
    let sid = jammed(&hand).await?;
    let begun = Instant::now();
    while begun.elapsed() < KEPT {
        let asked = Instant::now();
        poll(&hand, &sid).await?;
        // A poll waits for something to send, as long as the heartbeat at the most.
        hand.note(if asked.elapsed() < Duration::from_millis(20) { "polls at once" } else { "polls" });
        hand.pause(200).await;
    }
    Ok(())
}

pub async fn jam_and_ask(mut hand: Hand) -> Result<(), Failure> {
    let sid = jammed(&hand).await?;
    let begun = Instant::now();
    while begun.elapsed() < KEPT {
        post(&hand, &sid, r#"42/jobs,7["subscribe:jobs",{}]"#).await?;
        hand.pause(200).await;
    }
    Ok(())
}

/// Twenty handshakes a second, whose sessions are left.
pub async fn handshake_flood(mut hand: Hand) -> Result<(), Failure> {
    let request = hand.get(POLLING, CLOSE);
    loop {
        // A page does not wait for its images.
        let told = match timeout(Duration::from_millis(30), hand.exchange(&request)).await {
            Ok(answer) => status(&answer?),
            Err(_) => "left".to_owned(),
        };
        hand.note(&told);
        hand.pause(30).await;
    }
}

pub async fn abandoned(mut hand: Hand) -> Result<(), Failure> {
    let sid = join(&hand).await?;
    for _ in 0..10 {
        let mut line = hand.connect().await?;
        line.send(&hand.get(&format!("{POLLING}&sid={sid}"), "")).await?;
        sleep(Duration::from_millis(50)).await;
        drop(line);
        hand.pause(500).await;
    }
    Ok(())
}
