//! Where values come from. Each source is checked by itself first, so that an error names the one at fault.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use config::{Config as Layers, FileFormat, Map};
use serde::de::Error as _;

use super::{Config, DEFAULT_FILE};

/// What is wrong with the configuration, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// Environment variables by name.
pub type Environment = HashMap<String, String>;

/// The prefix of the variables that name keys: `JOBCAST_SERVER__LISTEN` is `server.listen`.
const PREFIX: &str = "JOBCAST_";

/// Variables with the prefix that are not keys of the server's configuration.
const OTHERS: [&str; 4] = ["JOBCAST_URL", "JOBCAST_API_KEY", "JOBCAST_TOKEN", "JOBCAST_BIN"];

/// Keys that hold lists; in a variable their elements are separated by commas.
const LISTS: [&str; 1] = ["cors.origins"];

/// Reads a configuration from a file and the environment.
pub fn read(file: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
    let path = match file {
        Some(path) => Some(path.to_owned()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
    };
    let mut layers = Layers::builder();
    if let Some(path) = path {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| ConfigError::new(format!("{place}: cannot be read: {error}")))?;
        layers = layers.add_source(checked(config::File::from_str(&text, FileFormat::Toml), &place)?);
    }
    for (name, source) in variables(environment)? {
        layers = layers.add_source(checked(source, &name)?);
    }
    let layers = layers.build().map_err(|error| ConfigError::new(error.to_string()))?;
    parsed(layers).map_err(ConfigError::new)
}

/// Checks one source by itself.
fn checked<S>(source: S, place: &str) -> Result<S, ConfigError>
where
    S: config::Source + Clone + Send + Sync + 'static,
{
    let layer = Layers::builder().add_source(source.clone()).build();
    let layer = layer.map_err(|error| ConfigError::new(format!("{place}: {error}")))?;
    parsed(layer).map_err(|problem| ConfigError::new(format!("{place}: {problem}")))?;
    Ok(source)
}

/// Reads the layers; an error names the key.
fn parsed(layers: Layers) -> Result<Config, String> {
    serde_path_to_error::deserialize(layers).map_err(|error| {
        let key = error.path().to_string();
        let problem = root(error.into_inner());
        if key == "." { problem } else { format!("{key}: {problem}") }
    })
}

/// The error itself, without the places that the library wraps around it: the path is told already.
fn root(error: config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => root(*error),
        config::ConfigError::Type { unexpected, expected, .. } => {
            format!("expected {expected}, got {unexpected}")
        }
        other => other.to_string(),
    }
}

/// The environment as sources, in the order in which they count: `REDIS_URL` alone selects the Redis store, and
/// the variables of single keys win over it.
fn variables(environment: &Environment) -> Result<Vec<(String, config::Environment)>, ConfigError> {
    let mut sources = Vec::new();
    if let Some(url) = environment.get("REDIS_URL").filter(|url| !url.is_empty()) {
        let keys = [("JOBCAST_REDIS__URL", url.as_str()), ("JOBCAST_STORE__BACKEND", "redis")];
        sources.extend(keys.map(|(name, value)| ("REDIS_URL".to_owned(), source(name, value))));
    }
    let mut keys: Vec<_> = environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    keys.sort();
    for (name, value) in keys.into_iter().filter(|(name, _)| !OTHERS.contains(&name.as_str())) {
        if !name.contains("__") {
            let right = "a key is written as JOBCAST_SECTION__KEY, such as JOBCAST_SERVER__LISTEN";
            return Err(ConfigError::new(format!("{name}: {right}")));
        }
        sources.push((name.clone(), source(name, value)));
    }
    Ok(sources)
}

fn source(name: &str, value: &str) -> config::Environment {
    let value = list_elements(value).unwrap_or_else(|| value.to_owned());
    let variable: Map<String, String> = [(name.to_owned(), value)].into_iter().collect();
    let mut source = config::Environment::with_prefix("JOBCAST")
        .prefix_separator("_")
        .separator("__")
        .source(Some(variable))
        .try_parsing(true)
        .list_separator(",");
    for key in LISTS {
        source = source.with_list_parse_key(key);
    }
    source
}

/// The elements of a list that is written as JSON, separated by commas.
fn list_elements(value: &str) -> Option<String> {
    let elements: Vec<String> = serde_json::from_str(value).ok()?;
    Some(elements.join(","))
}

impl From<ConfigError> for config::ConfigError {
    fn from(error: ConfigError) -> Self {
        config::ConfigError::custom(error.0)
    }
}
