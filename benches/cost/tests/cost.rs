//! The instructions that hot paths take, counted by Valgrind and held below bounds. Counts do not depend on how busy the
//! machine is, so unlike times they can fail a build. What a path costs is the difference between running it often and
//! running it a few times: starting and stopping cost the same in both.
//!
//! ```sh
//! cargo test --profile cost -p jobcast-cost -- --nocapture
//! ```
//!
//! A bound is about half more than what was counted when it was set (x86-64). Where a change is worth more than that,
//! raise its bound in the same commit; where it saves much, lower it.

#![allow(clippy::unwrap_used)]

#[path = "../../limits/tests/by_hand/mod.rs"]
mod by_hand;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use by_hand::{Publisher, Watcher};

/// Instructions that one of each may take.
mod bound {
    /// A publisher's body of 60 bytes becomes a draft.
    pub const PARSE: u64 = 9_200;
    /// A draft becomes an event with its bytes.
    pub const ACCEPT: u64 = 6_000;
    /// An event is published to the memory store, and nobody watches.
    pub const PUBLISH: u64 = 36_000;
    /// An event reaches one more session of its room.
    pub const OFFER: u64 = 400;
    /// An event is published over HTTP on an open connection.
    pub const PUBLISH_BY_HTTP: u64 = 107_000;
    /// An event reaches one more Socket.IO client over its WebSocket, by itself.
    pub const DELIVER_BY_SOCKETIO: u64 = 1_400;
}

/// How often a path is run, at least and in addition.
const FEW: u64 = 20;
const MORE: u64 = 100;

/// How many watchers are in a room, in addition.
const WATCHERS: u64 = 50;

fn start(arguments: &[&str]) -> Child {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env!("CARGO_BIN_EXE_jobcast-cost"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is installed (Debian: apt-get install valgrind)")
}

/// What Valgrind says of a process, which ends by itself or with its standard input.
fn counted(process: Child) -> u64 {
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    let (_, count) = said.split_once("Collected : ").expect("it tells what it has counted");
    count.split_whitespace().next().unwrap().parse().unwrap()
}

fn run(path: &str, times: u64, watchers: Option<u64>) -> u64 {
    let (times, watchers) = (times.to_string(), watchers.map(|watchers| watchers.to_string()));
    let arguments = [Some(path), Some(&times), watchers.as_deref()];
    counted(start(&arguments.into_iter().flatten().collect::<Vec<_>>()))
}

/// Publishes to a server, one event at a time, each of which reaches all watchers before the next.
fn run_server(times: u64, watchers: u64) -> u64 {
    let mut process = start(&["serve"]);
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").expect("it listens");
    let mut watchers: Vec<_> = (0..watchers).map(|_| Watcher::connect(address)).collect();
    for watcher in &mut watchers {
        watcher.subscribe(r#"{"jobId":"j"}"#, "job:j");
    }
    let mut publisher = Publisher::connect(address);
    for number in 0..times {
        let body = format!(r#"{{"progress":{},"message":"rendering picture 425 of 1,000"}}"#, number % 100);
        publisher.publish("/api/jobs/j/progress", &body);
        for watcher in &mut watchers {
            assert!(watcher.next().starts_with(r#"42/jobs,["job:progress","#));
        }
    }
    counted(process)
}

/// What one more time costs.
fn of_one(run: impl Fn(u64) -> u64) -> u64 {
    (run(FEW + MORE) - run(FEW)) / MORE
}

#[track_caller]
fn check(what: &str, count: u64, bound: u64) {
    println!("{what}: {count} instructions, {bound} at the most");
    assert!(count <= bound, "{what} takes {count} instructions, and may take {bound}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "counts optimised code: cargo test --profile cost -p jobcast-cost")]
fn parsing() {
    check("parsing a body", of_one(|times| run("parse", times, None)), bound::PARSE);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "counts optimised code: cargo test --profile cost -p jobcast-cost")]
fn accepting() {
    check("accepting a draft", of_one(|times| run("accept", times, None)), bound::ACCEPT);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "counts optimised code: cargo test --profile cost -p jobcast-cost")]
fn publishing_and_offering() {
    let publish = of_one(|times| run("deliver", times, Some(0)));
    let to_all = of_one(|times| run("deliver", times, Some(WATCHERS)));
    check("publishing an event", publish, bound::PUBLISH);
    check("offering it to a session", to_all.saturating_sub(publish) / WATCHERS, bound::OFFER);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "counts optimised code: cargo test --profile cost -p jobcast-cost")]
fn publishing_and_delivering_over_the_network() {
    let publish = of_one(|times| run_server(times, 0));
    let to_all = of_one(|times| run_server(times, WATCHERS));
    check("publishing an event over HTTP", publish, bound::PUBLISH_BY_HTTP);
    let deliver = to_all.saturating_sub(publish) / WATCHERS;
    check("delivering it over Socket.IO", deliver, bound::DELIVER_BY_SOCKETIO);
}
