//! Where, when and with what was measured: without that no number means anything.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::subject::Programs;

/// The computer and its programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Programs and their versions, as far as they are there.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// This one, with these programs.
    pub fn this(programs: &Programs) -> Self {
        Self {
            cpu: value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_gib().unwrap_or(0),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            versions: versions(programs),
        }
    }

    /// Whether figures measured there may stand beside figures measured here.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.cpu, self.cores, self.memory_gib) == (&other.cpu, other.cores, other.memory_gib)
    }
}

/// One invocation: what its figures have in common, and those of another one may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it began.
    pub date: String,
    /// The revision of the repository; "+" where files differ from it.
    pub revision: Option<String>,
    /// Whether these were short runs, which measure little.
    pub quick: bool,
}

impl Run {
    /// Begins now, with the repository at `root`.
    pub fn now(root: &Path, quick: bool) -> Self {
        let date = chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string();
        Self { date, revision: revision(root), quick }
    }
}

fn versions(programs: &Programs) -> Vec<(String, String)> {
    let asked = [
        ("jobcast", first_line(Command::new(&programs.jobcast).arg("--version"))),
        ("redis-server", first_line(Command::new("redis-server").arg("--version"))),
        ("node", first_line(Command::new("node").arg("--version"))),
    ];
    let asked =
        asked.into_iter().filter_map(|(name, version)| Some((name.to_owned(), short(name, &version?))));
    asked.chain(packages(&programs.opponents)).collect()
}

/// "Redis server v=7.0.15 sha=…" is 7.0.15, "jobcast 0.1.0" is 0.1.0.
fn short(name: &str, version: &str) -> String {
    let mut numbered = version.split(' ').map(|word| word.trim_start_matches("v=").trim_start_matches('v'));
    let number = numbered.find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    number.unwrap_or_else(|| version.trim_start_matches(name).trim()).to_owned()
}

/// The opponents' installed packages, as their own package.json asks for them.
fn packages(opponents: &Path) -> Vec<(String, String)> {
    let json =
        |path: &Path| -> Option<serde_json::Value> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
    let own = json(&opponents.join("package.json"));
    let wanted = own.as_ref().and_then(|own| own["dependencies"].as_object());
    let names = wanted.into_iter().flat_map(|wanted| wanted.keys());
    let version = |name: &String| {
        let package = json(&opponents.join("node_modules").join(name).join("package.json"))?;
        Some((name.clone(), package["version"].as_str()?.to_owned()))
    };
    names.filter_map(version).collect()
}

fn revision(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        first_line(Command::new("git").arg("--no-optional-locks").arg("-C").arg(root).args(arguments))
    };
    let revision = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if changed { format!("{revision}+") } else { revision })
}

/// What a program prints first, if it succeeds and prints anything.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

fn memory_gib() -> Option<u64> {
    let kib: u64 = value("/proc/meminfo", "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    Some((kib + (1 << 19)) >> 20)
}

fn value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_cut_out() {
        assert_eq!(short("redis-server", "Redis server v=7.0.15 sha=0 malloc=jemalloc"), "7.0.15");
        assert_eq!(short("jobcast", "jobcast 0.1.0"), "0.1.0");
        assert_eq!(short("node", "v20.1.0"), "20.1.0");
    }

    #[test]
    fn this_machine_is_known() {
        let nowhere = || std::path::PathBuf::from("/nowhere");
        let programs = Programs { jobcast: nowhere(), limits: nowhere(), opponents: nowhere() };
        let machine = Machine::this(&programs);
        assert!(machine.cores > 0 && machine.memory_gib > 0 && !machine.kernel.is_empty());
        assert!(!machine.versions.iter().any(|(name, _)| name == "jobcast"));
        assert!(Run::now(&nowhere(), true).revision.is_none());
    }
}
