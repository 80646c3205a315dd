//! The folder itself, before the engine opens it: whether it can be written to, and holds what it should.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
};

use xxhash_rust::xxh3::xxh3_128;

use super::journal_check::{self, Found};

/// The file by which writing is tried.
const PROBE: &str = "probe";

/// The engine's own names.
const LOCK: &str = "lock";
const VERSION: &str = "version";
const OURS: &[u8] = b"FJL\x03";
const TREES: &str = "keyspaces";
const META: &str = "0";
const CURRENT: &str = "current";

/// Tries whether the folder takes so many bytes.
///
/// # Errors
/// Whatever the system says to that.
pub fn probe(path: &Path, bytes: u64) -> io::Result<()> {
    let path = path.join(PROBE);
    let tried = fill(&path, bytes);
    tried.and(remove(&path))
}

fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    const BLOCK: usize = 64 * 1024;
    let mut file = File::create(path)?;
    // Not zeros, which some file systems store without taking space.
    let block = [0x5a; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(BLOCK as u64);
        file.write_all(&block[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}

/// Creates the folder where it is missing, and makes sure that it can be opened: that the engine will neither refuse
/// what a crash left, nor take damage for emptiness.
///
/// # Errors
/// What is wrong, in a sentence that names the folder.
pub fn prepare(path: &Path) -> Result<(), String> {
    let folder = path.display();
    if path.exists() && !path.is_dir() {
        return Err(format!("cannot open the folder {folder}: there is a file of that name"));
    }
    create(path).map_err(|error| format!("cannot create the folder {folder}: {error}"))?;
    match probe(path, 0) {
        // What is there can be read.
        Err(error) if error.kind() != ErrorKind::StorageFull => {
            return Err(format!("the folder {folder} cannot be written to: {error}"));
        }
        _ => {}
    }
    match check(path) {
        Ok(None) => Ok(()),
        Ok(Some(damage)) => {
            Err(format!("the folder {folder} is damaged: {damage}; put a copy in its place, or name another"))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(format!("the folder {folder} is in use by another process"))
        }
        Err(error) => Err(format!("cannot open the folder {folder}: {error}")),
    }
}

/// Answers the damage that there is, and clears away what a crash left half-done.
fn check(path: &Path) -> io::Result<Option<String>> {
    // Nobody else may look, or work, in the meantime.
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
    lock.try_lock()?;
    let version = match fs::read(path.join(VERSION)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let complete = version.len() >= OURS.len();
    if complete && version != OURS {
        // Whatever else it holds, the engine refuses it.
        return Ok(None);
    }
    let journals = names(path)?.into_iter().filter(|name| name.ends_with(".jnl")).collect::<Vec<_>>();
    let mut written = false;
    for name in &journals {
        let journal = path.join(name);
        match journal_check::examine(&journal)? {
            Found::Whole(bytes) => written |= bytes > 0,
            Found::CutShort(bytes) => {
                written |= bytes > 0;
                let file = OpenOptions::new().write(true).open(&journal)?;
                tracing::info!(journal = %journal.display(), from = bytes, "undoing a write that was cut short");
                file.set_len(bytes)?;
                file.sync_all()?;
            }
            Found::Damaged(bytes) => return Ok(Some(format!("{name} cannot be read from byte {bytes} on"))),
        }
    }
    let folder = path.join(TREES);
    let trees = if folder.exists() { names(&folder)? } else { Vec::new() };
    if complete {
        let missing = match journals.is_empty() {
            true => Some("its journal (*.jnl)".to_owned()),
            false => missing_tree(&folder, &trees, written)?,
        };
        return match missing {
            Some(missing) => Ok(Some(format!("{missing} is missing"))),
            None => damaged_manifest(&folder, &trees),
        };
    }
    if written || !trees.is_empty() {
        return Ok(Some(format!("{VERSION} is missing, or cut short")));
    }
    // A first start that was cut short, before anything was stored: the engine takes none of it up again.
    for name in journals.iter().map(String::as_str).chain([VERSION]) {
        remove(&path.join(name))?;
    }
    Ok(None)
}

/// What is missing of the engine's trees where something is: it has its own in `0` and ours in another, and makes
/// both before anything is written. One that has no tables yet may be without.
fn missing_tree(trees: &Path, names_of_trees: &[String], written: bool) -> io::Result<Option<String>> {
    let mut complete = [false; 2];
    for name in names_of_trees {
        let tables = trees.join(name).join("tables");
        let made = trees.join(name).join(CURRENT).exists();
        complete[usize::from(name != META)] |= made;
        if !made && tables.exists() && !names(&tables)?.is_empty() {
            return Ok(Some(format!("{TREES}/{name}/{CURRENT}")));
        }
    }
    Ok(match complete {
        [true, true] => None,
        _ if !written => None,
        [false, _] => Some(format!("{TREES}/{META}/{CURRENT}")),
        [true, false] => Some(format!("the tree beside {TREES}/{META}")),
    })
}

/// A tree whose manifest is not the one that was written: the engine would take what it does not name for left-overs,
/// and delete it. The file `current` has the manifest's number, its checksum, and a byte for the kind of that.
fn damaged_manifest(trees: &Path, names_of_trees: &[String]) -> io::Result<Option<String>> {
    for name in names_of_trees {
        let current = match fs::read(trees.join(name).join(CURRENT)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        let Some((number, checksum)) = current_manifest(&current) else {
            return Ok(Some(format!("{TREES}/{name}/{CURRENT} cannot be read")));
        };
        let manifest = format!("v{number}");
        let whole = match fs::read(trees.join(name).join(&manifest)) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            other => xxh3_128(&other?) == checksum,
        };
        if !whole {
            return Ok(Some(format!("{TREES}/{name}/{manifest} is not what {TREES}/{name}/{CURRENT} says")));
        }
    }
    Ok(None)
}

/// The number and the checksum of the manifest that counts.
fn current_manifest(current: &[u8]) -> Option<(u64, u128)> {
    let (number, rest) = current.split_at_checked(8)?;
    let (checksum, kind) = rest.split_at_checked(16)?;
    let number = u64::from_le_bytes(number.try_into().ok()?);
    (kind == [0]).then_some((number, u128::from_le_bytes(checksum.try_into().ok()?)))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Removes a file, if it is there.
fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Creates a folder and those above it, each for certain once this returns.
fn create(path: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    fs::create_dir_all(path)?;
    for folder in missing {
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above)?.sync_all()?;
    }
    Ok(())
}
