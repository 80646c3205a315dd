//! The claims of a token whose signature is good: whether they hold, and what they grant (RFC 7519).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Pass;
use crate::{
    access::{Identity, MAX_TOKEN_ID, Pattern, Patterns, TokenGrant},
    timestamp::Timestamp,
};

/// The scope that may do everything.
pub const ADMIN: &str = "jobs:admin";
/// The scope that may publish.
pub const PUBLISH: &str = "jobs:publish";

/// How far the clocks of an issuer and of this node may be apart.
const LEEWAY: Duration = Duration::from_secs(1);

/// What `iss` and `aud` must be.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    pub issuer: Option<String>,
    pub audience: Vec<String>,
}

/// Why claims do not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} must be {1}")]
    Invalid(&'static str, &'static str),
    #[error("{0}: {1}")]
    Id(&'static str, String),
    #[error("it has expired at {0}")]
    Expired(Timestamp),
    #[error("it is not good before {0} (nbf)")]
    NotYet(Timestamp),
    #[error("it was issued in the future, at {0} (iat); the clocks of its issuer and of this node differ")]
    IssuedInFuture(Timestamp),
    #[error("iss is not the issuer that auth.issuer names")]
    Issuer,
    #[error("aud does not name this gateway, which is called {0} (auth.audience)")]
    Audience(String),
    #[error("it is for the audience that aud names; set auth.audience where that is this gateway")]
    UnexpectedAudience,
}

/// The claims that mean something here. Each may be of any type, so that an error can name it.
#[derive(Debug, Deserialize)]
pub struct Claims {
    sub: Option<Value>,
    #[serde(rename = "tenantId")]
    tenant_id: Option<Value>,
    jobs: Option<Value>,
    documents: Option<Value>,
    scope: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    jti: Option<Value>,
}

/// Refuses what has ended by now, for a token that was verified before as well.
///
/// # Errors
/// [`ClaimError::Expired`].
pub fn check_end(end: Timestamp, now: Timestamp) -> Result<(), ClaimError> {
    match now < end.after(LEEWAY) {
        true => Ok(()),
        false => Err(ClaimError::Expired(end)),
    }
}

impl Claims {
    /// Checks them at a time, and says what they grant.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn into_pass(self, expected: &Expected, now: Timestamp) -> Result<Pass, ClaimError> {
        let end = date("exp", self.exp.as_ref())?.ok_or(ClaimError::Missing("exp"))?;
        let issued_at = date("iat", self.iat.as_ref())?;
        check_end(end, now)?;
        match date("nbf", self.nbf.as_ref())? {
            Some(begin) if begin > now.after(LEEWAY) => return Err(ClaimError::NotYet(begin)),
            _ => {}
        }
        match issued_at {
            Some(issued) if issued > now.after(LEEWAY) => return Err(ClaimError::IssuedInFuture(issued)),
            _ => {}
        }
        self.check_issuer(expected)?;
        self.check_audience(expected)?;
        let token_id = text("jti", self.jti.as_ref())?;
        if token_id.is_some_and(|id| id.len() > MAX_TOKEN_ID) {
            return Err(ClaimError::Invalid("jti", "at most 256 bytes long"));
        }
        Ok(Pass {
            expires_at: Some(end),
            issued_at,
            token_id: token_id.map(Into::into),
            ..Pass::from(Identity::Token(self.grant()?.into()))
        })
    }

    fn check_issuer(&self, expected: &Expected) -> Result<(), ClaimError> {
        let Some(issuer) = &expected.issuer else { return Ok(()) };
        match text("iss", self.iss.as_ref())? {
            None => Err(ClaimError::Missing("iss")),
            Some(found) if found == issuer => Ok(()),
            Some(_) => Err(ClaimError::Issuer),
        }
    }

    /// A token for others is refused, also where this gateway has no name (RFC 7519, section 4.1.3).
    fn check_audience(&self, expected: &Expected) -> Result<(), ClaimError> {
        let named = match present(self.aud.as_ref()) {
            None if expected.audience.is_empty() => return Ok(()),
            None => return Err(ClaimError::Missing("aud")),
            Some(_) if expected.audience.is_empty() => return Err(ClaimError::UnexpectedAudience),
            Some(Value::String(one)) => vec![one.as_str()],
            several => texts("aud", "text or an array of texts", several)?,
        };
        match named.iter().any(|name| expected.audience.iter().any(|ours| ours == name)) {
            true => Ok(()),
            false => Err(ClaimError::Audience(expected.audience.join(" or "))),
        }
    }

    fn grant(&self) -> Result<TokenGrant, ClaimError> {
        let scopes = match present(self.scope.as_ref()) {
            Some(Value::String(scopes)) => scopes.split(' ').collect(),
            several => texts("scope", "text with spaces between scopes, or an array of scopes", several)?,
        };
        Ok(TokenGrant {
            user: id("sub", self.sub.as_ref())?,
            tenant: id("tenantId", self.tenant_id.as_ref())?,
            jobs: patterns("jobs", self.jobs.as_ref())?,
            documents: patterns("documents", self.documents.as_ref())?,
            is_admin: scopes.contains(&ADMIN),
            publishes: scopes.contains(&PUBLISH),
        })
    }
}

