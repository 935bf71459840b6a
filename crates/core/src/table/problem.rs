//! One problem of a routing document, and how messages quote values, list names and suggest
//! one of them.
//!
//! Quoted values come from outside and may be megabytes long or hold terminal escapes. Every
//! message that is made here is short and on one line.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// One problem of a routing document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// RFC 6901 pointer to the value with the problem; empty for the whole document. For a
    /// problem with a key, the pointer to the value of that key.
    pub pointer: String,
    /// Line of the value or key, from 1; 0 if the problem has no place.
    pub line: u32,
    /// Column in characters, from 1; 0 if the problem has no place.
    pub column: u32,
    /// What is wrong and what would be valid: lowercase, one line.
    pub message: String,
}

impl Problem {
    /// A problem without a place in a document, such as a file that cannot be read.
    pub fn without_place(message: impl Into<String>) -> Self {
        Self {
            pointer: String::new(),
            line: 0,
            column: 0,
            message: message.into(),
        }
    }

    /// Shows the problem without its position, for output that begins with the position
    /// (`FILE:LINE:COLUMN: …`).
    pub fn without_position(&self) -> impl fmt::Display + '_ {
        Named(self)
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
                // The second level has names that the operator chose; quotes tell them from
                // fields.
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

/// Whether `name` may be the index of an array's element (RFC 6901, section 4).
fn is_index(name: &str) -> bool {
    name == "0"
        || (!name.starts_with('0')
            && (1..=9).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The last entry of a list of problems that left some out.
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

/// Why a value is refused. It is put into words only if it is reported, as a document may
/// have millions of bad values.
pub(super) struct Refused<'a>(Box<dyn Fn() -> String + 'a>);

impl<'a> Refused<'a> {
    pub fn because(why: impl Fn() -> String + 'a) -> Self {
        Self(Box::new(why))
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.0)())
    }
}

/// The longest part of a value that a message repeats, in characters.
const QUOTED_CHARS: usize = 80;

/// The most valid names that a message lists.
const LISTED: usize = 10;

/// The most names that are compared to find the nearest one. Comparing the names of a million
/// placements for each of a hundred problems would take minutes.
const COMPARED: usize = 10_000;

/// A value in double quotes, escaped and cut if it is long.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut rest = self.0.chars();
        for character in rest.by_ref().take(QUOTED_CHARS) {
            match character {
                // `escape_debug` would escape it, which double quotes do not need.
                '\'' => f.write_char('\'')?,
                other => write!(f, "{}", other.escape_debug())?,
            }
        }
        if !rest.as_str().is_empty() {
            f.write_char('…')?;
        }
        f.write_char('"')
    }
}

/// The message `unknown field "verison" (known: …)`: the `what` called `wrong` is not one of
/// `names`.
pub(super) fn unknown<'a>(
    what: &str,
    wrong: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> String {
    format!("unknown {what} {} ({})", Quoted(wrong), known(names, wrong))
}

/// The end of a message about `wrong`: `known: a, b, c; did you mean "b"?`.
fn known<'a>(names: impl Iterator<Item = &'a str> + Clone, wrong: &str) -> String {
    let mut text = String::from("known: ");
    let total = names.clone().count();
    for (index, name) in names.clone().take(LISTED).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        let _ = write!(text, "{}", Bare(name));
    }
    match total {
        0 => text.push_str("none"),
        _ if total > LISTED => {
            let _ = write!(text, " and {} more", total - LISTED);
        }
        _ => {}
    }
    if let Some(name) = nearest(names, wrong) {
        let _ = write!(text, "; did you mean {}?", Quoted(name));
    }
    text
}

/// A name in a list, quoted only if it would be ambiguous without quotes.
pub(super) struct Bare<'a>(pub &'a str);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b",;()\"".contains(&byte);
        if !self.0.is_empty() && self.0.len() <= QUOTED_CHARS && self.0.bytes().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{}", Quoted(self.0))
        }
    }
}

/// The name that `wrong` is probably a misspelling of: the first of those with the fewest
/// edits, ignoring case.
pub(super) fn nearest<'a>(names: impl Iterator<Item = &'a str>, wrong: &str) -> Option<&'a str> {
    // With more than one edit for three characters, it is another word.
    nearest_within(names, wrong, (wrong.chars().count() / 3).max(1))
}

/// As [`nearest`], with at most `allowed` edits.
pub(super) fn nearest_within<'a>(
    names: impl Iterator<Item = &'a str>,
    wrong: &str,
    allowed: usize,
) -> Option<&'a str> {
    let length = wrong.chars().count();
    if length == 0 || length > QUOTED_CHARS {
        return None;
    }
    let folded = wrong.to_lowercase();
    names
        .take(COMPARED)
        .filter(|name| name.len() <= 4 * QUOTED_CHARS)
        .filter(|name| name.chars().count().abs_diff(length) <= allowed)
        .map(|name| (strsim::osa_distance(&name.to_lowercase(), &folded), name))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
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

    #[test]
    fn quotes_are_short_and_on_one_line() {
        for (value, expected) in [
            ("tier9", "\"tier9\""),
            ("", "\"\""),
            ("it's", "\"it's\""),
            ("say \"hi\"", r#""say \"hi\"""#),
            ("a\nb\u{1b}[31m", r#""a\nb\u{1b}[31m""#),
            ("zürich", "\"zürich\""),
        ] {
            assert_eq!(Quoted(value).to_string(), expected);
        }
        let long = "x".repeat(1_000_000);
        assert_eq!(
            Quoted(&long).to_string(),
            format!("\"{}…\"", "x".repeat(80))
        );
    }

    #[test]
    fn lists_are_cut_and_suggest() {
        let list = |names: &[&str], wrong: &str| known(names.iter().copied(), wrong);
        assert_eq!(
            list(&["tier1", "tier2", "visa"], "tier9"),
            "known: tier1, tier2, visa; did you mean \"tier1\"?"
        );
        assert_eq!(list(&["tier1", "visa"], "mastercard"), "known: tier1, visa");
        assert_eq!(list(&[], "tier1"), "known: none");
        assert_eq!(list(&["a b", "", "c"], "tier1"), "known: \"a b\", \"\", c");
        let many: Vec<String> = (0..25).map(|n| format!("cell-{n}")).collect();
        let text = known(many.iter().map(String::as_str), "zzz");
        assert!(text.ends_with("cell-8, cell-9 and 15 more"), "{text}");
    }

    #[test]
    fn the_nearest_name_is_a_few_edits_away() {
        let names = || {
            [
                "version",
                "routingTable",
                "cellEndpoints",
                "defaultPlacement",
            ]
            .into_iter()
        };
        for (wrong, expected) in [
            ("Version", Some("version")),
            ("verison", Some("version")),
            ("routing_table", Some("routingTable")),
            ("cellEndpoint", Some("cellEndpoints")),
            ("placements", None),
            ("", None),
        ] {
            assert_eq!(nearest(names(), wrong), expected, "{wrong}");
        }
        assert_eq!(nearest(names(), &"x".repeat(10_000)), None);
    }
}
