//! WebSocket frames and Socket.IO on them, as little as attackers need.

use crate::{
    Failure,
    hand::{Hand, Line},
};

pub const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

/// The headers that ask for an upgrade.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub const FINAL: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const PING: u8 = 9;

/// A masked frame; its mask is all zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A whole text message.
pub fn text(payload: &str) -> Vec<u8> {
    frame(FINAL | TEXT, payload.as_bytes())
}

/// An open WebSocket.
pub async fn open(hand: &Hand) -> Result<Line, Failure> {
    let mut line = hand.connect().await?;
    line.send(&hand.get(PATH, UPGRADE)).await?;
    line.until("pingTimeout").await?;
    Ok(line)
}

/// One in the namespace.
pub async fn join(hand: &Hand) -> Result<Line, Failure> {
    let mut line = open(hand).await?;
    line.send(&text("40/jobs,{}")).await?;
    line.until("40/jobs,").await?;
    Ok(line)
}
