//! Ctrl-C and SIGTERM: everything that waits asks here, so that what was started is also stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::Error;

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Turns both signals into a wish that [`check`] reports.
pub fn watch() -> Result<(), Error> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(asked))?;
    }
    Ok(())
}

/// Whether somebody wants this process to end.
pub fn asked() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed))
}

/// An error once somebody wants this process to end.
pub fn check() -> Result<(), Error> {
    if asked() { Err("interrupted".into()) } else { Ok(()) }
}
