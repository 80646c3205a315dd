//! All that was written, key by key, and all that is wrong with it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
};

use super::value::Value;

/// Where something was written, in the order in which it counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file, as a whole.
    File(String),
    /// A line of a file, from 1.
    Line(String, usize),
    /// An environment variable.
    Variable(String),
    /// An argument of the command.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{file}, line {line}"),
            Place::File(name) | Place::Variable(name) => f.write_str(name),
            Place::Flag(name) => f.write_str(name),
        }
    }
}

/// All that is wrong with the configuration: where, which key, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(Vec<(Place, String)>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(place, problem)] = self.0.as_slice() {
            return write!(f, "{place}: {problem}");
        }
        write!(f, "{} problems in the configuration", self.0.len())?;
        self.0.iter().try_for_each(|(place, problem)| write!(f, "\n  {place}: {problem}"))
    }
}

/// Keys whose values are not repeated in an error, because they may hold a secret.
const SECRETS: [&str; 5] =
    ["redis.url", "auth.secret", "auth.previous_secret", "auth.jwks_url", "auth.api_keys"];

/// What the sources say, and what was found wrong so far.
#[derive(Debug, Default)]
pub struct Settings {
    /// Keys and sections, in the order in which they count: the last one of a key wins.
    pub(super) written: Vec<(String, Place, Value)>,
    /// The keys that there are: those that were asked for.
    pub(super) known: Vec<&'static str>,
    /// Where the values in force were written.
    places: HashMap<&'static str, Place>,
    /// The keys that have a wrong value.
    wrong: HashSet<&'static str>,
    problems: Vec<(Place, String)>,
}

impl Settings {
    /// Takes what a source says about a key, or that it has a section. It wins over what was added before.
    pub fn add(&mut self, key: impl Into<String>, place: Place, value: Value) {
        self.written.push((key.into(), place, value));
    }

    /// Takes a problem of a source.
    pub fn reject(&mut self, place: Place, problem: impl Into<String>) {
        self.problems.push((place, problem.into()));
    }

    /// The value of a key: `default` where no source names it. A wrong value is noted, even where another wins.
    pub fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Result<T, String>,
        default: T,
    ) -> T {
        self.known.push(key);
        let mut found = default;
        for (_, place, value) in self.written.iter().filter(|(written, _, _)| written == key) {
            match parse(value) {
                Ok(value) => {
                    found = value;
                    self.places.insert(key, place.clone());
                }
                Err(expected) => {
                    let got = if SECRETS.contains(&key) { String::new() } else { format!(", got {value}") };
                    self.problems.push((place.clone(), format!("{key}: must be {expected}{got}")));
                    self.wrong.insert(key);
                }
            }
        }
        found
    }

    /// Holds a rule between keys. Where it does not hold, `problem` is noted for the first key, unless that has its
    /// default or one of them has a wrong value anyway.
    pub fn rule(&mut self, keys: &[&'static str], holds: bool, problem: impl FnOnce() -> String) {
        let can_be_told = !keys.iter().any(|key| self.wrong.contains(key));
        if let Some(place) = self.places.get(keys[0]).filter(|_| !holds && can_be_told) {
            self.problems.push((place.clone(), format!("{}: {}", keys[0], problem())));
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All problems, those of keys that nobody asked for among them.
    pub fn finish(mut self) -> Result<(), ConfigError> {
        self.reject_unknown();
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by(|(one, _), (other, _)| one.cmp(other));
        Err(ConfigError(self.problems))
    }

    fn reject_unknown(&mut self) {
        let known: Vec<_> = self.known.iter().filter_map(|key| key.split_once('.')).collect();
        let sections: BTreeSet<_> = known.iter().map(|(section, _)| *section).collect();
        for (key, place, value) in &self.written {
            let problem = match key.split_once('.') {
                None if !sections.contains(key.as_str()) => unknown("section", key, &sections),
                None if matches!(value, Value::Table(_)) => continue,
                None => format!("{key}: must be a section, [{key}], got {value}"),
                Some(key) if known.contains(&key) => continue,
                Some((section, key)) if sections.contains(section) => {
                    let of_section = known.iter().filter(|(other, _)| *other == section);
                    format!("{section}: {}", unknown("key", key, &of_section.map(|(_, key)| *key).collect()))
                }
                // A file has this section in a line of its own, which is told.
                Some(_) if matches!(place, Place::Line(..)) => continue,
                Some((section, _)) => unknown("section", section, &sections),
            };
            self.problems.push((place.clone(), problem));
        }
    }
}

/// Says that there is no such name, and which one may have been meant.
fn unknown(what: &str, name: &str, names: &BTreeSet<&str>) -> String {
    let alike = |other: &&&str| strsim::jaro(name, other);
    let nearest = names.iter().max_by(|one, other| alike(one).total_cmp(&alike(other)));
    match nearest.filter(|nearest| alike(nearest) > 0.7) {
        Some(nearest) => format!("unknown {what} `{name}`, did you mean `{nearest}`?"),
        None => {
            let names: Vec<_> = names.iter().copied().collect();
            format!("unknown {what} `{name}`, expected one of `{}`", names.join("`, `"))
        }
    }
}
