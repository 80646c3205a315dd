//! How this node speaks to Redis: every call goes to the server that holds its slot, and again where nothing can
//! have come of it, until it is answered or its time is up.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{
    ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use tokio::time::Instant;

use super::{
    call::Call,
    fence::{Fence, Run},
    node::{Borrowed, Node},
    servers::{RedisOptions, Servers},
};
use crate::store::{OpenError, StoreError};

/// How long a call may take, all attempts included, before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// How long a publish waits for replicas.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(1);

/// A way to the servers. Cloning gives another handle on the same one.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: Servers,
    wait_replicas: u32,
    fence: Fence,
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    pub value: Value,
    /// Whether as many replicas have it as `redis.wait_replicas` asks for, where the call has to wait for them.
    pub replicated: bool,
}

impl Reply {
    /// The value, if it counts.
    fn counted(self) -> Result<Value, StoreError> {
        match self.replicated {
            true => Ok(self.value),
            false => Err(not_replicated()),
        }
    }
}

/// Why a call that was executed does not count.
pub fn not_replicated() -> StoreError {
    StoreError("redis: not yet on as many replicas as redis.wait_replicas asks for".to_owned())
}

/// What is to become of a call.
enum Verdict {
    Done(Result<Reply, StoreError>),
    /// Nothing came of it, or it may be repeated.
    Again(RedisError),
    /// Another server has its slot, or is about to.
    Elsewhere(Arc<Node>, Ask, RedisError),
}

/// Whether a server has to be told that a call was sent on to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    No,
    Yes,
}

/// Calls that go to one server together.
struct Load {
    node: Arc<Node>,
    /// Whether they end with a wait for replicas.
    durable: bool,
    places: Vec<(usize, Ask)>,
}

type Detours = HashMap<usize, (Arc<Node>, Ask)>;

