//! Entity tags of generations, and the preconditions that refer to them (RFC 9110,
//! section 13).

use std::fmt;

use utoipa::ToSchema;

use crate::protocol::Mark;

/// The entity tag of a generation, without its quotes: `g7-<digest>`.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(as = ETag, pattern = "^\"g[0-9]+-[0-9a-f]{32}\"$")]
pub struct Etag(String);

impl Etag {
    pub fn of(mark: Mark) -> Self {
        Self(format!("g{}-{}", mark.generation, mark.digest))
    }
}

/// With quotes, as in a header.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A precondition on the newest generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// No precondition.
    #[default]
    Anything,
    /// There is a generation (`If-Match: *`).
    Something,
    /// There is none yet (`If-None-Match: *`).
    Nothing,
    /// It is one of these (`If-Match`).
    OneOf(Vec<Etag>),
}

/// Why a header is not a valid precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtagError(String);

impl fmt::Display for EtagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EtagError {}

impl Expected {
    /// Reads the values of `If-Match` and `If-None-Match`, if they were sent.
    ///
    /// # Errors
    /// One of them is neither `*` nor a list of entity tags, both were sent, or
    /// `If-None-Match` is not `*`: a change on condition that a generation is *not* the
    /// newest is hardly ever intended.
    pub fn parse(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Self, EtagError> {
        let expected = match (if_match, if_none_match.map(str::trim)) {
            (Some(_), Some(_)) => {
                return Err(EtagError(
                    "If-Match and If-None-Match at once (valid: one of them)".to_owned(),
                ));
            }
            (None, None) => Self::Anything,
            (None, Some("*")) => Self::Nothing,
            (None, Some(other)) => {
                return Err(EtagError(format!("If-None-Match: {other} (valid: *)")));
            }
            (Some(tags), None) if tags.trim() == "*" => Self::Something,
            (Some(tags), None) => Self::OneOf(tags.split(',').map(tag).collect::<Result<_, _>>()?),
        };
        Ok(expected)
    }

    /// Whether `newest` meets the precondition.
    pub fn holds(&self, newest: Option<Mark>) -> bool {
        match (self, newest) {
            (Self::Anything, _) | (Self::Something, Some(_)) | (Self::Nothing, None) => true,
            (Self::Something, None) | (Self::Nothing, Some(_)) | (Self::OneOf(_), None) => false,
            (Self::OneOf(tags), Some(newest)) => tags.contains(&Etag::of(newest)),
        }
    }
}

/// Parses a strong entity tag. A weak one never matches (RFC 9110, section 13.1.1).
fn tag(text: &str) -> Result<Etag, EtagError> {
    let text = text.trim();
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|inner| !inner.is_empty() && !inner.contains('"'));
    match inner {
        Some(inner) => Ok(Etag(inner.to_owned())),
        None => Err(EtagError(format!(
            "If-Match: {text} (valid: * or entity tags in quotes, such as the ETag of an answer)"
        ))),
    }
}
