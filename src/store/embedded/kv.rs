use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{PoisonError, RwLock},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::store::{OpenError, StoreError};

/// An ordered map from bytes to bytes with atomic, durable commits.
pub enum Kv {
    /// In a folder that no second process may open.
    Disk { db: Database, entries: Keyspace },
    /// In memory.
    Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>),
}

/// The way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// Keys with their new values; `None` removes.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

impl std::fmt::Debug for Kv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kv::Disk { .. } => "Kv::Disk",
            Kv::Memory(_) => "Kv::Memory",
        })
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        StoreError(match error {
            fjall::Error::Io(io) => io.to_string(),
            fjall::Error::Poisoned => "an earlier write failed; it needs a restart".to_owned(),
            other => other.to_string(),
        })
    }
}

impl Kv {
    /// Opens or creates the folder.
    pub fn on_disk(path: &Path) -> Result<Self, OpenError> {
        let open = || {
            std::fs::create_dir_all(path)?;
            let db = Database::builder(path).open()?;
            let entries = db.keyspace("jobcast", KeyspaceCreateOptions::default)?;
            Ok(Kv::Disk { db, entries })
        };
        open().map_err(|error: fjall::Error| {
            let folder = path.display();
            OpenError(match error {
                fjall::Error::Locked => format!("the folder {folder} is in use by another process"),
                other => format!("cannot open the folder {folder}: {}", StoreError::from(other).0),
            })
        })
    }

    pub fn in_memory() -> Self {
        Kv::Memory(RwLock::default())
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Kv::Disk { entries, .. } => Ok(entries.get(key)?.map(|value| value.to_vec())),
            Kv::Memory(map) => Ok(map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()),
        }
    }

    /// The first `limit` pairs of a range, in the order asked for.
    pub fn scan(&self, range: Range<Vec<u8>>, order: Order, limit: usize) -> Result<Pairs, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Kv::Disk { db, entries } => {
                // Without a snapshot a scan may see one part of a commit and miss another.
                let snapshot = db.snapshot();
                let pair = |guard: fjall::Guard| {
                    guard
                        .into_inner()
                        .map(|(key, value)| (key.to_vec(), value.to_vec()))
                        .map_err(StoreError::from)
                };
                let found = snapshot.range(entries, range);
                match order {
                    Order::Ascending => found.take(limit).map(pair).collect(),
                    Order::Descending => found.rev().take(limit).map(pair).collect(),
                }
            }
            Kv::Memory(map) => {
                let map = map.read().unwrap_or_else(PoisonError::into_inner);
                let found = map.range(range).map(|(key, value)| (key.clone(), value.clone()));
                Ok(match order {
                    Order::Ascending => found.take(limit).collect(),
                    Order::Descending => found.rev().take(limit).collect(),
                })
            }
        }
    }

    /// Makes all the writes, or none. On disk when it returns.
    pub fn commit(&self, writes: Writes) -> Result<(), StoreError> {
        match self {
            Kv::Disk { db, entries } => {
                let mut batch = db.batch().durability(Some(PersistMode::SyncData));
                for (key, value) in writes {
                    match value {
                        Some(value) => batch.insert(entries, key, value),
                        None => batch.remove(entries, key),
                    }
                }
                Ok(batch.commit()?)
            }
            Kv::Memory(map) => {
                let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
                for (key, value) in writes {
                    match value {
                        Some(value) => map.insert(key, value),
                        None => map.remove(&key),
                    };
                }
                Ok(())
            }
        }
    }
}
