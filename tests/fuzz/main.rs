//! Drives the fuzz targets: with their corpus, with fresh bytes, and with mutations of the corpus. A failure prints the
//! shortest bytes that it found; with them as a file of the corpus it comes again.
//!
//! `JOBCAST_FUZZ_SEED` repeats a run, and `JOBCAST_FUZZ_CASES` makes it longer.

mod targets;

use std::{env, fs, path::PathBuf};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use targets::{TARGETS, Target};

/// How many inputs a target gets.
const CASES: u32 = 1000;

/// The folder of a target's corpus.
fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fuzz/corpus", name].iter().collect()
}

/// The files of a target's corpus, by name.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = files
        .map(|file| {
            let path = file.expect("the corpus is readable").path();
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("the corpus is readable"))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{} is empty", folder.display());
    found
}

/// A change of an input.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Puts a part again behind itself.
    Repeat(Index, usize, usize),
    Truncate(Index),
    /// Puts a word in place of the next digits.
    Digits(Index, &'static [u8]),
    /// Puts the rest of another input in place of the rest.
    Splice(Index, Vec<u8>),
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        let place = |index: Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Set(index, byte) => {
                let place = place(index, bytes);
                if let Some(old) = bytes.get_mut(place) {
                    *old = byte;
                }
            }
            Self::Insert(index, more) => {
                let place = place(index, bytes);
                bytes.splice(place..place, more);
            }
            Self::Remove(index, count) => {
                let place = place(index, bytes);
                bytes.drain(place..(place + count).min(bytes.len()));
            }
            Self::Repeat(index, count, times) => {
                let place = place(index, bytes);
                let part = bytes[place..(place + count).min(bytes.len())].repeat(times);
                bytes.splice(place..place, part);
            }
            Self::Truncate(index) => bytes.truncate(place(index, bytes)),
            Self::Digits(index, word) => {
                let rest = place(index, bytes);
                let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if let Some(start) = (rest..bytes.len()).find(|start| digits(&bytes[*start..]) > 0) {
                    bytes.splice(start..start + digits(&bytes[start..]), word.iter().copied());
                }
            }
            Self::Splice(index, rest) => {
                let place = place(index, bytes);
                bytes.truncate(place);
                bytes.extend(rest.get(place.min(rest.len())..).unwrap_or_default());
            }
        }
    }
}

/// A byte, most of them from the grammars of what is read.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![3 => prop::sample::select(&b"{}[]\",:.-+_@/\\eE0123456789 \n\r\tunj\x00\x1e\x7f\x80\x81\xff"[..]), 1 => any::<u8>()]
}

/// Words at the edges of what is read.
const WORDS: [&[u8]; 16] = [
    b"0",
    b"-1",
    b"1.5",
    b"1e400",
    b"-0",
    b"null",
    b"[[[[",
    b"\\ud800",
    b"9007199254740991",
    b"9007199254740993",
    b"253402300799999",
    b"253402300800000",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-",
    b"\xed\xa0\x80",
];

fn change(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), byte()).prop_map(|(index, byte)| Change::Set(index, byte)),
        4 => (any::<Index>(), vec(byte(), 1..5)).prop_map(|(index, bytes)| Change::Insert(index, bytes)),
        3 => (any::<Index>(), 1..9_usize).prop_map(|(index, count)| Change::Remove(index, count)),
        1 => (any::<Index>(), 1..40_usize, prop_oneof![9 => 1..5_usize, 1 => 30..200_usize])
            .prop_map(|(index, count, times)| Change::Repeat(index, count, times)),
        1 => any::<Index>().prop_map(Change::Truncate),
        3 => (any::<Index>(), prop::sample::select(&WORDS[..])).prop_map(|(index, word)| Change::Digits(index, word)),
        1 => (any::<Index>(), prop::sample::select(&WORDS[..]))
            .prop_map(|(index, word)| Change::Insert(index, word.to_vec())),
        2 => (any::<Index>(), prop::sample::select(seeds)).prop_map(|(index, rest)| Change::Splice(index, rest)),
    ]
}

fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let mutated =
        (prop::sample::select(seeds.clone()), vec(change(seeds), 1..8)).prop_map(|(mut bytes, changes)| {
            changes.into_iter().for_each(|change| change.apply(&mut bytes));
            bytes
        });
    prop_oneof![1 => vec(any::<u8>(), 0..300), 1 => vec(byte(), 0..100), 8 => mutated]
}

/// The seed that was asked for, or a fresh one.
fn seed() -> u64 {
    match env::var("JOBCAST_FUZZ_SEED") {
        Ok(seed) => seed.parse().expect("JOBCAST_FUZZ_SEED is a number"),
        Err(_) => rand_seed(),
    }
}

/// The standard library's hashers have fresh keys.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn drive(name: &str) {
    let target: Target = TARGETS.iter().find(|(known, _)| *known == name).expect("it is a target").1;
    let seeds = corpus(name);
    for (file, bytes) in &seeds {
        println!("{name}: corpus file {file}");
        target(bytes);
    }
    let seed = seed();
    println!("{name}: JOBCAST_FUZZ_SEED={seed}");
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = env::var("JOBCAST_FUZZ_CASES").map_or(CASES, |cases| cases.parse().expect("it is a number"));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &key));
    let strategy = inputs(seeds.into_iter().map(|(_, bytes)| bytes).collect());
    let outcome = runner.run(&strategy, |bytes| {
        target(&bytes);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, bytes)) => {
            panic!(
                "{name} fails for b\"{}\": {reason}\nPut these bytes into {}",
                bytes.escape_ascii(),
                folder(name).display()
            )
        }
        Err(TestError::Abort(reason)) => panic!("{name}: {reason}"),
    }
}

macro_rules! driven {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                drive(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_driven() {
            assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), [$(stringify!($name)),*]);
        }
    };
}

driven! {
    array_batches claims client_frames config credentials drafts entries ids key_sets line_batches log_references members
    messages notices packets positions publish_answers records requests rooms server_frames tokens
}
