//! The bars: what was measured beside what it is measured against.

use std::{fmt, time::Duration};

/// One bar.
struct Bar {
    what: &'static str,
    measured: String,
    bound: String,
    holds: bool,
    /// Whether it decides; else it is only told.
    counts: bool,
}

/// What a run came to.
#[derive(Default)]
pub struct Report {
    pub title: String,
    bars: Vec<Bar>,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// The memory before and at its peak, in MiB.
    pub memory: (u64, u64),
    /// The slowest probe, and the latency that one in a hundred deliveries exceeded.
    pub health: Duration,
    pub p99: Duration,
    /// What the hands of each attack noted.
    pub notes: Vec<(&'static str, String)>,
}

impl Report {
    /// Adds a bar that decides where it `counts`.
    pub fn bar(&mut self, what: &'static str, measured: String, bound: String, holds: bool, counts: bool) {
        self.bars.push(Bar { what, measured, bound, holds, counts });
    }

    pub fn holds(&self) -> bool {
        self.bars.iter().all(|bar| bar.holds || !bar.counts)
    }

    /// The report of one attack alone, in one line.
    pub fn line(&self, name: &str) -> String {
        let (idle, peak) = self.memory;
        let broken: Vec<_> = self.bars.iter().filter(|bar| !bar.holds).map(|bar| bar.what).collect();
        let notes = self.notes.first().map_or("", |(_, notes)| notes);
        format!(
            "{} {name:17} {idle:4} to {peak:4} MiB, p99 {:8.1?}, healthz {:8.1?}, [{notes}] not held: {}",
            if self.holds() { "ok  " } else { "FAIL" },
            self.p99,
            self.health,
            if broken.is_empty() { "nothing".to_owned() } else { broken.join(", ") },
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", if self.holds() { "ok  " } else { "FAIL" }, self.title)?;
        for Bar { what, measured, bound, holds, counts } in &self.bars {
            let mark = match (holds, counts) {
                (true, _) => "ok  ",
                (false, true) => "FAIL",
                (false, false) => "told",
            };
            writeln!(f, "  {mark} {what:28} {measured:44} {bound}")?;
        }
        for (name, notes) in self.notes.iter().filter(|(_, notes)| !notes.is_empty()) {
            writeln!(f, "       {name:28} {notes}")?;
        }
        for remark in &self.remarks {
            writeln!(f, "       {remark}")?;
        }
        Ok(())
    }
}
