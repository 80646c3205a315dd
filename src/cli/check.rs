//! `jobcast check`: loads the configuration as `serve` would, and reports errors.

use super::{ConfigArguments, Failure};
use crate::config::{Config, Overrides};

/// Reads the configuration as `serve` would.
pub fn run(arguments: &ConfigArguments) -> Result<(), Failure> {
    let environment = super::serve::environment();
    Config::load(arguments.config.as_deref(), &environment, &Overrides::default())?;
    println!("the configuration is fine");
    Ok(())
}
