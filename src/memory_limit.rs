//! How much memory the process may use.

use std::fs;

/// The memory of the machine, or of the control group if that allows less, in bytes.
pub fn available() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit.max(1)));
    group_limit().map_or(machine, |limit| limit.min(machine))
}

/// The limit of the control group (version 2, then 1). `None` if there is none.
fn group_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
}
