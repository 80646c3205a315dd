//! Attacks of one who may come in: all that a valid token or key allows, too much of it, and what it does not allow.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    polling,
    websocket::{join, open, text},
};
use crate::{
    Failure,
    credentials::{EVE, EVES_TENANT, bad_token, claims_of_eve, token},
    hand::{Hand, Line, contains, status},
    ledger::OF_OTHERS,
    preload,
};

/// For how long something is kept that does nothing more.
const KEPT: Duration = Duration::from_secs(30);

/// How long an answer may take that only is noted.
const PATIENCE: Duration = Duration::from_secs(2);

/// More rooms than one client may be in.
const ROOMS: usize = 150;

/// How many messages come at once, ten times a second: about as many as one client may send, and far beyond that.
const BURSTS: [usize; 2] = [90, 400];

pub async fn sockets(hand: Hand) -> Result<(), Failure> {
    join(&hand).await?.hold(KEPT).await
}

/// Jobs that have no event yet, as many as a client may watch and some more.
pub async fn pending_jobs(mut hand: Hand) -> Result<(), Failure> {
    join_rooms(&mut hand).await?.hold(KEPT).await
}

async fn join_rooms(hand: &mut Hand) -> Result<Line, Failure> {
    let mut line = join(hand).await?;
    for _ in 0..ROOMS {
        line.send(&text(&subscription(hand))).await?;
        line.drain();
    }
    Ok(line)
}

