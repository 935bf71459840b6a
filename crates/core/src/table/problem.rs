//! One thing that is wrong with a routing document, in words that an operator
//! can act on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::wording::Quoted;

/// One thing that is wrong with a routing document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// RFC 6901 pointer to the value at fault; empty for the document as a
    /// whole. A key that is itself at fault is pointed to as if it were there.
    pub pointer: String,
    /// Line of the value (or key) at fault, from 1; 0 when there is no place.
    pub line: u32,
    /// Column in characters, from 1; 0 when there is no place.
    pub column: u32,
    /// What is wrong and what would be right: lowercase, one line.
    pub message: String,
}

impl Problem {
    /// A problem that has no place in a document, such as a file that could not
    /// be read.
    pub fn without_place(message: impl Into<String>) -> Self {
        Self {
            pointer: String::new(),
            line: 0,
            column: 0,
            message: message.into(),
        }
    }
}

/// `routingTable["acme"]: unknown placement "tier9" (…) at line 4 column 13`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Named(self))?;
        if self.line > 0 {
            write!(f, " at line {} column {}", self.line, self.column)?;
        }
        Ok(())
    }
}

impl Problem {
    /// The same words without the position, for a reader who is shown that
    /// apart (as in `FILE:LINE:COLUMN: …`).
    pub fn without_position(&self) -> impl fmt::Display + '_ {
        Named(self)
    }
}

struct Named<'a>(&'a Problem);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            pointer, message, ..
        } = self.0;
        // A delta has the fields of a document one level down.
        let pointer = match pointer.strip_prefix("/head") {
            Some(rest) if rest.starts_with('/') => {
                f.write_str("head.")?;
                rest
            }
            _ => pointer,
        };
        let of_fields = pointer.starts_with("/defaults/");
        for (depth, token) in pointer.split('/').skip(1).enumerate() {
            let name = token.replace("~1", "/").replace("~0", "~");
            match depth {
                // The second level holds the operator's own names; quoted, they
                // cannot be taken for ours.
                1 if !of_fields => write!(f, "[{}]", Quoted(&name))?,
                2.. if is_index(&name) => write!(f, "[{name}]")?,
                _ if !is_identifier(&name) => write!(f, "[{}]", Quoted(&name))?,
                0 => f.write_str(&name)?,
                _ => write!(f, ".{name}")?,
            }
        }
        if !pointer.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(message)
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= 64
}

/// Whether `name` is written as the position of an array's element (RFC 6901,
/// section 4).
fn is_index(name: &str) -> bool {
    name == "0"
        || (!name.starts_with('0')
            && (1..=9).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The last entry of a list that is not complete.
pub(super) fn and_more(left_out: usize) -> Option<Problem> {
    match left_out {
        0 => None,
        1 => Some(Problem::without_place("and 1 more problem")),
        more => Some(Problem::without_place(format!("and {more} more problems"))),
    }
}

/// Appends one level to an RFC 6901 pointer, escaped as section 3 says.
pub(super) fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    for character in token.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(pointer: &str, line: u32, column: u32) -> Problem {
        Problem {
            pointer: pointer.to_owned(),
            line,
            column,
            message: "is odd".to_owned(),
        }
    }

    #[test]
    fn reads_as_a_path_a_message_and_a_place() {
        for (pointer, line, column, expected) in [
            ("", 0, 0, "is odd"),
            ("", 1, 1, "is odd at line 1 column 1"),
            ("/version", 2, 14, "version: is odd at line 2 column 14"),
            (
                "/routingTable/acme",
                4,
                13,
                "routingTable[\"acme\"]: is odd at line 4 column 13",
            ),
            (
                "/routingTable/a~1b~0c",
                0,
                0,
                "routingTable[\"a/b~c\"]: is odd",
            ),
            ("/routingTable/", 0, 0, "routingTable[\"\"]: is odd"),
            ("/not a name", 0, 0, "[\"not a name\"]: is odd"),
            (
                "/placements/tier1/health_check/path",
                0,
                0,
                "placements[\"tier1\"].health_check.path: is odd",
            ),
            (
                "/placements/0/endpoints/10/url",
                0,
                0,
                "placements[\"0\"].endpoints[10].url: is odd",
            ),
            (
                "/placements/a/01",
                0,
                0,
                "placements[\"a\"][\"01\"]: is odd",
            ),
            (
                "/head/placements/tier1/url",
                1,
                2,
                "head.placements[\"tier1\"].url: is odd at line 1 column 2",
            ),
            ("/head", 0, 0, "head: is odd"),
            ("/set/a~1b", 0, 0, "set[\"a/b\"]: is odd"),
            (
                "/defaults/retries/on/0",
                0,
                0,
                "defaults.retries.on[0]: is odd",
            ),
        ] {
            assert_eq!(problem(pointer, line, column).to_string(), expected);
        }
    }

    #[test]
    fn pointers_are_escaped_as_rfc_6901_says() {
        let mut pointer = String::new();
        for token in ["routingTable", "a/b", "m~n", "~1", ""] {
            push_token(&mut pointer, token);
        }
        assert_eq!(pointer, "/routingTable/a~1b/m~0n/~01/");
    }
}
