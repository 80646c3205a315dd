//! The rooms that watchers ask for.

/// The room that a watcher asks for.
#[derive(Debug, Clone, Copy)]
pub enum Room {
    /// One job's.
    Job(u32),
    /// One user's.
    User(u32),
    /// All jobs.
    All,
}
