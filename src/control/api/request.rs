//! What a request asks for, apart from its body: path, query, conditions, author.
//!
//! Percent-encoding is read strictly, and so are query parameters: a filter that was misread would
//! answer another question than the one that was asked.

use std::convert::Infallible;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::error::ApiError;
use crate::control::access::Caller;
use crate::control::core::{Etag, Expected, Truth};
use crate::control::store::Author;
use crate::control::{Control, Peer};

/// A request without its body.
pub(super) struct ApiRequest {
    pub control: Control,
    parts: Parts,
}

impl FromRequestParts<Control> for ApiRequest {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Control,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self {
            control: control.clone(),
            parts: parts.clone(),
        })
    }
}

impl ApiRequest {
    pub fn truth(&self) -> &Arc<Truth> {
        &self.control.truth
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The decoded path segment `{name}` in `/api/v1/collection/{name}`.
    ///
    /// # Errors
    /// It is not valid percent-encoding, or not UTF-8.
    pub fn name(&self) -> Result<String, ApiError> {
        let name = self.parts.uri.path().split('/').nth(4).unwrap_or_default();
        decoded(name).map_err(|why| ApiError::bad("invalid_path", format!("path: {name}: {why}")))
    }

    /// The generation in the path.
    ///
    /// # Errors
    /// It is not a number.
    pub fn generation(&self) -> Result<u64, ApiError> {
        let name = self.name()?;
        name.parse().map_err(|_| {
            let why = format!("generation {name:?} is not a whole number (such as 7)");
            ApiError::bad("invalid_path", why)
        })
    }

    /// The query, which may have each of `names` once.
    ///
    /// # Errors
    /// It has another parameter or one of them twice, or is not valid percent-encoding.
    pub fn query(&self, names: &[&'static str]) -> Result<Query, ApiError> {
        Query::parse(self.parts.uri.query().unwrap_or_default(), names)
    }

    /// The condition of a change: `If-Match` and `If-None-Match`.
    ///
    /// # Errors
    /// The condition cannot be read.
    pub fn expected(&self) -> Result<Expected, ApiError> {
        let (if_match, if_none_match) = (self.list(&IF_MATCH)?, self.list(&IF_NONE_MATCH)?);
        Expected::parse(if_match.as_deref(), if_none_match.as_deref())
            .map_err(|error| ApiError::bad("invalid_condition", error.to_string()))
    }

    /// Whether the caller has the content of `etag` already (RFC 9110, section 13.1.2).
    pub fn has(&self, etag: &Etag) -> bool {
        let etag = etag.to_string();
        let Ok(Some(tags)) = self.list(&IF_NONE_MATCH) else {
            return false;
        };
        tags.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }

    /// Who makes this change, for the record; `what` is the change in a few words.
    pub fn author(&self, what: String) -> Author {
        let extensions = &self.parts.extensions;
        let caller = extensions.get::<Caller>();
        let peer = extensions.get::<Peer>();
        Author {
            who: caller.map_or_else(String::new, |caller| caller.name.clone()),
            from: peer.map_or_else(String::new, |peer| peer.address.to_string()),
            what,
        }
    }

    /// All values of a header that is a list (RFC 9110, section 5.3).
    fn list(&self, name: &HeaderName) -> Result<Option<String>, ApiError> {
        let mut all = Vec::new();
        for value in self.parts.headers.get_all(name) {
            let value = value.to_str().map_err(|_| {
                ApiError::bad("invalid_condition", format!("{name}: not printable ASCII"))
            })?;
            all.push(value);
        }
        Ok((!all.is_empty()).then(|| all.join(",")))
    }
}

/// Query parameters by name.
#[derive(Debug)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    fn parse(query: &str, names: &[&'static str]) -> Result<Self, ApiError> {
        let mut parameters: Vec<(&'static str, String)> = Vec::new();
        let decoded = |text: &str| {
            decoded(&text.replace('+', " ")).map_err(|why| bad(format!("{text}: {why}")))
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let Some(known) = names.iter().find(|known| **known == name) else {
                return Err(bad(match names {
                    [] => format!("unknown parameter {name:?} (none is valid here)"),
                    names => format!("unknown parameter {name:?} (valid: {})", names.join(", ")),
                }));
            };
            if parameters.iter().any(|(other, _)| other == known) {
                return Err(bad(format!("parameter {known} is given more than once")));
            }
            parameters.push((known, value));
        }
        Ok(Self(parameters))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// The parameter is not such a number.
    pub fn number<N>(&self, name: &str, range: RangeInclusive<N>) -> Result<Option<N>, ApiError>
    where
        N: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(bad(format!(
                "parameter {name}: {text:?} (valid: a whole number from {} to {})",
                range.start(),
                range.end()
            ))),
        }
    }
}

fn bad(message: String) -> ApiError {
    ApiError::bad("invalid_query", message)
}

/// Decodes percent-encoding (RFC 3986, section 2.1).
fn decoded(text: &str) -> Result<String, &'static str> {
    let well_encoded = text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !well_encoded {
        return Err(
            "a % is not followed by two hexadecimal digits (valid: %25 for a percent sign)",
        );
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("not UTF-8 after decoding"),
    }
}
