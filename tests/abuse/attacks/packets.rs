//! Packets that no client of socket.io sends. Each is answered or, where the protocol does not allow that, ends the
//! connection; what became of each is noted.

use std::time::Duration;

use tokio::time::timeout;

use super::websocket::{BINARY, FINAL, frame, join, text};
use crate::{
    Failure,
    hand::{Hand, Line, contains},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The packets, each with a name to note it by.
fn packets() -> [(&'static str, Vec<u8>); 4] {
    let huge = r#"42/jobs,99999999999999999999["subscribe:jobs",{"jobId":"others-0"}]"#;
    let binary = r#"451-/jobs,7["subscribe:jobs",{"jobId":{"_placeholder":true,"num":0}}]"#;
    [
        ("nameless", text("42/jobs,7[1]")),
        ("escaped", text(r#"42/jobs,7["subscribe\u003ajobs",{"jobId":"others-0"}]"#)),
        ("huge ack id", text(huge)),
        ("binary", [text(binary), frame(FINAL | BINARY, b"others-0")].concat()),
    ]
}

pub async fn malformed(mut hand: Hand) -> Result<(), Failure> {
    for (name, packet) in packets() {
        let mut line = join(&hand).await?;
        line.send(&packet).await?;
        hand.note(&format!("{name} {}:", outcome(line).await));
        hand.pause(500).await;
    }
    Ok(())
}

/// What comes of a packet.
async fn outcome(mut line: Line) -> &'static str {
    let mut read = Vec::new();
    loop {
        match timeout(PATIENCE, line.take(4096)).await {
            Ok(Ok(more)) => read.extend(more),
            Ok(Err(_)) => return "ended the connection",
            Err(_) => return "was not answered",
        }
        if contains(&read, "43/jobs") {
            return "was acked";
        }
        if contains(&read, "exception") {
            return "was told of";
        }
    }
}
