//! The watchdog: has an eye on the gateway's memory, on a thread that nothing holds up, and ends a gateway that would
//! take the machine's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::gateway::memory;

/// What no gateway may have, in MiB.
pub const CAP: u64 = 3000;

const GLANCE: Duration = Duration::from_millis(20);

/// The parts of a run, in their order. They are the windows of latencies too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Quiet,
    Attack,
    Calm,
}

/// An eye on one process.
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    phase: AtomicUsize,
    peaks: [AtomicU64; 3],
    /// Whether the gateway had to be ended.
    killed: AtomicBool,
    over: AtomicBool,
}

impl Watchdog {
    pub fn start(process: u32) -> Self {
        let shared = Arc::<Shared>::default();
        let own = shared.clone();
        let thread = Some(std::thread::spawn(move || own.watch(process)));
        Self { shared, thread }
    }

    pub fn enter(&self, phase: Phase) {
        self.shared.phase.store(phase as usize, Ordering::Relaxed);
    }

    /// The most that a phase has seen, in MiB.
    pub fn peak(&self, phase: Phase) -> u64 {
        self.shared.peaks[phase as usize].load(Ordering::Relaxed)
    }

    pub fn has_killed(&self) -> bool {
        self.shared.killed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn watch(&self, process: u32) {
        while !self.over.load(Ordering::Relaxed) {
            let now = memory(process);
            self.peaks[self.phase.load(Ordering::Relaxed)].fetch_max(now, Ordering::Relaxed);
            if now > CAP {
                self.killed.store(true, Ordering::Relaxed);
                if let Some(process) = Pid::from_raw(process.cast_signed()) {
                    // Fails only where it has ended already.
                    let _ = kill_process(process, Signal::KILL);
                }
                return;
            }
            sleep(GLANCE);
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // It panics nowhere.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
