//! HTTP/2 with prior knowledge, on which answers must wait for a window that never opens.

use std::time::Duration;

use crate::{Failure, hand::Hand};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many requests one connection carries.
const STREAMS: u32 = 100;

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;

/// Ends headers and stream.
const WHOLE: u8 = 5;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET in HPACK: indexed where it is in the static table, else literal.
fn get(authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(4, path), (1, authority)] {
        block.extend([name, value.len() as u8]);
        block.extend(value.as_bytes());
    }
    block
}

pub async fn no_window(hand: Hand) -> Result<(), Failure> {
    let mut line = hand.connect().await?;
    line.send(PREFACE).await?;
    // The initial window: setting 4.
    line.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await?;
    let request = get(&hand.gateway.to_string(), "/api/jobs?limit=1000");
    for stream in 0..STREAMS {
        line.send(&frame(HEADERS, WHOLE, 2 * stream + 1, &request)).await?;
    }
    line.hold(Duration::from_secs(30)).await
}
