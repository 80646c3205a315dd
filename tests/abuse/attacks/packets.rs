//! Packets that no client of socket.io sends. Each is answered or, where the protocol does not allow that, ends the
//! connection; what became of each is noted.

use super::websocket::{BINARY, FINAL, frame, join, text};
use crate::{
    Failure,
    hand::{Hand, contains},
};

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
        // What comes first is the answer: it watches nothing.
        let outcome = match line.take(4096).await {
            Ok(answer) if contains(&answer, "43/jobs") => "acked",
            Ok(answer) if contains(&answer, "exception") => "told",
            Ok(answer) if answer.first() == Some(&0x88) => "closed with a reason",
            Ok(_) => "answered otherwise",
            Err(_) => "cut or not answered",
        };
        hand.note(&format!("{name} {outcome}:"));
        hand.pause(500).await;
    }
    Ok(())
}
