//! What one run stands on: the processes of a subject, with their Redis, or a server that runs already.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::credential::Credential;
use crate::error::Error;
use crate::interrupt;
use crate::proc::cpu_seconds;
use crate::process::Process;
use crate::redis::Redis;
use crate::subject::{Programs, Subject};

const ANNOUNCEMENT: &str = "listening on http://";

/// Everything that a run measures; what was started for it is ended when it is dropped.
pub struct Stage {
    /// In the order of dropping: servers before their Redis, and files last.
    processes: Vec<Process>,
    redis: Option<Redis>,
    _folder: Option<TempDir>,
    pids: Vec<u32>,
    servers: Vec<Server>,
}

/// A server that is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it asks for.
    pub credential: Credential,
}

/// Processor time so far, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cpu {
    /// Of all processes of the subject.
    pub servers: f64,
    /// Of its Redis, if it has one.
    pub redis: Option<f64>,
}

impl Stage {
    /// Starts so many processes of a subject, with files in a folder of their own below `scratch`.
    pub fn start(programs: &Programs, subject: Subject, nodes: usize, scratch: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(scratch)?;
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(scratch)?;
        let mut stage =
            Self { processes: Vec::new(), redis: None, _folder: None, pids: Vec::new(), servers: Vec::new() };
        for node in 0..nodes {
            let own = folder.path().join(format!("node-{node}"));
            std::fs::create_dir(&own)?;
            let mut recipe = programs.recipe(subject, &own, nodes)?;
            if recipe.needs_redis && stage.redis.is_none() {
                stage.redis = Some(Redis::start(folder.path())?);
            }
            if let Some(redis) = &stage.redis {
                recipe.command.env("REDIS_URL", redis.url());
            }
            let mut process = Process::start(&mut recipe.command, own.join("log"))?;
            let address = process.line_after(ANNOUNCEMENT)?;
            let address =
                address.trim_end_matches('/').parse().map_err(|_| format!("listens on “{address}”"))?;
            stage.pids.push(process.pid());
            stage.servers.push(Server { address, credential: subject.credential() });
            stage.processes.push(process);
        }
        stage._folder = Some(folder);
        Ok(stage)
    }

    /// A server on this machine that somebody else started.
    pub fn attach(pid: u32, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let servers = vec![Server { address, credential: Credential::None }];
        Self { processes: Vec::new(), redis: None, _folder: None, pids: vec![pid], servers }
    }

    /// The servers, in the order of their processes.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The servers' processes.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// What all have used of the processors so far.
    pub fn cpu(&self) -> Result<Cpu, Error> {
        let servers = self.pids.iter().map(|pid| cpu_seconds(*pid)).sum::<Result<f64, _>>()?;
        let redis = self.redis.as_ref().map(|redis| cpu_seconds(redis.pid())).transpose()?;
        Ok(Cpu { servers, redis })
    }

    /// An error, if one of the processes that were started has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// Lets things settle, and finds out early who did not survive it.
    pub fn rest(&mut self, time: Duration) -> Result<(), Error> {
        std::thread::sleep(time);
        interrupt::check()?;
        self.check()
    }
}

impl std::ops::Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let redis = self.redis.zip(earlier.redis).map(|(now, then)| now - then);
        Self { servers: self.servers - earlier.servers, redis }
    }
}

/// Where subjects keep their files. On a disk: where temporary files are in memory, a durable store would be measured without one.
pub fn scratch(root: &Path) -> PathBuf {
    root.join("target/bench-scratch")
}
