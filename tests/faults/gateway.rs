//! A gateway as its operator runs it: a process, started, stopped, killed and started again at the same address.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::Failure;

/// How long a gateway may take to start.
const START: Duration = Duration::from_secs(60);

/// What a gateway runs on: environment variables, and a folder for its log.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub variables: Vec<(String, String)>,
    pub folder: PathBuf,
    pub name: String,
}

pub struct Gateway {
    configuration: Configuration,
    address: SocketAddr,
    process: Child,
}

impl Gateway {
    /// Starts one on a free port, and waits until it serves.
    pub async fn start(configuration: Configuration) -> Result<Self, Failure> {
        let (process, address) = spawn(&configuration, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        Ok(Self { configuration, address, process })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id, for tests/abuse.
    #[allow(dead_code)]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the process is still there, for tests/abuse.
    #[allow(dead_code)]
    pub fn lives(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again at the same address.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            match spawn(&self.configuration, self.address).await {
                Ok((process, _)) => {
                    self.process = process;
                    return Ok(());
                }
                // Its store may not be back yet, or a client's own port be the gateway's for a moment.
                Err(error) if begun.elapsed() > START => return Err(error),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Asks it to end (SIGTERM) and waits; at most `patience`.
    pub async fn terminate(&mut self, patience: Duration) -> Result<ExitStatus, Failure> {
        signal(&self.process, "TERM")?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                return Err(format!("{} has not ended within {patience:?}", self.configuration.name).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its resident memory, in MiB.
    pub fn memory(&self) -> u64 {
        memory(self.process.id())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The resident memory of a process, in MiB; 0 where there is none.
pub fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Sends a signal to a process of this trial.
pub fn signal(process: &Child, name: &str) -> Result<(), Failure> {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.id().to_string()).status()?;
    if sent.success() { Ok(()) } else { Err(format!("kill -{name} failed: {sent}").into()) }
}

async fn spawn(configuration: &Configuration, listen: SocketAddr) -> Result<(Child, SocketAddr), Failure> {
    let Configuration { variables, folder, name } = configuration;
    let log = OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))?;
    let binary = std::env::var("JOBCAST_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_jobcast").to_owned());
    let mut command = Command::new(binary);
    // Only what is said here counts, not what the machine is set up with.
    let own = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("JOBCAST_"));
    own.for_each(|name| {
        command.env_remove(name);
    });
    command.env_remove("REDIS_URL").env("JOBCAST_SERVER__LISTEN", listen.to_string());
    command.envs(variables.iter().map(|(name, value)| (name, value))).current_dir(folder);
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
    let out = process.stdout.take().ok_or("no standard output")?;
    let first = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map(|_| line)
    });
    let line = tokio::time::timeout(START, first).await;
    let address = match line {
        Ok(Ok(Ok(line))) => line.trim().strip_prefix("listening on http://").map(str::parse),
        _ => None,
    };
    match address {
        Some(Ok(address)) => Ok((process, address)),
        _ => {
            let _ = process.kill();
            process.wait()?;
            let log = folder.join(format!("{name}.log"));
            Err(format!("{name} does not start; its log is {}", log.display()).into())
        }
    }
}

/// The lines of a gateway's log that tell of a panic.
pub fn panics(log: &std::path::Path) -> Vec<String> {
    let Ok(file) = File::open(log) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.filter(|line| line.contains("panicked at")).take(3).collect()
}
