//! `jobcast api-key`: makes an API key and its entry in the configuration.

use std::{
    fmt::{Display, Write as _},
    io::Write,
};

use clap::Args;

use super::Failure;
use crate::{
    access::Pattern,
    auth::NewApiKey,
    id::{JobId, TenantId},
    timestamp::Timestamp,
};

#[derive(Debug, Args)]
pub struct ApiKeyArguments {
    /// The key's name, for logs and metrics
    name: JobId,
    /// A job that the key is for, or the beginning of ids with a * behind it; may be repeated [default: all jobs]
    #[arg(long, value_name = "PATTERN")]
    jobs: Vec<Pattern>,
    /// A tenant that the key is for; may be repeated [default: all tenants]
    #[arg(long)]
    tenant: Vec<TenantId>,
    /// When the key ends: a time such as 2030-01-31T00:00:00Z, or a span such as 90d [default: never]
    #[arg(long, value_name = "TIME|SPAN", value_parser = end)]
    expires: Option<Timestamp>,
}

fn end(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let end = match humantime::parse_duration(text) {
        Ok(span) => Some(now.after(span)),
        Err(_) => text.parse().ok(),
    };
    end.filter(|end| *end > now).ok_or_else(|| {
        "must be a time to come such as 2030-01-31T00:00:00Z, or a span of time such as 90d".to_owned()
    })
}

/// Prints the key, which is shown this once, and then its entry, which has its digest alone.
pub fn run(arguments: &ApiKeyArguments) -> Result<(), Failure> {
    let key = NewApiKey::generate().ok_or("the system gives no random bytes")?;
    writeln!(std::io::stdout(), "{}\n\n{}", key.as_str(), entry(arguments, &key)?)?;
    // Nobody may be there to read it.
    let _told = writeln!(
        std::io::stderr(),
        "The first line is the key, which is shown this once. The rest goes into config.toml, with auth.mode = \"jwt\" \
         and without the line api_keys."
    );
    Ok(())
}

fn entry(arguments: &ApiKeyArguments, key: &NewApiKey) -> Result<String, std::fmt::Error> {
    let mut entry = String::from("[[auth.api_keys]]\n");
    writeln!(entry, "name = \"{}\"", arguments.name)?;
    write!(entry, "sha256 = \"{}\"", data_encoding::HEXLOWER.encode(&key.sha256()))?;
    if !arguments.jobs.is_empty() {
        write!(entry, "\njobs = {}", array(&arguments.jobs))?;
    }
    if !arguments.tenant.is_empty() {
        write!(entry, "\ntenants = {}", array(&arguments.tenant))?;
    }
    if let Some(end) = arguments.expires {
        write!(entry, "\nexpires = {end}")?;
    }
    Ok(entry)
}

/// An array in TOML. Ids and patterns have no character that would need an escape.
fn array(texts: &[impl Display]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", texts.join(", "))
}
