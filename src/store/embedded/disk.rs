//! The ordered map in a folder, by fjall. A write that fails leaves fjall's database such that it can still be read,
//! and takes no more writes until it is closed and opened again; all that was committed is in its journal.

use std::{
    error::Error,
    io::{self, ErrorKind},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::{
    kv::{Fault, Limit, Order, Pairs, Writes},
    preflight,
};
use crate::store::{OpenError, StoreError};

/// How much is written in memory before it becomes a table on disk. At the most five such buffers exist at a time.
const WRITE_BUFFER: u64 = 8 * 1024 * 1024;

/// How much of what was read from tables is kept in memory.
const READ_CACHE: u64 = 16 * 1024 * 1024;

/// How much space there has to be before writing is tried again, where a commit found none.
const ROOM_TO_COMMIT: u64 = 1024 * 1024;

/// The same where the engine itself could not write, which needs to write a table or two.
const ROOM_TO_FLUSH: u64 = 2 * WRITE_BUFFER;

/// A folder that no second process may open.
pub struct Disk {
    path: PathBuf,
    /// `None` where it was closed to be opened again, and could not be.
    opened: RwLock<Option<Opened>>,
}

struct Opened {
    db: Database,
    entries: Keyspace,
}

/// The folder as it was at one moment.
pub struct View<'a> {
    path: &'a Path,
    snapshot: Snapshot,
    entries: &'a Keyspace,
}

impl View<'_> {
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value =
            self.snapshot.get(self.entries, key).map_err(|error| failed("read", self.path, &error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    pub fn scan(&self, range: Range<Vec<u8>>, order: Order, limit: Limit) -> Result<Pairs, StoreError> {
        let found = self.snapshot.range(self.entries, range);
        let pair =
            |guard: fjall::Guard| guard.into_inner().map(|(key, value)| (key.to_vec(), value.to_vec()));
        let found: fjall::Result<Pairs> = match order {
            Order::Ascending => limit.of(found.map(pair)),
            Order::Descending => limit.of(found.rev().map(pair)),
        };
        found.map_err(|error| failed("read", self.path, &error))
    }
}

impl Disk {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// Names the folder, what is wrong with it, and what would be right where that is not plain.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = open(path).map_err(|error| OpenError(error.0))?;
        Ok(Self { path: path.to_owned(), opened: RwLock::new(Some(opened)) })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Opened { entries, .. }) = &*opened else { return Err(self.closed()) };
        let value = entries.get(key).map_err(|error| failed("read", &self.path, &error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Reads the folder as it is at one moment.
    pub fn view<T>(&self, read: impl FnOnce(View<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Opened { db, entries }) = &*opened else { return Err(self.closed()) };
        read(View { path: &self.path, snapshot: db.snapshot(), entries })
    }

    pub fn commit(&self, writes: Writes) -> Result<(), Fault> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Opened { db, entries }) = &*opened else { return Err(Fault::passing(self.closed(), 0)) };
        let mut batch = db.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(entries, key, value),
                None => batch.remove(entries, key),
            }
        }
        batch.commit().map_err(|error| self.fault(&error))
    }

    /// Opens the folder again after a [`Fault`] that may pass, once there is room to write so many bytes. Until then
    /// it can be read as before. What the failed commit wrote is there afterwards, or nothing of it is.
    ///
    /// # Errors
    /// What still stands against it. Nothing is lost by trying again.
    pub fn reopen(&self, room: u64) -> Result<(), StoreError> {
        preflight::probe(&self.path, room).map_err(|error| refused(&self.path, &error))?;
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        // The old one has to go first: it holds the folder's lock.
        *opened = None;
        *opened = Some(open(&self.path)?);
        Ok(())
    }

    fn closed(&self) -> StoreError {
        StoreError(format!("the folder {} could not be opened again yet", self.path.display()))
    }

    fn fault(&self, error: &fjall::Error) -> Fault {
        match (error, io_error(error)) {
            // Something failed in the background. Trying tells whether it still would, and why.
            (fjall::Error::Poisoned, _) => match preflight::probe(&self.path, ROOM_TO_FLUSH) {
                Ok(()) => Fault::passing(failed("write", &self.path, error), ROOM_TO_FLUSH),
                Err(cause) => Fault::passing(refused(&self.path, &cause), ROOM_TO_FLUSH),
            },
            (_, Some(io)) if passes(io.kind()) => Fault::passing(refused(&self.path, io), ROOM_TO_COMMIT),
            // After any other failure of a disk nobody knows what it holds.
            _ => {
                let StoreError(said) = failed("write", &self.path, error);
                Fault::lasting(StoreError(format!("{said}; look after the disk, and start again")))
            }
        }
    }
}

fn open(path: &Path) -> Result<Opened, StoreError> {
    preflight::prepare(path).map_err(StoreError)?;
    let open = || {
        let db = Database::builder(path).cache_size(READ_CACHE).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER);
        let entries = db.keyspace("jobcast", options)?;
        Ok(Opened { db, entries })
    };
    // Some damage makes the engine panic.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| failed("open", path, &error)),
        Err(_) => Err(StoreError(format!("the folder {} is damaged", path.display()))),
    }
}

fn passes(kind: ErrorKind) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | ReadOnlyFilesystem | FileTooLarge)
}

fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// Why the system does not let the folder be written to.
fn refused(path: &Path, error: &io::Error) -> StoreError {
    let folder = path.display();
    StoreError(match error.kind() {
        ErrorKind::StorageFull => format!("the disk of the folder {folder} is full: {error}"),
        _ => format!("the folder {folder} cannot be written to: {error}"),
    })
}

fn failed(what: &str, path: &Path, error: &fjall::Error) -> StoreError {
    let folder = path.display();
    StoreError(match (error, io_error(error)) {
        (fjall::Error::Locked, _) => format!("the folder {folder} is in use by another process"),
        (fjall::Error::Poisoned, _) => format!("a write to the folder {folder} failed earlier"),
        (_, Some(io)) => format!("cannot {what} the folder {folder}: {io}"),
        (fjall::Error::InvalidVersion(_), _) => {
            format!("the folder {folder} holds data of another program, or of another version of this one")
        }
        (other, None) => format!("cannot {what} the folder {folder}, for it is damaged: {other:?}"),
    })
}
