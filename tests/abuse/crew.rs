//! The crew: all hands of all attacks, at work on a thread of their own that gives way to others. What they use of the
//! processor is no part of what an attack costs.

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    runtime,
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    attacks::Attack,
    credentials::{self, Attackers},
    hand::{Hand, Notes},
};

/// Over how long hands begin.
const SPREAD_MILLIS: u64 = 1500;

/// How long one life lasts at most, before the hand begins anew.
const LIFE: Duration = Duration::from_secs(60);

/// About how long a hand takes to come back: what it costs to be cut must not be most of what attackers do.
const RETURN_MILLIS: u64 = 500;

/// From how many addresses an attack comes.
const SOURCES: usize = 4;

/// By how much the crew's thread gives way.
const NICE: i32 = 5;

/// Hands at work.
pub struct Crew {
    at_work: watch::Sender<bool>,
    thread: JoinHandle<Duration>,
    notes: Vec<(&'static str, Arc<Notes>)>,
}

impl Crew {
    /// Sets all hands of these attacks on a gateway.
    pub fn set_out(
        gateway: SocketAddr,
        attacks: &[&'static Attack],
        attackers: Attackers,
        full: bool,
        seed: u64,
    ) -> Self {
        let credential: Arc<str> = credentials::header(attackers.credential().as_deref()).into();
        let notes: Vec<_> = attacks.iter().map(|attack| (attack.name, Arc::<Notes>::default())).collect();
        let mut hands = Vec::new();
        let mut random = fastrand::Rng::with_seed(seed);
        for (attack, (_, notes)) in attacks.iter().zip(&notes) {
            for number in 0..attack.hands(full) {
                let source = match attackers.are_known() {
                    // One client is at one place.
                    true => [127, 0, 3, 1].into(),
                    false => {
                        [127, 0, attack.subnet(), 1 + (number % SOURCES.min(attack.sources)) as u8].into()
                    }
                };
                let (random, notes, credential) = (random.fork(), notes.clone(), credential.clone());
                let hand = Hand { gateway, source, number, round: 0, random, notes, credential };
                hands.push((*attack, hand));
            }
        }
        let (at_work, until) = watch::channel(true);
        let thread = std::thread::spawn(move || work(hands, until));
        Self { at_work, thread, notes }
    }

    /// Ends it, with all connections. Answers what the hands used of the processor, and what they noted.
    pub fn end(self) -> (Duration, Vec<(&'static str, String)>) {
        self.at_work.send_replace(false);
        let used = self.thread.join().unwrap_or_default();
        let notes = self.notes.into_iter().map(|(name, notes)| (name, notes.told())).collect();
        (used, notes)
    }
}

fn work(hands: Vec<(&'static Attack, Hand)>, mut until: watch::Receiver<bool>) -> Duration {
    // Without leave to be nice the figures are worse, no more.
    let _ = rustix::process::nice(NICE);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system has room for a runtime");
    for (attack, hand) in hands {
        runtime.spawn(lives(attack, hand));
    }
    runtime.block_on(async {
        // An error says that the trial is over.
        let _over = until.wait_for(|at_work| !*at_work).await;
    });
    processor_time()
}

/// One life after the other.
async fn lives(attack: &'static Attack, mut hand: Hand) {
    sleep(Duration::from_millis(hand.random.u64(0..SPREAD_MILLIS))).await;
    loop {
        let outcome = timeout(LIFE, (attack.life)(hand.clone())).await;
        match outcome {
            Ok(Ok(())) => hand.note("done"),
            Ok(Err(_)) => hand.note("cut"),
            Err(_) => hand.note("expired"),
        }
        hand.round += 1;
        hand.random = hand.random.fork();
        hand.pause(RETURN_MILLIS).await;
    }
}

/// What this thread has used of the processor.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // In hundredths of a second: the 14th and the 15th field.
    let ticks = behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}
