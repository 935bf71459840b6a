//! Parameters in a URL. Read strictly: a filter that was misread would answer
//! another question than the one asked.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::refused::Refused;

/// Parameters by name.
#[derive(Debug)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads a query, of which each of `names` may be there once.
    ///
    /// # Errors
    /// What else is there, or how it is badly encoded.
    pub fn parse(query: &str, names: &[&'static str]) -> Result<Self, Refused> {
        let mut read: Vec<(&'static str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let Some(known) = names.iter().find(|known| **known == name) else {
                return Err(bad(match names {
                    [] => format!("unknown parameter {name:?} (none is valid here)"),
                    names => format!("unknown parameter {name:?} (valid: {})", names.join(", ")),
                }));
            };
            if read.iter().any(|(other, _)| other == known) {
                return Err(bad(format!("parameter {known} is given more than once")));
            }
            read.push((known, value));
        }
        Ok(Self(read))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// It is none.
    pub fn number<N>(&self, name: &str, range: RangeInclusive<N>) -> Result<Option<N>, Refused>
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

fn bad(message: String) -> Refused {
    Refused::bad("invalid_query", message)
}

fn decoded(text: &str) -> Result<String, Refused> {
    if !well_encoded(text) {
        return Err(bad(format!(
            "{text}: a % is not followed by two hexadecimal digits (valid: %25 for a percent sign)"
        )));
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(bad(format!("{text}: not UTF-8 once decoded"))),
    }
}

/// Whether every percent sign begins an encoded byte (RFC 3986, section 2.1).
pub(super) fn well_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}
