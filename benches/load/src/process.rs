//! Processes under test: started with a deadline, and stopped whatever happens.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::interrupt;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(3);

/// A process that is ended when this is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it writes to standard error goes to the file `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stderr(File::create(&log)?).spawn();
        let child = child.map_err(|error| format!("cannot start {program}: {error}"))?;
        Ok(Self { child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log, if it has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the process has ended ({status}): {}", tail(&self.log)).into()),
        }
    }

    /// The first line on its standard output that begins with `start`, without that. It must have been piped.
    pub fn line_after(&mut self, start: &str) -> Result<String, Error> {
        let output = self.child.stdout.take().ok_or("standard output is not piped")?;
        let (lines, printed) = mpsc::channel();
        // Goes on reading until the process ends, so that it never waits for a reader.
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
        });
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            interrupt::check()?;
            match printed.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return Ok(rest.trim().to_owned());
                    }
                }
                Err(_) => self.check()?,
            }
        }
        Err(format!("did not print “{start}…” within {START:?}: {}", tail(&self.log)).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
