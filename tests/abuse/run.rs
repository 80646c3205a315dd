//! A run: one gateway, a quiet time, the attack, a time of calm, and the end.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    Failure,
    attacks::Attack,
    bars::Report,
    credentials::Attackers,
    crew::Crew,
    gateway::{Configuration, Gateway, panics},
    honest::{self, HISTORY},
    preload,
    probe::Probe,
    trial::{Trial, http_client},
    watchdog::{CAP, Phase, Watchdog},
};

/// What memory may grow beyond the budget and what was there before: what the heap and the store hold back.
const SLACK: u64 = 64;

/// How many times `limits.memory` is too much on any machine: what is not bounded grows by gigabytes.
const FAR_BEYOND: u64 = 4;

/// What of the idle footprint may stay, in percent.
const BACK: u64 = 120;

/// How long `/healthz` may take.
const HEALTH: Duration = Duration::from_millis(100);

/// How long a newcomer may take.
const ENTRY: Duration = Duration::from_secs(2);

/// How much more than twice its quiet self the 99th percentile may be.
const GRACE: Duration = Duration::from_millis(50);

/// How long connections and caches take to be warm.
const WARMING: Duration = Duration::from_secs(1);

/// How long honest clients may take to have everything, and the gateway to end.
const FINISH: Duration = Duration::from_secs(180);
const END: Duration = Duration::from_secs(20);

/// What a run is run with.
pub struct Setting {
    /// Who attacks.
    pub attackers: Attackers,
    full: bool,
    seed: u64,
    /// The node's budget, in MiB.
    memory: u64,
    quiet: Duration,
    attack: Duration,
    calm: Duration,
    /// How many jobs of one large event there are.
    jobs: usize,
    watchers: usize,
}

impl Setting {
    pub fn new(attackers: Attackers, full: bool, seconds: Option<u64>, seed: u64) -> Self {
        let (memory, quiet, attack, calm, jobs, watchers) = match (attackers.are_known(), full) {
            (false, true) => (256, 15, 120, 60, 2000, 50),
            (false, false) => (128, 4, 12, 10, 1000, 50),
            (true, true) => (256, 15, 60, 60, 500, 500),
            (true, false) => (128, 3, 8, 3, 200, 100),
        };
        let [quiet, attack, calm] = [quiet, seconds.unwrap_or(attack), calm].map(Duration::from_secs);
        Self { attackers, full, seed, memory, quiet, attack, calm, jobs, watchers }
    }

    /// What the 99th percentile may be, by its quiet self.
    fn bound_of_p99(&self, quiet: Duration) -> Duration {
        // Beside one client alone everybody else is as quick.
        let grace = if self.attackers.are_known() { Duration::ZERO } else { GRACE };
        2 * quiet + grace
    }

    async fn gateway(&self, folder: &Path) -> Result<Gateway, Failure> {
        let variables = [
            ("JOBCAST_STORE__PATH", folder.join("store").to_string_lossy().into_owned()),
            ("JOBCAST_LIMITS__MEMORY", format!("{}MiB", self.memory)),
            ("JOBCAST_HISTORY__MAX_EVENTS", HISTORY.to_string()),
        ];
        let variables = variables.into_iter().chain(self.attackers.variables());
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).collect();
        Gateway::start(Configuration { variables, folder: folder.to_owned(), name: "gateway".to_owned() })
            .await
    }
}

/// Everything that a run consists of.
struct Run<'a> {
    setting: &'a Setting,
    gateway: Gateway,
    watchdog: Watchdog,
    trial: Trial,
    health: Probe,
    newcomers: Probe,
    report: Report,
}

