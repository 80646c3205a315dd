//! How commands get to Redis: each goes to the server that holds its slot, and again where nothing can have come of it,
//! until it is answered or its time is up.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use tokio::time::Instant;

use super::{
    command::Command,
    error::Error,
    jittered,
    options::RedisOptions,
    server::{Answer, Outgoing, Server, Unanswered},
    slot_map::Slot,
    topology::Topology,
};

/// How long a command may take, all attempts included, before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// How long what [`Client::ping`] writes stays.
const PROBE_LIFETIME: Duration = Duration::from_secs(60);

/// How many keys are tried to find one of a slot that a server holds.
const PROBE_TRIES: u32 = 100_000;

/// A way to the servers. Cloning gives another handle on the same one.
#[derive(Debug, Clone)]
pub struct Client(Arc<Topology>);

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    value: Value,
    /// Whether as many replicas have it as `redis.wait_replicas` asks for, where the command has to wait for them.
    replicated: bool,
}

impl Reply {
    /// Reads the answer, if it counts.
    ///
    /// # Errors
    /// [`Error::NotReplicated`], or [`Error::Answer`] for another form.
    pub fn read<T: FromRedisValue>(self) -> Result<T, Error> {
        match self.replicated {
            true => Ok(redis::from_redis_value(self.value)?),
            false => Err(Error::NotReplicated),
        }
    }
}

/// What is to become of a command.
enum Verdict {
    Done(Result<Reply, Error>),
    /// Nothing came of it, or it may be repeated.
    Again(RedisError),
    /// Another server has its slot, or is about to.
    Elsewhere(Detour, RedisError),
}

/// Where a server sent a command on to, and whether that one has to be told so.
type Detour = (Arc<Server>, bool);

/// Commands that go to one server together.
struct Load {
    server: Arc<Server>,
    publishes: bool,
    places: Vec<(usize, bool)>,
}

impl Client {
    /// Connects, and fails if no server answers soon.
    ///
    /// # Errors
    /// [`Error::Options`] says what is wrong with them.
    pub async fn open(options: &RedisOptions) -> Result<Self, Error> {
        Ok(Self(Arc::new(Topology::open(options).await?)))
    }

    /// Keeps what is known of the servers true, until it is dropped.
    pub async fn follow(&self) {
        self.0.follow().await;
    }

    /// Whether keys of different slots may be on different servers.
    pub fn is_cluster(&self) -> bool {
        self.0.is_cluster()
    }

    /// The servers.
    pub(super) fn topology(&self) -> &Topology {
        &self.0
    }

    /// Sends one command, and reads its answer.
    ///
    /// # Errors
    /// [`Error`] says why there is none in time; the outcome of a command that may not be repeated is then unknown.
    pub async fn ask<T: FromRedisValue>(&self, command: Command) -> Result<T, Error> {
        self.send(vec![command]).await.pop().unwrap_or(Err(Error::Timeout))?.read()
    }

    /// Sends commands, and reads their answers, which are in order.
    ///
    /// # Errors
    /// As [`Client::ask`], where any of them fails.
    pub async fn ask_all<T: FromRedisValue>(&self, commands: Vec<Command>) -> Result<Vec<T>, Error> {
        self.send(commands).await.into_iter().map(|reply| reply?.read()).collect()
    }

    /// Whether every server that holds slots takes writes: a key is set on each that begins with `prefix` and expires.
    ///
    /// # Errors
    /// [`Error`] says why one does not.
    pub async fn ping(&self, prefix: &str) -> Result<(), Error> {
        let slots = self.0.slots();
        let key_on = |server: &Arc<Server>| {
            let mut keys = (0..PROBE_TRIES).map(|number| format!("{prefix}{number}"));
            keys.find(|key| slots.holds(server, Slot::of(key)))
        };
        let ping = |server: Arc<Server>| async move {
            match key_on(&server) {
                Some(key) => {
                    let mut set = redis::cmd("SET");
                    server.ask::<()>(set.arg(key).arg(1).arg("EX").arg(PROBE_LIFETIME.as_secs())).await
                }
                // The prefix has a hash tag, which leads elsewhere.
                None => server.ask::<()>(&redis::cmd("PING")).await,
            }
        };
        let answers = join_all(slots.servers().into_iter().map(ping));
        let answers = tokio::time::timeout(DEADLINE, answers).await.map_err(|_| Error::Timeout)?;
        answers.into_iter().collect::<Result<(), RedisError>>().map_err(Error::from)
    }

