//! An ordered map from bytes to bytes, on disk or in memory.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{PoisonError, RwLock},
};

use super::disk::{self, Disk};
use crate::store::{OpenError, StoreError};

/// An ordered map from bytes to bytes with atomic, durable commits.
pub enum Kv {
    /// In a folder that no second process may open.
    Disk(Disk),
    /// In memory.
    Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>),
}

/// The map as it was at one moment.
pub enum View<'a> {
    Disk(disk::View<'a>),
    Memory(&'a BTreeMap<Vec<u8>, Vec<u8>>),
}

/// The way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// How much a scan may find: so many pairs, and of those the first whose values have so many bytes together, one at least.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub pairs: usize,
    pub bytes: usize,
}

impl From<usize> for Limit {
    fn from(pairs: usize) -> Self {
        Self { pairs, bytes: usize::MAX }
    }
}

impl Limit {
    /// The pairs that are within it.
    pub fn of<E>(self, pairs: impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), E>>) -> Result<Pairs, E> {
        let (mut found, mut taken) = (Pairs::new(), 0usize);
        for pair in pairs.take(self.pairs) {
            let (key, value) = pair?;
            taken = taken.saturating_add(value.len());
            if taken > self.bytes && !found.is_empty() {
                break;
            }
            found.push((key, value));
        }
        Ok(found)
    }
}

/// Keys with their new values; `None` removes.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Keys with their values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Why a commit failed. Whether its writes, all of them, turn up after the next opening is unknown. Until then there
/// are no further commits; what was committed before can be read.
#[derive(Debug, Clone)]
pub struct Fault {
    pub error: StoreError,
    /// How many bytes have to find place before it is of use to reopen; `None` where that would not be safe.
    pub reopen_with: Option<u64>,
}

impl Fault {
    pub fn passing(error: StoreError, room: u64) -> Self {
        Self { error, reopen_with: Some(room) }
    }

    pub fn lasting(error: StoreError) -> Self {
        Self { error, reopen_with: None }
    }
}

impl std::fmt::Debug for Kv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kv::Disk(_) => "Kv::Disk",
            Kv::Memory(_) => "Kv::Memory",
        })
    }
}

impl Kv {
    /// Opens or creates the folder.
    pub fn on_disk(path: &Path) -> Result<Self, OpenError> {
        Disk::open(path).map(Kv::Disk)
    }

    pub fn in_memory() -> Self {
        Kv::Memory(RwLock::default())
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Kv::Disk(disk) => disk.get(key),
            Kv::Memory(_) => self.view(|view| view.get(key)),
        }
    }

    /// See [`View::scan`].
    pub fn scan(
        &self,
        range: Range<Vec<u8>>,
        order: Order,
        limit: impl Into<Limit>,
    ) -> Result<Pairs, StoreError> {
        self.view(|view| view.scan(range, order, limit))
    }

    /// Reads the map as it is at one moment.
    pub fn view<T>(&self, read: impl FnOnce(&View<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self {
            Kv::Disk(disk) => disk.view(|view| read(&View::Disk(view))),
            Kv::Memory(map) => read(&View::Memory(&map.read().unwrap_or_else(PoisonError::into_inner))),
        }
    }

    /// Makes all the writes, or none. On disk when it returns.
    pub fn commit(&self, writes: Writes) -> Result<(), Fault> {
        match self {
            Kv::Disk(disk) => disk.commit(writes),
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

    /// Makes commits possible again after a [`Fault`]; see [`Disk::reopen`].
    pub fn reopen(&self, room: u64) -> Result<(), StoreError> {
        match self {
            Kv::Disk(disk) => disk.reopen(room),
            Kv::Memory(_) => Ok(()),
        }
    }
}

impl View<'_> {
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            View::Disk(view) => view.get(key),
            View::Memory(map) => Ok(map.get(key).cloned()),
        }
    }

    /// The first pairs of a range within `limit`, in the order asked for.
    pub fn scan(
        &self,
        range: Range<Vec<u8>>,
        order: Order,
        limit: impl Into<Limit>,
    ) -> Result<Pairs, StoreError> {
        let limit = limit.into();
        if range.is_empty() || limit.pairs == 0 {
            return Ok(Vec::new());
        }
        match self {
            View::Disk(view) => view.scan(range, order, limit),
            View::Memory(map) => {
                let found = map.range(range).map(|(key, value)| Ok((key.clone(), value.clone())));
                match order {
                    Order::Ascending => limit.of(found),
                    Order::Descending => limit.of(found.rev()),
                }
            }
        }
    }
}
