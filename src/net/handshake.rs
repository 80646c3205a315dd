//! The TLS handshake of a new connection, before HTTP: within a deadline, counted, and never more than a debug line.

use std::{io, time::Duration};

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::stream::Stream;
use crate::telemetry::OutcomeLabel;

/// What a peer is told that speaks HTTP where TLS is spoken. RFC 9110, section 15.5.1.
const NOT_HTTPS: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
                         content-length: 42\r\n\r\nThis port speaks HTTPS; write https://...\n";

/// The type of a record that begins a handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How a handshake ended.
enum Outcome {
    Done,
    Failed(io::Error),
    TimedOut,
    /// The peer speaks HTTP without TLS.
    NotTls,
}

/// Completes the TLS handshake of a stream, at once if it has none. Says whether HTTP may follow. Dropped, it leaves a stream
/// that cannot be used.
pub async fn complete(stream: &Stream, patience: Duration, outcomes: &Family<OutcomeLabel, Counter>) -> bool {
    if !stream.has_tls() {
        return true;
    }
    let outcome = match tokio::time::timeout(patience, attempt(stream)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::TimedOut,
    };
    let name = match &outcome {
        Outcome::Done => "done",
        Outcome::Failed(_) => "failed",
        Outcome::TimedOut => "timeout",
        Outcome::NotTls => "not_tls",
    };
    outcomes.get_or_create(&OutcomeLabel { outcome: name }).inc();
    if let Outcome::Failed(error) = &outcome {
        tracing::debug!(%error, "a TLS handshake failed");
    }
    matches!(outcome, Outcome::Done)
}

async fn attempt(stream: &Stream) -> io::Result<Outcome> {
    match stream.peek().await? {
        Some(first) if first != HANDSHAKE_RECORD && first.is_ascii_alphabetic() => {
            stream.end_unencrypted(NOT_HTTPS.as_bytes());
            Ok(Outcome::NotTls)
        }
        _ => stream.handshake().await.map(|()| Outcome::Done),
    }
}