/// A claim that is there: `null` is not.
fn present(claim: Option<&Value>) -> Option<&Value> {
    claim.filter(|value| !value.is_null())
}

/// A NumericDate: seconds since the epoch, which may have a fraction.
fn date(name: &'static str, claim: Option<&Value>) -> Result<Option<Timestamp>, ClaimError> {
    let Some(value) = present(claim) else { return Ok(None) };
    let seconds = value.as_f64().ok_or(ClaimError::Invalid(name, "a number of seconds since 1970"))?;
    // The conversion saturates: what is before the epoch is the epoch.
    let since_epoch = Duration::from_millis((seconds * 1000.0).round() as u64);
    Ok(Some(Timestamp::default().after(since_epoch)))
}

fn text<'a>(name: &'static str, claim: Option<&'a Value>) -> Result<Option<&'a str>, ClaimError> {
    let invalid = ClaimError::Invalid(name, "text");
    present(claim).map(|value| value.as_str().ok_or(invalid)).transpose()
}

fn texts<'a>(
    name: &'static str,
    right: &'static str,
    claim: Option<&'a Value>,
) -> Result<Vec<&'a str>, ClaimError> {
    let Some(value) = present(claim) else { return Ok(Vec::new()) };
    let texts = value.as_array().and_then(|values| values.iter().map(Value::as_str).collect());
    texts.ok_or(ClaimError::Invalid(name, right))
}

fn id<T: std::str::FromStr<Err: ToString>>(
    name: &'static str,
    claim: Option<&Value>,
) -> Result<Option<T>, ClaimError> {
    let parse = |text: &str| text.parse().map_err(|error: T::Err| ClaimError::Id(name, error.to_string()));
    text(name, claim)?.map(parse).transpose()
}