fn subscription(hand: &mut Hand) -> String {
    format!(r#"42/jobs,7["subscribe:jobs",{{"jobId":"{OF_OTHERS}pending-{:x}"}}]"#, hand.random.u32(..))
}

pub async fn comings_and_goings(hand: Hand) -> Result<(), Failure> {
    let line = join(&hand).await?;
    flood(hand, line, |hand| {
        let subscribe = subscription(hand);
        let packet = if hand.random.bool() {
            subscribe.clone()
        } else {
            subscribe.replace("subscribe", "unsubscribe")
        };
        text(&packet)
    })
    .await
}

pub async fn histories(hand: Hand) -> Result<(), Failure> {
    let line = join(&hand).await?;
    flood(hand, line, |hand| {
        let job = preload::deep_job(&mut hand.random);
        text(&format!(r#"42/jobs,7["history:jobs",{{"jobId":"{job}","limit":{}}}]"#, hand.random.u8(1..5)))
    })
    .await
}

/// Each good one has all rooms looked after.
pub async fn refreshes(mut hand: Hand) -> Result<(), Failure> {
    let line = join_rooms(&mut hand).await?;
    flood(hand, line, |hand| {
        let token = match hand.random.u8(0..4) {
            0 => bad_token(&mut hand.random),
            _ => token(&claims_of_eve()),
        };
        text(&format!(r#"42/jobs,7["auth:refresh",{{"token":"{token}"}}]"#))
    })
    .await
}

/// Sends bursts of messages, and reads whatever comes.
async fn flood(
    mut hand: Hand,
    mut line: Line,
    message: impl Fn(&mut Hand) -> Vec<u8>,
) -> Result<(), Failure> {
    loop {
        for _ in 0..BURSTS[hand.number % BURSTS.len()] {
            let message = message(&mut hand);
            line.send(&message).await?;
            line.drain();
        }
        hand.pause(100).await;
    }
}

/// Asks for all there ever was in its rooms, again and again, and reads nothing.
pub async fn unread_replays(mut hand: Hand) -> Result<(), Failure> {
    let mut line = join(&hand).await?;
    loop {
        let payload = match hand.random.u8(0..3) {
            0 => format!(r#""userId":"{EVE}""#),
            1 => format!(r#""tenantId":"{EVES_TENANT}""#),
            _ => format!(r#""jobId":"{}""#, preload::deep_job(&mut hand.random)),
        };
        line.send(&text(&format!(r#"42/jobs,7["subscribe:jobs",{{{payload},"since":0}}]"#))).await?;
        hand.pause(100).await;
    }
}

/// Answers and streams over HTTP that are not read.
pub async fn unread_answers(mut hand: Hand) -> Result<(), Failure> {
    let job = preload::deep_job(&mut hand.random);
    let path = match hand.number % 6 {
        0 => format!("/api/jobs/{job}/history?limit=1000"),
        1 => format!("/api/jobs?userId={EVE}&limit=1000"),
        2 => format!("/api/jobs/{job}/events?since=0"),
        3 => format!("/api/users/{EVE}/events?since=0"),
        4 => format!("/api/tenants/{EVES_TENANT}/events?since=0"),
        _ => format!("/api/jobs?tenantId={EVES_TENANT}&q=no-such-text"),
    };
    let mut line = hand.connect().await?;
    line.send(&hand.get(&path, "")).await?;
    line.hold(KEPT).await
}

/// Streams of jobs without events, as many as there may be.
pub async fn streams(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    let path = format!("/api/jobs/{OF_OTHERS}stream-{:x}/events", hand.random.u32(..));
    line.send(&hand.get(&path, "")).await?;
    let answer = line.take(4096).await?;
    hand.note(&status(&answer));
    line.hold(KEPT).await
}

/// Takes its own record over, and tries to take those of honest clients.
pub async fn takeovers(mut hand: Hand) -> Result<(), Failure> {
    let (name, whose) = match hand.random.bool() {
        true => (EVE.to_owned(), "own"),
        false => (format!("watcher-{}", hand.random.u8(0..100)), "another's"),
    };
    let mut line = open(&hand).await?;
    line.send(&text(&format!(r#"40/jobs,{{"clientId":"{name}"}}"#))).await?;
    let outcome = outcome(&mut line, &[("40/jobs,", "let in"), ("44/jobs,", "refused")]).await;
    hand.note(&format!("{whose} {outcome}"));
    hand.pause(50).await;
    Ok(())
}

/// Reads until one of these comes, each with a name.
async fn outcome(line: &mut Line, known: &[(&str, &'static str)]) -> &'static str {
    let mut read = Vec::new();
    while let Ok(Ok(more)) = timeout(PATIENCE, line.take(4096)).await {
        read.extend(more);
        if let Some((_, outcome)) = known.iter().find(|(text, _)| contains(&read, text)) {
            return outcome;
        }
    }
    "cut"
}

/// Sessions that poll, one after the other, each left as it is.
pub async fn polling_sessions(mut hand: Hand) -> Result<(), Failure> {
    loop {
        polling::join(&hand).await?;
        hand.note("sessions");
        hand.pause(20).await;
    }
}

/// Requests and sockets with tokens that are not good.
pub async fn bad_tokens(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    for _ in 0..200 {
        let token = bad_token(&mut hand.random);
        let wrong = hand.with(Some(token));
        line.send(&wrong.get("/api/jobs?userId=eve", "")).await?;
        line.until("unauthorized").await?;
        hand.note("401");
    }
    let nobody = hand.with(None);
    let mut line = open(&nobody).await?;
    let wrong = bad_token(&mut hand.random);
    line.send(&text(&format!(r#"40/jobs,{{"token":"{wrong}"}}"#))).await?;
    let outcome = outcome(&mut line, &[("40/jobs,", "let in"), ("44/jobs,", "sockets refused")]).await;
    hand.note(outcome);
    Ok(())
}

/// Publishes what it may as fast as it is answered, with a new job each time.
pub async fn publishes(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    let body = format!(r#"{{"progress":50,"userId":"{EVE}","tenantId":"{EVES_TENANT}"}}"#);
    loop {
        let path = format!("/api/jobs/{OF_OTHERS}{:x}/progress", hand.random.u64(..));
        line.send(&hand.post(&path, body.as_bytes(), "")).await?;
        let answer = line.take(4096).await?;
        hand.note(&status(&answer));
    }
}

/// Publishes to jobs of others, alone and in batches, tries to end them and to speak to everybody.
pub async fn forbidden_publishes(mut hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    let event = |number: usize| {
        let whose = if number.is_multiple_of(2) { OF_OTHERS } else { "" };
        format!(
            r#"{{"event":"job:update","jobId":"{whose}job-{number}","status":"s","tenantId":"{EVES_TENANT}"}}"#
        )
    };
    let events: Vec<_> = (0..20).map(event).collect();
    let batch = format!("[{}]", events.join(","));
    for (path, body) in [
        ("/api/jobs/job-1/completed", r#"{"result":1}"#),
        ("/api/events", batch.as_str()),
        ("/api/broadcast", r#"{"event":"burst","data":1}"#),
        ("/api/users/user-1/emit", r#"{"event":"burst","data":1}"#),
        ("/api/tokens", r#"{"sub":"user-1"}"#),
        ("/api/tokens", r#"{"ttl":"1s"}"#),
        ("/api/revocations", r#"{"sub":"user-1"}"#),
    ] {
        line.send(&hand.post(path, body.as_bytes(), "")).await?;
        let answer = line.take(8192).await?;
        hand.note(&format!("{path} {}:", status(&answer)));
        hand.pause(10).await;
    }
    Ok(())
}
