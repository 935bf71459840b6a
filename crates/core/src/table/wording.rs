//! How messages quote, list and suggest.
//!
//! What is quoted came from outside and may be megabytes long or hold terminal
//! escapes; whatever passes through here comes out short and on one line.

use std::fmt::{self, Write as _};

/// Longest part of a value that a message repeats, in characters.
const QUOTED_CHARS: usize = 80;

/// How many known names a message lists.
const LISTED: usize = 10;

/// How many names are compared for the nearest one. A table with a placement
/// for every tenant has a million; that many comparisons for each of a hundred
/// problems would take minutes.
const COMPARED: usize = 10_000;

/// A value in double quotes: escaped, and cut when long.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut rest = self.0.chars();
        for character in rest.by_ref().take(QUOTED_CHARS) {
            match character {
                // Debug escapes it, and it needs no escape in double quotes.
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

/// `unknown field "verison" (known: …)`: `wrong` is no `what` of those.
pub(super) fn unknown<'a>(
    what: &str,
    wrong: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> String {
    format!("unknown {what} {} ({})", Quoted(wrong), known(names, wrong))
}

/// `known: a, b, c; did you mean "b"?`, the end of a message about `wrong`.
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

/// A name in a list: bare when that is unambiguous, else quoted.
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

/// The name that `wrong` was most likely meant to be, if any comes close: the
/// first of those with the fewest edits, letter case aside.
pub(super) fn nearest<'a>(names: impl Iterator<Item = &'a str>, wrong: &str) -> Option<&'a str> {
    // One edit in three characters is a slip; more is another word.
    nearest_within(names, wrong, (wrong.chars().count() / 3).max(1))
}

/// The same, at most `allowed` edits away.
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
    fn the_nearest_name_is_a_slip_away() {
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