fn patterns(name: &'static str, claim: Option<&Value>) -> Result<Patterns, ClaimError> {
    let texts = texts(name, "an array of ids, or of beginnings of ids with a * behind them", claim)?;
    let parse = |text: &str| text.parse::<Pattern>().map_err(|error| ClaimError::Id(name, error.to_string()));
    texts.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000_000).unwrap()
    }

    fn pass(claims: Value, expected: &Expected) -> Result<Pass, String> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        claims.into_pass(expected, now()).map_err(|error| error.to_string())
    }

    #[test]
    fn grants_what_it_says() {
        let claims = json!({
            "exp": 1_000_060, "iat": 999_999.5, "jti": "t1", "sub": "ada", "tenantId": "acme",
            "jobs": ["a-*", "b"], "documents": ["d"], "scope": "other jobs:admin", "more": {},
        });
        let pass = pass(claims, &Expected::default()).unwrap();
        let Identity::Token(grant) = &pass.identity else { panic!("{pass:?}") };
        assert_eq!(grant.user.as_ref().map(ToString::to_string).as_deref(), Some("ada"));
        assert_eq!(grant.tenant.as_ref().map(ToString::to_string).as_deref(), Some("acme"));
        assert!(grant.jobs.matches("a-1") && grant.jobs.matches("b") && !grant.jobs.matches("c"));
        assert!(grant.documents.matches("d") && grant.is_admin && !grant.publishes);
        assert_eq!(pass.issued_at.unwrap().millis(), 999_999_500);
        assert_eq!(pass.expires_at.unwrap().millis(), 1_000_060_000);
        assert_eq!(pass.token_id.as_deref(), Some("t1"));
    }

    #[test]
    fn scopes_come_as_an_array_as_well_and_grant_nothing_by_their_beginning() {
        let publishes = |scope: Value| {
            let pass = pass(json!({"exp": 2_000_000, "scope": scope}), &Expected::default()).unwrap();
            matches!(pass.identity, Identity::Token(grant) if grant.publishes && !grant.is_admin)
        };
        assert!(publishes(json!(["jobs:publish"])) && publishes(json!("jobs:publish")));
        assert!(!publishes(json!("jobs:publisher")) && !publishes(json!("jobs:admin,jobs:publish")));
    }

    #[test]
    fn times_have_a_leeway_of_a_second() {
        let holds = |claims: Value| pass(claims, &Expected::default()).is_ok();
        assert!(holds(json!({"exp": 999_999.001})) && !holds(json!({"exp": 999_999})));
        assert!(!holds(json!({"exp": -1})) && holds(json!({"exp": 1e300})));
        for name in ["nbf", "iat"] {
            assert!(holds(json!({"exp": 2_000_000, name: 1_000_001})));
            assert!(!holds(json!({"exp": 2_000_000, name: 1_000_001.001})));
        }
    }

    #[test]
    fn says_what_does_not_hold() {
        let cases = [
            (json!({}), "exp is missing"),
            (json!({"exp": null}), "exp is missing"),
            (json!({"exp": "2000000"}), "exp must be a number"),
            (json!({"exp": 5}), "expired at 1970-01-01T00:00:05.000Z"),
            (json!({"exp": 2_000_000, "nbf": true}), "nbf must be a number"),
            (json!({"exp": 2_000_000, "nbf": 1_500_000}), "not good before"),
            (json!({"exp": 2_000_000, "iat": 1_500_000}), "issued in the future"),
            (json!({"exp": 2_000_000, "sub": 7}), "sub must be text"),
            (json!({"exp": 2_000_000, "sub": "a|b"}), "sub: may only contain"),
            (json!({"exp": 2_000_000, "tenantId": ""}), "tenantId: must not be empty"),
            (json!({"exp": 2_000_000, "jobs": "a"}), "jobs must be an array"),
            (json!({"exp": 2_000_000, "jobs": ["a", 1]}), "jobs must be an array"),
            (json!({"exp": 2_000_000, "documents": ["a*b"]}), "documents: \"a*b\" must be an id"),
            (json!({"exp": 2_000_000, "scope": 1}), "scope must be text"),
            (json!({"exp": 2_000_000, "jti": "x".repeat(257)}), "jti must be at most 256"),
            (json!({"exp": 2_000_000, "aud": "us"}), "set auth.audience"),
        ];
        for (claims, problem) in cases {
            let error = pass(claims.clone(), &Expected::default()).unwrap_err();
            assert!(error.contains(problem), "{claims}: {error}");
        }
    }

    #[test]
    fn issuer_and_audience_are_required_where_they_are_configured() {
        let expected = Expected { issuer: Some("us".into()), audience: vec!["jobs".into(), "events".into()] };
        let check = |iss: Value, aud: Value| {
            pass(json!({"exp": 2_000_000, "iss": iss, "aud": aud}), &expected).err().unwrap_or_default()
        };
        for aud in [json!("jobs"), json!(["other", "events"])] {
            assert_eq!(check(json!("us"), aud), "");
        }
        for (iss, aud, problem) in [
            (json!(null), json!("jobs"), "iss is missing"),
            (json!("them"), json!("jobs"), "iss is not"),
            (json!(["us"]), json!("jobs"), "iss must be text"),
            (json!("us"), json!(null), "aud is missing"),
            (json!("us"), json!([]), "aud does not name"),
            (json!("us"), json!("job"), "aud does not name this gateway, which is called jobs or events"),
            (json!("us"), json!({"jobs": 1}), "aud must be"),
        ] {
            let error = check(iss.clone(), aud.clone());
            assert!(error.contains(problem), "{iss} {aud}: {error}");
        }
    }
}