    /// Sends commands, pipelined, each to the server that holds its slot. The answers are in order; the commands of one
    /// slot are executed in order as long as none of them has to be sent again.
    pub async fn send(&self, commands: Vec<Command>) -> Vec<Result<Reply, Error>> {
        let deadline = Instant::now() + DEADLINE;
        let mut answers: Vec<Option<Result<Reply, Error>>> = commands.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..commands.len()).collect();
        let (mut detours, mut pause) = (HashMap::new(), PAUSES.0);
        while !open.is_empty() {
            let mut failure = None;
            let attempt = tokio::time::timeout_at(deadline, self.attempt(&commands, &open, &mut detours));
            let Ok(verdicts) = attempt.await else { break };
            for (place, verdict) in verdicts {
                match verdict {
                    Verdict::Done(answer) => answers[place] = Some(answer),
                    Verdict::Again(error) => failure = Some(error),
                    Verdict::Elsewhere(detour, error) => {
                        detours.insert(place, detour);
                        failure = Some(error);
                    }
                }
            }
            open.retain(|place| answers[*place].is_none());
            let Some(error) = failure else { break };
            let wait = jittered(pause);
            if Instant::now() + wait >= deadline {
                open.iter().for_each(|place| answers[*place] = Some(Err(error.clone().into())));
                break;
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(Error::Timeout))).collect()
    }

    /// Sends commands once.
    async fn attempt(
        &self,
        commands: &[Command],
        open: &[usize],
        detours: &mut HashMap<usize, Detour>,
    ) -> Vec<(usize, Verdict)> {
        let slots = self.0.slots();
        let mut verdicts = Vec::with_capacity(open.len());
        let mut loads: Vec<Load> = Vec::new();
        for place in open.iter().copied() {
            let Command { slot, publishes, .. } = commands[place];
            let holder = || slots.server_of(slot).map(|server| (server.clone(), false));
            let Some((server, asking)) = detours.remove(&place).or_else(holder) else {
                self.0.doubt();
                verdicts.push((place, Verdict::Again(no_server())));
                continue;
            };
            match loads
                .iter_mut()
                .find(|load| Arc::ptr_eq(&load.server, &server) && load.publishes == publishes)
            {
                Some(load) => load.places.push((place, asking)),
                None => loads.push(Load { server, publishes, places: vec![(place, asking)] }),
            }
        }
        let exchanges = loads.iter().map(|load| self.exchange(load, commands));
        verdicts.extend(join_all(exchanges).await.into_iter().flatten());
        verdicts
    }

    /// Sends commands to one server.
    async fn exchange(&self, load: &Load, commands: &[Command]) -> Vec<(usize, Verdict)> {
        let Load { server, publishes, places } = load;
        let outgoing = |(place, asking): &(usize, bool)| {
            let command = &commands[*place];
            Outgoing { command: command.encoded(*asking), tells_run: command.tells_run, asking: *asking }
        };
        let outgoing = places.iter().map(outgoing).collect();
        let answers = match publishes {
            true => server.publish(outgoing).await,
            false => server.send(outgoing).await,
        };
        let mut verdicts = Vec::with_capacity(places.len());
        match answers {
            Ok(answers) => {
                for ((place, _), answer) in places.iter().zip(answers) {
                    verdicts.push((*place, self.judge(server, &commands[*place], answer).await));
                }
            }
            Err(unanswered) => {
                self.0.doubt();
                verdicts.extend(places.iter().map(|(place, _)| match unanswered.clone() {
                    Unanswered::Cut(error) if !commands[*place].repeatable => {
                        (*place, Verdict::Done(Err(error.into())))
                    }
                    Unanswered::Unreachable(error) | Unanswered::Cut(error) => {
                        (*place, Verdict::Again(error))
                    }
                }));
            }
        }
        verdicts
    }

    async fn judge(&self, server: &Arc<Server>, command: &Command, answer: Answer) -> Verdict {
        let error = match answer.value {
            Ok(value) => return Verdict::Done(Ok(Reply { value, replicated: answer.replicated })),
            Err(error) => error,
        };
        let ErrorKind::Server(kind) = error.kind() else { return refused_or_again(error) };
        match (kind, &command.script) {
            // A server that has just started knows no scripts.
            (ServerErrorKind::NoScript, Some(text)) => {
                let mut load = redis::cmd("SCRIPT");
                let loaded = server.ask::<()>(load.arg("LOAD").arg(&**text)).await;
                Verdict::Again(loaded.err().unwrap_or(error))
            }
            (ServerErrorKind::Moved | ServerErrorKind::Ask, _) => {
                let asking = kind == ServerErrorKind::Ask;
                if !asking {
                    self.0.doubt();
                }
                match error.redirect_node().and_then(|(address, _)| self.0.server_at(address, server)) {
                    Some(other) => Verdict::Elsewhere((other, asking), error),
                    None => Verdict::Again(error),
                }
            }
            (ServerErrorKind::ReadOnly, _) => {
                // It was demoted, or is not promoted yet: whoever is master now may be behind the same address.
                server.reconnect();
                self.0.doubt();
                Verdict::Again(error)
            }
            (
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown,
                _,
            ) => {
                self.0.doubt();
                Verdict::Again(error)
            }
            _ => refused_or_again(error),
        }
    }
}

/// Errors that tell themselves that a later attempt may succeed.
fn refused_or_again(error: RedisError) -> Verdict {
    // A script that met keys of a slot on its way to another server.
    let on_its_way = error.detail().is_some_and(|detail| detail.contains("non local key"));
    match error.code() {
        Some("BUSY" | "NOREPLICAS") => Verdict::Again(error),
        _ if on_its_way => Verdict::Again(error),
        _ => Verdict::Done(Err(error.into())),
    }
}

fn no_server() -> RedisError {
    (ErrorKind::ClusterConnectionNotFound, "no server of the cluster holds the slot").into()
}