impl Link {
    /// Connects, and fails if no server answers soon.
    pub async fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        let servers = Servers::open(options).await?;
        let (wait_replicas, fence) = (options.wait_replicas, Fence::default());
        let link = Self(Arc::new(Inner { servers, wait_replicas, fence }));
        // Who has just come knows nothing that it could tell, and nobody to wait for.
        for run in link.runs().await.map_err(|error| OpenError(error.to_string()))? {
            link.fence().open(&run);
        }
        Ok(link)
    }

    /// The servers.
    pub fn servers(&self) -> &Servers {
        &self.0.servers
    }

    /// Which servers may be published to.
    pub fn fence(&self) -> &Fence {
        &self.0.fence
    }

    /// The runs of all servers that hold slots.
    pub async fn runs(&self) -> Result<Vec<Run>, StoreError> {
        let (nodes, mut runs) = (self.servers().slots().nodes(), Vec::new());
        for node in nodes {
            runs.push(node.commands().await?.run);
        }
        Ok(runs)
    }

    /// Sends one call, and reads its answer.
    ///
    /// # Errors
    /// [`StoreError`] says why there is none in time; the outcome of a call that may not be repeated is then
    /// unknown.
    pub async fn ask<T: FromRedisValue>(&self, call: Call) -> Result<T, StoreError> {
        let answer = self.send(vec![call]).await.pop();
        let answer = answer.unwrap_or_else(|| Err(StoreError("redis: no answer in time".to_owned())))?;
        Ok(redis::from_redis_value(answer.counted()?)?)
    }

    /// Sends calls, and reads their answers, which are in order.
    ///
    /// # Errors
    /// As [`Link::ask`], where any of them fails.
    pub async fn ask_all<T: FromRedisValue>(&self, calls: Vec<Call>) -> Result<Vec<T>, StoreError> {
        let answers = self.send(calls).await.into_iter();
        answers.map(|answer| Ok(redis::from_redis_value(answer?.counted()?)?)).collect()
    }

    /// Whether every server that holds slots answers.
    ///
    /// # Errors
    /// [`StoreError`] says why one does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let slots = self.servers().slots();
        let ping = |node: Arc<Node>| async move { node.ask::<()>(&redis::cmd("PING")).await };
        let answers = tokio::time::timeout(DEADLINE, join_all(slots.nodes().into_iter().map(ping))).await;
        let answers = answers.map_err(|_| StoreError("redis: no answer in time".to_owned()))?;
        answers.into_iter().collect::<Result<(), RedisError>>().map_err(StoreError::from)
    }

    /// Sends calls, pipelined, each to the server that holds its slot. The answers are in order; the calls of one
    /// slot are executed in order as long as none of them has to be sent again.
    pub async fn send(&self, calls: Vec<Call>) -> Vec<Result<Reply, StoreError>> {
        let deadline = Instant::now() + DEADLINE;
        let mut answers: Vec<Option<Result<Reply, StoreError>>> = calls.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..calls.len()).collect();
        let (mut detours, mut pause) = (Detours::new(), PAUSES.0);
        while !open.is_empty() {
            let mut failure = None;
            let attempt = tokio::time::timeout_at(deadline, self.attempt(&calls, &open, &detours));
            let Ok(verdicts) = attempt.await else { break };
            for (place, verdict) in verdicts {
                detours.remove(&place);
                match verdict {
                    Verdict::Done(answer) => answers[place] = Some(answer),
                    Verdict::Again(error) => failure = Some(error),
                    Verdict::Elsewhere(node, ask, error) => {
                        detours.insert(place, (node, ask));
                        failure = Some(error);
                    }
                }
            }
            open.retain(|place| answers[*place].is_none());
            let Some(error) = failure else { break };
            let wait = jittered(pause);
            if Instant::now() + wait >= deadline {
                let error = StoreError::from(error);
                open.iter().for_each(|place| answers[*place] = Some(Err(error.clone())));
                break;
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        let unanswered = || Err(StoreError("redis: no answer in time".to_owned()));
        answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    /// Sends calls once.
    async fn attempt(&self, calls: &[Call], open: &[usize], detours: &Detours) -> Vec<(usize, Verdict)> {
        let slots = self.servers().slots();
        let mut verdicts = Vec::with_capacity(open.len());
        let mut loads: Vec<Load> = Vec::new();
        for place in open.iter().copied() {
            let call = &calls[place];
            let durable = call.durable && self.0.wait_replicas > 0;
            let found = match detours.get(&place) {
                Some((node, ask)) => Some((node.clone(), *ask)),
                None => slots.node_of(call.slot).map(|node| (node.clone(), Ask::No)),
            };
            let Some((node, ask)) = found else {
                self.servers().doubt();
                verdicts.push((place, Verdict::Again(no_server())));
                continue;
            };
            match loads.iter_mut().find(|load| Arc::ptr_eq(&load.node, &node) && load.durable == durable) {
                Some(load) => load.places.push((place, ask)),
                None => loads.push(Load { node, durable, places: vec![(place, ask)] }),
            }
        }
        let exchanges = loads.iter().map(|load| self.exchange(load, calls));
        verdicts.extend(join_all(exchanges).await.into_iter().flatten());
        verdicts
    }

    /// Sends calls to one server.
    async fn exchange(&self, load: &Load, calls: &[Call]) -> Vec<(usize, Verdict)> {
        let Load { node, durable, places } = load;
        let line = if *durable { node.waiting().await } else { node.commands().await };
        let mut line = match line {
            Ok(line) => line,
            Err(error) => {
                self.servers().doubt();
                let again = |(place, _): &(usize, Ask)| (*place, Verdict::Again(error.clone()));
                return places.iter().map(again).collect();
            }
        };
        let mut pipe = Pipeline::with_capacity(places.len());
        for (place, ask) in places {
            match ask {
                Ask::Yes => pipe.cmd("ASKING").ignore().add_command(calls[*place].with_one_key()),
                Ask::No => pipe.add_command(calls[*place].command.clone()),
            };
        }
        pipe.ignore_errors();
        let mut same_connection = line.connection.clone();
        // Side by side, because what was executed has to be known also where the wait comes to nothing.
        let (answers, replicated) = tokio::join!(
            pipe.query_async::<Vec<RedisResult<Value>>>(&mut line.connection),
            self.replicated(*durable, &mut same_connection),
        );
        let mut verdicts = Vec::with_capacity(places.len());
        match answers {
            Ok(answers) => {
                for ((place, _), answer) in places.iter().zip(answers) {
                    let verdict = self.judge(node, &mut line, &calls[*place], answer, replicated).await;
                    verdicts.push((*place, verdict));
                }
            }
            Err(error) => {
                line.discard();
                self.servers().doubt();
                verdicts.extend(places.iter().map(|(place, _)| {
                    let unknown = || Verdict::Done(Err(error.clone().into()));
                    let repeatable = calls[*place].repeatable;
                    (*place, if repeatable { Verdict::Again(error.clone()) } else { unknown() })
                }));
            }
        }
        verdicts
    }

    /// Waits until enough replicas have what was sent on a connection before, where that is asked for.
    async fn replicated(&self, asked_for: bool, connection: &mut MultiplexedConnection) -> bool {
        if !asked_for {
            return true;
        }
        let timeout = u64::try_from(REPLICAS_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let mut wait = redis::cmd("WAIT");
        let wait = wait.arg(self.0.wait_replicas).arg(timeout).query_async::<u32>(connection).await;
        wait.is_ok_and(|replicas| replicas >= self.0.wait_replicas)
    }

    async fn judge(
        &self,
        node: &Arc<Node>,
        line: &mut Borrowed<'_>,
        call: &Call,
        answer: RedisResult<Value>,
        replicated: bool,
    ) -> Verdict {
        let error = match answer {
            Ok(value) => return Verdict::Done(Ok(Reply { value, replicated })),
            Err(error) => error,
        };
        let ErrorKind::Server(kind) = error.kind() else { return refused_or_again(error) };
        match kind {
            ServerErrorKind::NoScript => match &call.script {
                // A server that has just started knows no scripts.
                Some(text) => match load(line, text).await {
                    Ok(()) => Verdict::Again(error),
                    Err(error) => Verdict::Again(error),
                },
                None => Verdict::Done(Err(error.into())),
            },
            ServerErrorKind::Moved | ServerErrorKind::Ask => {
                let ask = if kind == ServerErrorKind::Ask { Ask::Yes } else { Ask::No };
                if ask == Ask::No {
                    self.servers().doubt();
                }
                match error.redirect_node().and_then(|(address, _)| self.servers().node_at(address, node)) {
                    Some(other) => Verdict::Elsewhere(other, ask, error),
                    None => Verdict::Again(error),
                }
            }
            ServerErrorKind::ReadOnly => {
                // It was demoted, or is not promoted yet: whoever is master now may be behind the same address.
                line.discard();
                self.servers().doubt();
                Verdict::Again(error)
            }
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown => {
                self.servers().doubt();
                Verdict::Again(error)
            }
            _ => refused_or_again(error),
        }
    }
}

async fn load(line: &mut Borrowed<'_>, text: &str) -> RedisResult<()> {
    let mut call = redis::cmd("SCRIPT");
    call.arg("LOAD").arg(text).query_async::<()>(&mut line.connection).await
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

/// Between half of a pause and all of it, so that those who failed together do not come back together.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
