//! The folder itself, before the engine opens it: whether it can be written to, and holds what it should.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// The file by which writing is tried.
const PROBE: &str = "probe";

/// Tries whether the folder takes so many bytes.
///
/// # Errors
/// Whatever the system says to that.
pub fn probe(path: &Path, bytes: u64) -> io::Result<()> {
    let path = path.join(PROBE);
    let tried = fill(&path, bytes);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    tried.and(removed)
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

/// Creates the folder where it is missing, and makes sure that it can be opened.
///
/// # Errors
/// What is wrong, in a sentence that names the folder.
pub fn prepare(path: &Path) -> Result<(), String> {
    let folder = path.display();
    create(path).map_err(|error| format!("cannot create the folder {folder}: {error}"))?;
    probe(path, 0).map_err(|error| format!("the folder {folder} cannot be written to: {error}"))
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
