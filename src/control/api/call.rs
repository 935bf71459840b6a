//! What was asked for, apart from the body.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::query::{Query, well_encoded};
use super::refused::Refused;
use crate::control::access::Caller;
use crate::control::core::{Etag, Expected, Truth};
use crate::control::store::Author;
use crate::control::{Control, Peer};

/// A request without its body.
pub(super) struct Call {
    pub control: Control,
    parts: Parts,
}

impl FromRequestParts<Control> for Call {
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

impl Call {
    pub fn truth(&self) -> &Arc<Truth> {
        &self.control.truth
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The part of the path that names one of a kind: `{name}` in
    /// `/api/v1/kind/{name}`, decoded.
    ///
    /// # Errors
    /// It is not well encoded, or no UTF-8.
    pub fn name(&self) -> Result<String, Refused> {
        let name = self.parts.uri.path().split('/').nth(4).unwrap_or_default();
        let bad = |what| Refused::bad("invalid_path", format!("path: {name}: {what}"));
        if !well_encoded(name) {
            return Err(bad(
                "a % is not followed by two hexadecimal digits (valid: %25 for a percent sign)",
            ));
        }
        let text = percent_decode_str(name).decode_utf8();
        let text = text.map_err(|_| bad("not UTF-8 once decoded"))?;
        Ok(text.into_owned())
    }

    /// The generation that the path names.
    ///
    /// # Errors
    /// It is no number.
    pub fn generation(&self) -> Result<u64, Refused> {
        let name = self.name()?;
        name.parse().map_err(|_| {
            let what = format!("generation {name:?} is not a whole number (such as 7)");
            Refused::bad("invalid_path", what)
        })
    }

    /// What follows the question mark, of which `names` may be there.
    ///
    /// # Errors
    /// Something else is there, or it cannot be read.
    pub fn query(&self, names: &[&'static str]) -> Result<Query, Refused> {
        Query::parse(self.parts.uri.query().unwrap_or_default(), names)
    }

    /// On what condition a change is to be made.
    ///
    /// # Errors
    /// The condition cannot be read.
    pub fn expected(&self) -> Result<Expected, Refused> {
        let (if_match, if_none_match) = (self.list(&IF_MATCH)?, self.list(&IF_NONE_MATCH)?);
        Expected::parse(if_match.as_deref(), if_none_match.as_deref())
            .map_err(|error| Refused::bad("invalid_condition", error.to_string()))
    }

    /// Whether whoever asks has `etag` already (RFC 9110, section 13.1.2).
    pub fn has(&self, etag: &Etag) -> bool {
        let etag = etag.to_string();
        let Ok(Some(tags)) = self.list(&IF_NONE_MATCH) else {
            return false;
        };
        tags.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }

    /// Who asks for `what`, for the record.
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
    fn list(&self, name: &HeaderName) -> Result<Option<String>, Refused> {
        let mut all: Option<String> = None;
        for value in self.parts.headers.get_all(name) {
            let value = value.to_str().map_err(|_| {
                Refused::bad("invalid_condition", format!("{name}: not printable ASCII"))
            })?;
            match &mut all {
                Some(all) => {
                    all.push(',');
                    all.push_str(value);
                }
                None => all = Some(value.to_owned()),
            }
        }
        Ok(all)
    }
}
