//! What lies between gateways and Redis is cut, delayed, held, half closed and refused; Redis itself ends
//! connections, stands still, and gives up a feed that is too slow.

use std::time::Duration;

use clap::ValueEnum;
use tokio::time::sleep;

use crate::{
    Failure,
    gateway::Gateway,
    proxy::{Condition, Proxy, Way},
    redis::Redis,
    site::{DURABLE, Setting, at, readiness},
    trial::{Expectation, Trial},
    verdict::Verdict,
};

/// Long enough that Redis gives up a feed with the smallest buffers.
const PADDING: usize = 6000;

/// How soon a gateway has to be ready again after a fault.
const RECOVERY: Duration = Duration::from_secs(45);

/// What may happen in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    Cut,
    CutInCommand,
    CutInAnswer,
    /// All bytes are late.
    Delay,
    /// No bytes go for a while.
    Hold,
    /// No bytes go on the connections there are, ever again; new ones work.
    HoldOld,
    CloseToRedis,
    CloseToGateway,
    Refuse,
    KillFeed,
    KillCommands,
    /// Redis stands still.
    Freeze,
    /// Redis gives up feeds that are not read at once.
    SmallBuffers,
}

pub async fn run(setting: Setting) -> Result<Verdict, Failure> {
    let mut random = setting.random();
    let redis = setting.redis("redis", &DURABLE).await?;
    let proxy = Proxy::start(redis.address()).await?;
    let gateways = setting.gateways(3, proxy.address(), &[]).await?;
    let mut setup = setting.setup(&gateways, Expectation::Everything);
    setup.padding = PADDING;
    let mut trial = Trial::new(setup);
    trial.watch(setting.sizes.clients, at(&gateways)).await?;
    trial.publish();
    // Every fault has its turn before any has another one.
    let (mut turns, mut history, mut stuck) = (Vec::new(), Vec::new(), None);
    for _ in 0..setting.sizes.rounds {
        if turns.is_empty() {
            turns = setting.fault.map_or_else(|| Fault::value_variants().to_vec(), |only| vec![only]);
            random.shuffle(&mut turns);
        }
        let Some(fault) = turns.pop() else { break };
        proxy.disarm();
        history.push(fault);
        happen(fault, &proxy, &redis, &mut random, setting.full).await?;
        sleep(Duration::from_millis(random.u64(100..700))).await;
        // Now and then the next one comes before this one is over.
        if random.bool() && !are_ready(&gateways).await {
            stuck = Some(format!("after {history:?} not all gateways were ready within {RECOVERY:?}"));
            proxy.cut();
            break;
        }
    }
    sleep(Duration::from_secs(1)).await;
    if stuck.is_none() && !are_ready(&gateways).await {
        stuck = Some(format!("after {history:?} not all gateways were ready within {RECOVERY:?}"));
        proxy.cut();
    }
    let mut verdict = trial.finish().await?;
    verdict.complaints.extend(stuck);
    Ok(verdict)
}

async fn are_ready(gateways: &[Gateway]) -> bool {
    for gateway in gateways {
        if readiness(gateway.address(), true, RECOVERY).await.is_err() {
            return false;
        }
    }
    true
}

/// Lets a fault happen, and ends it.
pub async fn happen(
    fault: Fault,
    proxy: &Proxy,
    redis: &Redis,
    random: &mut fastrand::Rng,
    full: bool,
) -> Result<(), Failure> {
    let span = Duration::from_millis(random.u64(300..if full { 8000 } else { 1200 }));
    match fault {
        Fault::Cut => proxy.cut(),
        Fault::CutInCommand => proxy.cut_after(random.usize(1..20_000), Way::There),
        Fault::CutInAnswer => proxy.cut_after(random.usize(1..20_000), Way::Back),
        Fault::Delay => during(span, proxy, Condition::Slow(Duration::from_millis(random.u64(5..150)))).await,
        Fault::Hold => during(span, proxy, Condition::Held).await,
        Fault::HoldOld => proxy.hold_old(),
        Fault::CloseToRedis => proxy.close_half(Way::There),
        Fault::CloseToGateway => proxy.close_half(Way::Back),
        Fault::Refuse => {
            proxy.set(Condition::Refusing);
            proxy.cut();
            sleep(span.min(Duration::from_secs(3))).await;
            proxy.set(Condition::Normal);
        }
        Fault::KillFeed => redis.done(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?,
        Fault::KillCommands => redis.done(&["CLIENT", "KILL", "TYPE", "normal"]).await?,
        Fault::Freeze => {
            redis.signal("STOP")?;
            sleep(span.max(Duration::from_secs(1))).await;
            redis.signal("CONT")?;
        }
        Fault::SmallBuffers => {
            let key = "client-output-buffer-limit";
            redis.done(&["CONFIG", "SET", key, "pubsub 8kb 8kb 1"]).await?;
            // So slow a feed piles up in Redis.
            during(span, proxy, Condition::Held).await;
            sleep(Duration::from_millis(500)).await;
            redis.done(&["CONFIG", "SET", key, "pubsub 32mb 8mb 60"]).await?;
        }
    }
    Ok(())
}

async fn during(span: Duration, proxy: &Proxy, condition: Condition) {
    proxy.set(condition);
    sleep(span).await;
    proxy.set(Condition::Normal);
}
