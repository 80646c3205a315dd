//! Where settings are written: a TOML file, and environment variables.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{
    DEFAULT_FILE,
    settings::{Place, Settings},
    value::Value,
};

/// Environment variables by name.
pub type Environment = HashMap<String, String>;

/// The prefix of the variables that name keys: `JOBCAST_SERVER__LISTEN` is `server.listen`.
const PREFIX: &str = "JOBCAST_";

/// Variables with the prefix that are not keys of the server's configuration.
const OTHERS: [&str; 6] = [
    "JOBCAST_URL",
    "JOBCAST_API_KEY",
    "JOBCAST_TOKEN",
    "JOBCAST_BIN",
    "JOBCAST_REDIS_SERVER",
    "JOBCAST_TEST_CACHE",
];

/// Adds what the file says: the named one, or else the default one if it is there.
pub fn add_file(settings: &mut Settings, file: Option<&Path>) {
    let path = file.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_owned);
    let name = path.display().to_string();
    match fs::read_to_string(&path) {
        Ok(text) => add_toml(settings, &name, &text),
        Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => settings.reject(Place::File(name), format!("cannot be read: {error}")),
    }
}

pub(super) fn add_toml(settings: &mut Settings, file: &str, text: &str) {
    let line = |start: usize| Place::Line(file.to_owned(), 1 + text[..start].matches('\n').count());
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            // Only the message: with the line it might show a password.
            settings.reject(line(error.span().map_or(0, |span| span.start)), error.message());
        }
        return;
    }
    for (name, value) in document.get_ref() {
        let (section, value) = (name.get_ref(), value.get_ref());
        settings.add(section.as_ref(), line(name.span().start), value.into());
        let DeValue::Table(keys) = value else { continue };
        for (key, value) in keys {
            let name = format!("{section}.{}", key.get_ref());
            settings.add(name, line(key.span().start), value.get_ref().into());
        }
    }
}

/// Adds what variables say, in the order in which they count: `REDIS_URL` alone selects the Redis store, and the
/// variables of single keys win over it.
pub fn add_environment(settings: &mut Settings, environment: &Environment) {
    if let Some(url) = environment.get("REDIS_URL").filter(|url| !url.is_empty()) {
        let place = Place::Variable("REDIS_URL".to_owned());
        settings.add("redis.url", place.clone(), Value::Variable(url.clone()));
        settings.add("store.backend", place, Value::Variable("redis".to_owned()));
    }
    let sorted: BTreeMap<_, _> = environment.iter().collect();
    for (name, value) in sorted.into_iter().filter(|(name, _)| !OTHERS.contains(&name.as_str())) {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        let place = Place::Variable(name.clone());
        match key.split_once("__") {
            Some((section, key)) => {
                let key = format!("{section}.{key}").to_lowercase();
                settings.add(key, place, Value::Variable(value.clone()));
            }
            None => settings
                .reject(place, "a key is written as JOBCAST_SECTION__KEY, such as JOBCAST_SERVER__LISTEN"),
        }
    }
}
