//! Where a request carries its credential.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, HeaderName},
};

use crate::error::{ApiError, ErrorCode};

/// A credential of a request, not checked yet.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential<'a> {
    /// `Authorization: Bearer` or `?token=`: a token or an API key.
    Any(Cow<'a, str>),
    /// `X-API-Key`: an API key.
    ApiKey(&'a str),
}

/// Shows the kind alone.
impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::Any(_) => "Any(..)",
            Credential::ApiKey(_) => "ApiKey(..)",
        })
    }
}

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The credential of a request: `Authorization: Bearer` (RFC 6750), `X-API-Key`, or the query parameter `token`, which
/// is decoded. `None` where it has none.
///
/// # Errors
/// [`ErrorCode::Unauthorized`] where a header is repeated, is not ASCII text or has another scheme, and where there are
/// several credentials (RFC 6750, section 2).
pub fn credential_of<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
) -> Result<Option<Credential<'a>>, ApiError> {
    let bearer = header(headers, &AUTHORIZATION)?.map(bearer).transpose()?;
    let bearer = bearer.map(|token| Credential::Any(Cow::Borrowed(token)));
    let key = header(headers, &API_KEY)?.map(|key| Credential::ApiKey(key.trim()));
    let mut tokens = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == "token")
        .map(|(_, token)| Credential::Any(token));
    let mut found = [bearer, key, tokens.next(), tokens.next()].into_iter().flatten();
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(unauthorized(
            "the request has several credentials: send one, in Authorization, in X-API-Key or as ?token=",
        )),
        (credential, None) => Ok(credential),
    }
}

/// The text of a header that may be there once.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let value = match (values.next(), values.next()) {
        (_, Some(_)) => return Err(unauthorized(&format!("the header {name} must be sent once"))),
        (value, None) => value,
    };
    let text = value.map(HeaderValue::to_str).transpose();
    text.map_err(|_| unauthorized(&format!("the header {name} must be ASCII text")))
}

/// The token of `Bearer <token>`; the scheme is read without regard to case (RFC 9110, section 11.1).
fn bearer(header: &str) -> Result<&str, ApiError> {
    match header.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(unauthorized("the header authorization must be \"Bearer \" and a token or an API key")),
    }
}

fn unauthorized(problem: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn any(token: &str) -> Option<Credential<'_>> {
        Some(Credential::Any(Cow::Borrowed(token)))
    }

    #[test]
    fn finds_each_kind() {
        let none = headers(&[]);
        assert_eq!(credential_of(&none, None), Ok(None));
        assert_eq!(credential_of(&none, Some("since=1&EIO=4")), Ok(None));
        assert_eq!(credential_of(&none, Some("EIO=4&token=a.b-c_d")), Ok(any("a.b-c_d")));
        assert_eq!(credential_of(&none, Some("token=a%2Eb")), Ok(any("a.b")));
        assert_eq!(credential_of(&none, Some("token")), Ok(any("")));
        for scheme in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c  "] {
            let some = headers(&[("authorization", scheme.as_bytes())]);
            assert_eq!(credential_of(&some, Some("tokens=x")), Ok(any("a.b.c")));
        }
        let key = headers(&[("X-API-Key", b"jc_1")]);
        assert_eq!(credential_of(&key, None), Ok(Some(Credential::ApiKey("jc_1"))));
    }

    #[test]
    fn refuses_what_is_ambiguous_or_of_another_kind() {
        let basic: (&str, &[u8]) = ("authorization", b"Basic abc");
        let bearer: (&str, &[u8]) = ("authorization", b"Bearer abc");
        let key: (&str, &[u8]) = ("x-api-key", b"abc");
        for (all, query, problem) in [
            (vec![basic], None, "must be \"Bearer \""),
            (vec![("authorization", &b"Bearer"[..])], None, "must be \"Bearer \""),
            (vec![bearer, bearer], None, "authorization must be sent once"),
            (vec![key, key], None, "x-api-key must be sent once"),
            (vec![("authorization", &b"Bearer \xff"[..])], None, "ASCII"),
            (vec![("x-api-key", &b"\xc3\xa9"[..])], None, "ASCII"),
            (vec![bearer, key], None, "several"),
            (vec![bearer], Some("token=a"), "several"),
            (vec![], Some("token=a&token=b"), "several"),
        ] {
            let error = credential_of(&headers(&all), query).expect_err(problem);
            assert_eq!(error.code, ErrorCode::Unauthorized);
            assert!(error.message.contains(problem) && !error.message.contains("abc"), "{error}");
        }
    }

    #[test]
    fn is_not_shown() {
        assert_eq!(
            format!("{:?} {:?}", any("secret"), Credential::ApiKey("secret")),
            "Some(Any(..)) ApiKey(..)"
        );
    }
}
