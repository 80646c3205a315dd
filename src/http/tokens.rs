//! Tokens over HTTP: backends get some for their browsers, administrators revoke some.

use std::{fmt::Display, str::FromStr, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Serialize;

use super::{
    HttpState,
    caller::Caller,
    extract::JsonBody,
    openapi::{MintedBody, RevocationBody, RevokedBody, TokenBody},
    problem::Problem,
};
use crate::{
    access::{MAX_TOKEN_ID, Pattern, Patterns, Revocation, Subject, TokenGrant},
    error::ApiError,
    json::Members,
    timestamp::Timestamp,
};

/// How long a token is good where that is not said, and how long it may be.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);
const LIFETIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Minted {
    token: String,
    expires_at: Timestamp,
}

#[derive(Serialize)]
pub struct Revoked {
    before: Timestamp,
}

/// Makes a token for a browser, of no more than the caller may give
#[utoipa::path(
    post,
    path = "/api/tokens",
    operation_id = "mintToken",
    tag = "access",
    request_body = TokenBody,
    responses(
        (status = 200, description = "The token", body = MintedBody),
        (status = 400, description = "Empty body or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An invalid member", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much waits in memory (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn mint(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<Minted>, ApiError> {
    let members = body.members()?;
    check_names(&members, &["sub", "tenantId", "jobs", "ttl"])?;
    let grant = TokenGrant {
        user: member(&members, "sub")?,
        tenant: member(&members, "tenantId")?,
        jobs: patterns(&members)?,
        ..TokenGrant::default()
    };
    let lifetime = lifetime(&members)?;
    caller.identity().check_grant(&grant)?;
    let minted = state.auth.mint(&grant, lifetime)?;
    Ok(Json(Minted { token: minted.token, expires_at: minted.expires_at }))
}

/// Revokes the tokens of a user or a tenant, or one token, that were issued before a time
#[utoipa::path(
    post,
    path = "/api/revocations",
    operation_id = "revoke",
    tag = "access",
    request_body = RevocationBody,
    responses(
        (status = 200, description = "Revoked, here at once and on other nodes within a second", body = RevokedBody),
        (status = 400, description = "Empty body or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An invalid member", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is down; or as many are kept as may be (limit_reached)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn revoke(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<Revoked>, ApiError> {
    // Before anything is said of the body.
    caller.identity().check_admin()?;
    let members = body.members()?;
    check_names(&members, &["sub", "jti", "tenantId", "before"])?;
    let before = member(&members, "before")?.unwrap_or_else(Timestamp::now);
    state.gateway.revoke(caller.identity(), Revocation { subject: subject(&members)?, before }).await?;
    Ok(Json(Revoked { before }))
}

fn check_names(members: &Members<'_>, known: &[&str]) -> Result<(), ApiError> {
    match members.unknown(known) {
        Some(name) => {
            Err(ApiError::invalid(format!("{name}: is not known here; known are {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

fn member<T: FromStr<Err: Display>>(members: &Members<'_>, name: &str) -> Result<Option<T>, ApiError> {
    members.parsed(name).map_err(ApiError::invalid)
}

fn patterns(members: &Members<'_>) -> Result<Patterns, ApiError> {
    let Some(jobs) = members.get("jobs") else { return Ok(Patterns::default()) };
    let expected = "jobs: must be an array of job ids, or of their beginnings with a * behind them";
    let texts: Vec<String> = serde_json::from_str(jobs.get()).map_err(|_| ApiError::invalid(expected))?;
    let parse = |text: &String| text.parse::<Pattern>();
    let patterns: Result<Patterns, _> = texts.iter().map(parse).collect();
    patterns.map_err(|error| ApiError::invalid(format!("jobs: {error}")))
}

/// A span of time, or seconds as a number.
fn lifetime(members: &Members<'_>) -> Result<Duration, ApiError> {
    let Some(text) = member::<String>(members, "ttl")? else { return Ok(DEFAULT_LIFETIME) };
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let lifetime = seconds.or_else(|| humantime::parse_duration(&text).ok());
    lifetime.filter(|lifetime| (LIFETIMES.0..=LIFETIMES.1).contains(lifetime)).ok_or_else(|| {
        ApiError::invalid(format!(
            "ttl: must be a span of time such as \"15m\", or seconds, from 1 s to 24 h, got {text:.32?}"
        ))
    })
}

fn subject(members: &Members<'_>) -> Result<Subject, ApiError> {
    let token_id = member::<String>(members, "jti")?;
    if token_id.as_ref().is_some_and(|id| !(1..=MAX_TOKEN_ID).contains(&id.len())) {
        return Err(ApiError::invalid(format!("jti: must be 1 to {MAX_TOKEN_ID} bytes long")));
    }
    let subjects = [
        member(members, "sub")?.map(Subject::Sub),
        member(members, "tenantId")?.map(Subject::TenantId),
        token_id.map(Subject::Jti),
    ];
    let mut given = subjects.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(subject), None) => Ok(subject),
        _ => Err(ApiError::invalid("exactly one of sub, tenantId and jti says whose tokens are revoked")),
    }
}
