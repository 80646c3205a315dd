//! What must hold for whatever bytes come from outside: each target takes bytes, and asserts more than that nothing panics.
//! Property tests drive them with fresh bytes (`tests/fuzz/main.rs`), and a fuzzer by hand (`fuzz/`).

mod config;
mod edges;
mod frames;
mod json;
mod stores;
mod text;
mod tokens;

pub use self::{
    config::config,
    edges::{array_batches, line_batches, packets, requests},
    frames::{client_frames, server_frames},
    json::{drafts, members},
    stores::{entries, log_references, messages, notices, publish_answers, records},
    text::{ids, positions, rooms},
    tokens::{claims, credentials, key_sets, tokens},
};

/// What is asserted of bytes.
pub type Target = fn(&[u8]);

/// All targets by name. Each has a folder in `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Target); 22] = [
    ("array_batches", array_batches),
    ("claims", claims),
    ("client_frames", client_frames),
    ("config", config),
    ("credentials", credentials),
    ("drafts", drafts),
    ("entries", entries),
    ("ids", ids),
    ("key_sets", key_sets),
    ("line_batches", line_batches),
    ("log_references", log_references),
    ("members", members),
    ("messages", messages),
    ("notices", notices),
    ("packets", packets),
    ("positions", positions),
    ("publish_answers", publish_answers),
    ("records", records),
    ("requests", requests),
    ("rooms", rooms),
    ("server_frames", server_frames),
    ("tokens", tokens),
];

/// The most bytes of an error that a user sees, whatever was sent.
const MAX_ERROR: usize = 1024;

fn assert_short(error: &impl std::fmt::Display) {
    let error = error.to_string();
    assert!(error.len() <= MAX_ERROR, "an error of {} bytes: {error:.200}", error.len());
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
