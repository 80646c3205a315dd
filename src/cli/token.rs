//! `jobcast token`: makes a token by the configured secret, for development.

use std::{io::Write, time::Duration};

use clap::Args;

use super::{ConfigArguments, Failure};
use crate::{
    access::{Pattern, TokenGrant},
    auth::{self, AuthMode},
    config::{Config, Overrides},
    id::{TenantId, UserId},
};

#[derive(Debug, Args)]
pub struct TokenArguments {
    /// The user
    #[arg(long, value_name = "USER")]
    sub: Option<UserId>,
    /// The user's tenant
    #[arg(long)]
    tenant: Option<TenantId>,
    /// A job that the token may watch, or the beginning of ids with a * behind it; may be repeated
    #[arg(long, value_name = "PATTERN")]
    job: Vec<Pattern>,
    /// A document of the token, or the beginning of ids with a * behind it; may be repeated
    #[arg(long, value_name = "PATTERN")]
    document: Vec<Pattern>,
    /// What else the token may do; may be repeated
    #[arg(long, value_enum)]
    scope: Vec<Scope>,
    /// How long the token is good, up to 366 days
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = lifetime)]
    ttl: Duration,
    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Scope {
    /// Everything
    #[value(name = "jobs:admin")]
    Admin,
    /// Publish to every job
    #[value(name = "jobs:publish")]
    Publish,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600);
    let span = humantime::parse_duration(text).ok().filter(|span| bounds.contains(span));
    span.ok_or_else(|| "must be a span of time such as 15m or 8h, from 1s to 366d".to_owned())
}

/// Prints a token alone to standard output, and its end to standard error.
pub fn run(arguments: TokenArguments) -> Result<(), Failure> {
    let TokenArguments { sub, tenant, job, document, scope, ttl, config } = arguments;
    if sub.is_none() && tenant.is_none() && job.is_empty() && document.is_empty() && scope.is_empty() {
        return Err(
            "a token must be for somebody or something: give --sub, --tenant, --job, --document or --scope"
                .into(),
        );
    }
    let environment = super::serve::environment();
    let config = Config::load(config.config.as_deref(), &environment, &Overrides::default())?;
    let AuthMode::Jwt(options) = &config.auth.mode else {
        return Err("tokens need auth.mode = \"jwt\" and auth.secret in the configuration".into());
    };
    let grant = TokenGrant {
        user: sub,
        tenant,
        jobs: job.into_iter().collect(),
        documents: document.into_iter().collect(),
        is_admin: scope.contains(&Scope::Admin),
        publishes: scope.contains(&Scope::Publish),
    };
    let minted = auth::mint(options, &grant, ttl).map_err(|error| error.message)?;
    writeln!(std::io::stdout(), "{}", minted.token)?;
    // Nobody may be there to read it.
    let _told = writeln!(std::io::stderr(), "good until {}", minted.expires_at);
    Ok(())
}