/// Runs these attacks beside honest clients. The log of a gateway that does not hold is kept.
pub async fn run(attacks: &[&'static Attack], setting: &Setting) -> Result<Report, Failure> {
    let folder = tempfile::Builder::new().prefix("jobcast-abuse-").tempdir()?;
    let mut gateway = setting.gateway(folder.path()).await?;
    let random = fastrand::Rng::with_seed(setting.seed);
    let http = http_client(setting.attackers.publishers_key());
    preload::publish(gateway.address(), &http, setting.jobs, random).await?;
    if !gateway.lives() {
        return Err("the gateway has not survived the preload".into());
    }
    let mut run = Run {
        setting,
        watchdog: Watchdog::start(gateway.id()),
        trial: honest::begin(gateway.address(), setting.watchers, setting.attackers, setting.seed).await?,
        health: Probe::health(gateway.address()),
        newcomers: Probe::newcomers(gateway.address(), setting.attackers),
        gateway,
        report: Report::default(),
    };
    run.quiet().await;
    run.attack(attacks).await;
    run.calm().await;
    let mut report = run.end().await?;
    let panics = panics(&folder.path().join("gateway.log"));
    report.bar("panics", panics.join("; "), "none".to_owned(), panics.is_empty(), true);
    if !report.holds() {
        std::fs::remove_dir_all(folder.path().join("store"))?;
        report.remarks.push(format!("its log is in {}", folder.keep().display()));
    }
    Ok(report)
}

impl Run<'_> {
    fn enter(&self, phase: Phase) {
        self.watchdog.enter(phase);
        self.trial.context.latencies.switch(phase as usize);
        self.health.begin();
        self.newcomers.begin();
    }

    async fn quiet(&mut self) {
        self.trial.context.latencies.switch(Phase::Calm as usize);
        sleep(WARMING).await;
        self.enter(Phase::Quiet);
        sleep(self.setting.quiet).await;
        self.report.memory.0 = self.gateway.memory();
        let told = format!(
            "quiet: p50 {:.1?}, p99 {:.1?}, healthz at most {:.1?}, newcomers {:.1?}, {} MiB",
            self.quantile(Phase::Quiet, 0.5),
            self.quantile(Phase::Quiet, 0.99),
            self.health.slowest(),
            self.newcomers.slowest(),
            self.report.memory.0,
        );
        self.report.remarks.push(told);
    }

    fn quantile(&self, phase: Phase, share: f64) -> Duration {
        self.trial.context.latencies.quantile(phase as usize, share)
    }

    async fn attack(&mut self, attacks: &[&'static Attack]) {
        let Setting { attackers, full, seed, attack, watchers, .. } = *self.setting;
        let hands: usize = attacks.iter().map(|attack| attack.hands(full)).sum();
        self.report.title = format!(
            "{} attacks, by {attackers:?}, {hands} hands, {watchers} watchers, {attack:?}, limits.memory {} MiB, SEED={seed}",
            attacks.len(),
            self.setting.memory
        );
        self.enter(Phase::Attack);
        let begun = Instant::now();
        let crew = Crew::set_out(self.gateway.address(), attacks, attackers, full, seed);
        while begun.elapsed() < attack && self.gateway.lives() {
            sleep(Duration::from_millis(100)).await;
        }
        let took = begun.elapsed();
        self.bars_of_attack();
        let (used, notes) = tokio::task::block_in_place(|| crew.end());
        self.report.notes = notes;
        let cores = used.as_secs_f64() / took.as_secs_f64();
        self.report.remarks.push(format!("the attackers used {cores:.2} of a core, for {took:.1?}"));
    }

    fn bars_of_attack(&mut self) {
        let (watchdog, full) = (&self.watchdog, self.setting.full);
        let (idle, peak) = (self.report.memory.0, watchdog.peak(Phase::Attack));
        let bound = self.setting.memory + idle + SLACK;
        let p99 = self.quantile(Phase::Attack, 0.99);
        let (p50, bound_p99) =
            (self.quantile(Phase::Attack, 0.5), self.setting.bound_of_p99(self.quantile(Phase::Quiet, 0.99)));
        let (asked, unanswered) = self.health.counts();
        let (came, shut_out) = self.newcomers.counts();
        let (slowest, slowest_in) = (self.health.slowest(), self.newcomers.slowest());
        let report = &mut self.report;
        (report.memory.1, report.p99, report.health) = (peak, p99, slowest);
        let told = format!("{peak} MiB, {idle} before");
        report.bar("memory at its peak", told.clone(), format!("{bound} MiB"), peak <= bound, full);
        let most = FAR_BEYOND * self.setting.memory;
        report.bar("memory far beyond", told, format!("{most} MiB"), peak <= most, true);
        let told = format!("{p99:.1?} (p50 {p50:.1?})");
        report.bar("latency, p99", told, format!("{bound_p99:.1?}"), p99 <= bound_p99, full);
        let told = format!("{slowest:.1?} of {asked}, {unanswered} not answered");
        let healthy = slowest <= HEALTH && unanswered == 0 && asked > 0;
        report.bar("healthz at its slowest", told, format!("{HEALTH:?}"), healthy, full);
        let told = format!("{} of {came}, the slowest {slowest_in:.1?}", came - shut_out);
        let let_in = slowest_in <= ENTRY && shut_out == 0 && came > 0;
        report.bar("newcomers let in", told, format!("all, in {ENTRY:?}"), let_in, full);
    }

    async fn calm(&mut self) {
        self.enter(Phase::Calm);
        if !self.gateway.lives() {
            return;
        }
        sleep(self.setting.calm).await;
        let (after, bound) = (self.gateway.memory(), self.report.memory.0 * BACK / 100);
        let told = format!("{after} MiB after {:?}", self.setting.calm);
        let bar = (format!("{bound} MiB"), after <= bound, self.setting.full);
        self.report.bar("memory given back", told, bar.0, bar.1, bar.2);
    }

    /// What honest clients have, and how the gateway ends.
    async fn end(mut self) -> Result<Report, Failure> {
        let context = self.trial.context.clone();
        let losses = context.counts.losses.get();
        let told = format!("{losses} times");
        self.report.bar("honest clients cut off", told, "never".to_owned(), losses == 0, true);
        let unavailable = context.counts.unavailable.get();
        self.report.remarks.push(format!("publishers were answered 503 {unavailable} times"));
        let lives = self.gateway.lives();
        let told = match (lives, self.watchdog.has_killed()) {
            (true, _) => "lives".to_owned(),
            (false, true) => format!("was killed with more than {CAP} MiB"),
            (false, false) => "gone".to_owned(),
        };
        self.report.bar("the process", told, "lives".to_owned(), lives, true);
        if !lives {
            return Ok(self.report);
        }
        let (told, whole) = match timeout(FINISH, self.trial.finish()).await {
            Ok(verdict) => {
                let verdict = verdict?;
                self.report.remarks.push(verdict.to_string());
                (format!("{} of {}", verdict.delivered, verdict.expected), verdict.holds())
            }
            Err(_) => (format!("no end within {FINISH:?}"), false),
        };
        self.report.bar("events of honest clients", told, "all, once, in order".to_owned(), whole, true);
        let ended = self.gateway.terminate(END).await;
        let told = ended.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        let clean = ended.is_ok_and(|status| status.success());
        self.report.bar("end by SIGTERM", told, "exit status: 0".to_owned(), clean, true);
        Ok(self.report)
    }
}
