//! The engine's journal, looked through before the engine opens it. The engine takes the first thing that it cannot
//! read for the end, and cuts off all that follows. That is right for a last write that a crash cut short; after any
//! other damage it would throw away what was answered, without a word.
//!
//! A journal is a row of batches: a start (tag, count, number), so many items (tag, kind, compression, keyspace,
//! lengths, key, value), and an end (tag, checksum of the items, magic). Zeros may follow.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const MAGIC: &[u8] = b"FJL\x03";

const START_BYTES: usize = 13;
/// Without its key and value.
const ITEM_BYTES: usize = 21;
const END_BYTES: usize = 13;

/// What a journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Whole batches only, so many bytes of them.
    Whole(u64),
    /// After so many bytes of whole batches one that was never committed.
    CutShort(u64),
    /// After so many bytes of whole batches a damaged one, and something that was committed later.
    Damaged(u64),
}

/// Looks through a journal.
///
/// # Errors
/// Whatever the system says to reading it.
pub fn examine(path: &Path) -> io::Result<Found> {
    let mut journal = BufReader::new(File::open(path)?);
    let mut whole = 0;
    loop {
        match batch(&mut journal) {
            Ok(Some(bytes)) => whole += bytes,
            Ok(None) => break,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    let mut rest = Vec::new();
    journal.seek(SeekFrom::Start(whole))?;
    journal.read_to_end(&mut rest)?;
    Ok(match rest.iter().all(|byte| *byte == 0) {
        true => Found::Whole(whole),
        // The next batch is begun only once the one before it is on disk.
        false if is_followed(&rest) => Found::Damaged(whole),
        false => Found::CutShort(whole),
    })
}

/// Reads a batch and answers its length; `None` for what is none.
fn batch(journal: &mut impl Read) -> io::Result<Option<u64>> {
    let mut start = [0; START_BYTES];
    journal.read_exact(&mut start)?;
    let (tag, mut length) = (start[0], START_BYTES as u64);
    let mut checksum = Xxh3::new();
    let mut item = Vec::new();
    for _ in 0..u32::from_le_bytes([start[1], start[2], start[3], start[4]]) {
        let mut head = [0; ITEM_BYTES];
        journal.read_exact(&mut head)?;
        let key = u64::from(u16::from_le_bytes([head[11], head[12]]));
        let size = key + u64::from(u32::from_le_bytes([head[17], head[18], head[19], head[20]]));
        item.clear();
        // Of a length that is wrong there may not be that much.
        if head[0] != ITEM || journal.take(size).read_to_end(&mut item)? as u64 != size {
            return Ok(None);
        }
        checksum.update(&head);
        checksum.update(&item);
        length += ITEM_BYTES as u64 + size;
    }
    let mut end = [0; END_BYTES];
    journal.read_exact(&mut end)?;
    let ends = end[0] == END && end[1..9] == checksum.digest().to_le_bytes() && end[9..] == *MAGIC;
    Ok((tag == START && ends).then_some(length + END_BYTES as u64))
}

/// Whether anything was written after the batch that `rest` begins with.
fn is_followed(rest: &[u8]) -> bool {
    let end = rest.windows(END_BYTES).position(|bytes| bytes[0] == END && bytes[9..] == *MAGIC);
    end.is_some_and(|end| rest[end + END_BYTES..].iter().any(|byte| *byte != 0))
}
