//! Drives one fuzz target, named by `JOBCAST_FUZZ_TARGET`, with libFuzzer.

#![no_main]

#[path = "../tests/fuzz/targets/mod.rs"]
mod targets;

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    let named = env::var("JOBCAST_FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|(name, _)| *name == named);
    target.unwrap_or_else(|| panic!("JOBCAST_FUZZ_TARGET must be one of {}", names.join(", "))).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
