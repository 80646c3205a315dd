//! The servers under test: what each is called, needs and is started with.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::Deserialize;

use crate::credential::Credential;
use crate::error::Error;

/// A server under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Jobcast with its embedded store on disk.
    Jobcast,
    /// Jobcast on Redis.
    JobcastRedis,
    /// Jobcast with its embedded store in memory.
    JobcastMemory,
    /// Jobcast with its embedded store on disk, where publishers and watchers have an API key.
    JobcastKey,
    /// Jobcast with its embedded store on disk, where they have tokens.
    JobcastToken,
    /// A NestJS gateway with history in Redis.
    Nestjs,
    /// Bare socket.io on Node.
    Node,
    /// Bare socket.io on Bun.
    Bun,
    /// The hardware's limit with one write for each delivery.
    LimitWrite,
    /// The hardware's limit with pending deliveries written together.
    LimitCoalesce,
}

impl Subject {
    /// Its name on the command line and in tables.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it asks for.
    pub fn credential(self) -> Credential {
        match self {
            Subject::JobcastKey => Credential::Key,
            Subject::JobcastToken => Credential::Token,
            _ => Credential::None,
        }
    }
}

/// Where the programs are.
pub struct Programs {
    pub jobcast: PathBuf,
    pub limits: PathBuf,
    pub opponents: PathBuf,
}

/// How one subject is started.
pub struct Recipe {
    pub command: Command,
    pub needs_redis: bool,
}

#[derive(Deserialize)]
struct Opponent {
    command: Vec<String>,
    #[serde(default)]
    redis: bool,
}

impl Programs {
    /// How to start a subject so that it listens on a free port and says so. Jobcast runs with its defaults: no
    /// limit is raised for any load. `folder` is empty and its own;
    /// `nodes` is how many processes of it there will be.
    pub fn recipe(&self, subject: Subject, folder: &std::path::Path, nodes: usize) -> Result<Recipe, Error> {
        let mut recipe = match subject {
            Subject::Jobcast | Subject::JobcastKey | Subject::JobcastToken => {
                self.jobcast().env("JOBCAST_STORE__PATH", folder.join("data"))
            }
            Subject::JobcastMemory => self.jobcast().env("JOBCAST_STORE__PATH", ":memory:"),
            Subject::JobcastRedis => self.jobcast().with_redis(),
            Subject::Nestjs | Subject::Node | Subject::Bun => self.opponent(&subject.name())?,
            Subject::LimitWrite => self.limit("write"),
            Subject::LimitCoalesce => self.limit("coalesce"),
        };
        if subject == Subject::Nestjs && nodes > 1 {
            recipe = recipe.env("ADAPTER", "redis");
        }
        if !matches!(subject, Subject::Nestjs | Subject::Node | Subject::Bun) {
            // So that a config.toml of the working directory is not read.
            recipe.command.current_dir(folder);
        }
        recipe.command.envs(subject.credential().variables()).stdout(Stdio::piped());
        Ok(recipe)
    }

    fn jobcast(&self) -> Recipe {
        let mut command = Command::new(&self.jobcast);
        command.args(["--listen", "127.0.0.1:0"]).env_remove("REDIS_URL");
        Recipe { command, needs_redis: false }
    }

    fn limit(&self, kind: &str) -> Recipe {
        let mut command = Command::new(&self.limits);
        command.arg(kind).env("PORT", "0");
        Recipe { command, needs_redis: false }
    }

    fn opponent(&self, name: &str) -> Result<Recipe, Error> {
        let list = self.opponents.join("subjects.json");
        let opponents = std::fs::read(&list).map_err(|error| format!("{}: {error}", list.display()))?;
        let mut opponents: HashMap<String, Opponent> =
            serde_json::from_slice(&opponents).map_err(|error| format!("{}: {error}", list.display()))?;
        let opponent = opponents.remove(name).ok_or_else(|| format!("{} has no “{name}”", list.display()))?;
        let (program, arguments) = opponent.command.split_first().ok_or("an opponent without a command")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.opponents).env("PORT", "0").env_remove("REDIS_URL");
        Ok(Recipe { command, needs_redis: opponent.redis })
    }
}

impl Recipe {
    fn with_redis(self) -> Self {
        Self { needs_redis: true, ..self }
    }

    fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }
}
