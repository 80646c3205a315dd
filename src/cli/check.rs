//! `jobcast check`: loads the configuration as `serve` would, and reports errors or the file that it read.

use super::{ConfigArguments, Failure};
use crate::config::{self, Config, DEFAULT_FILE, Overrides};

/// Reads the configuration as `serve` would.
pub fn run(arguments: &ConfigArguments) -> Result<(), Failure> {
    let environment = super::serve::environment();
    Config::load(arguments.config.as_deref(), &environment, &Overrides::default())?;
    match config::file(arguments.config.as_deref()) {
        Some(file) => println!("the configuration is fine ({})", file.display()),
        None => println!("the configuration is fine (no {DEFAULT_FILE} here)"),
    }
    Ok(())
}
