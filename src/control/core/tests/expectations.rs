//! Conditions as they come in headers.

use super::super::{Etag, Expected};
use crate::protocol::Mark;

const DIGEST: &str = "000000000000000000000000000000ab";

fn mark(generation: u64) -> Mark {
    Mark {
        generation,
        digest: DIGEST.parse().unwrap(),
    }
}

#[test]
fn an_entity_tag_has_generation_and_digest() {
    assert_eq!(Etag::of(mark(7)).to_string(), format!("\"g7-{DIGEST}\""));
}

#[test]
fn conditions_are_read() {
    let seven = Etag::of(mark(7));
    let eight = Etag::of(mark(8));
    let quoted = seven.to_string();
    let both = format!(" {seven} ,{eight}");
    for (if_match, if_none_match, expected) in [
        (None, None, Expected::Anything),
        (None, Some(" * "), Expected::Nothing),
        (Some("*"), None, Expected::Something),
        (
            Some(quoted.as_str()),
            None,
            Expected::OneOf(vec![seven.clone()]),
        ),
        (
            Some(both.as_str()),
            None,
            Expected::OneOf(vec![seven, eight]),
        ),
    ] {
        let read = Expected::parse(if_match, if_none_match);
        assert_eq!(read, Ok(expected), "{if_match:?} {if_none_match:?}");
    }
}

#[test]
fn what_is_no_condition_is_named() {
    for (if_match, if_none_match, said) in [
        (Some("*"), Some("*"), "at once"),
        (None, Some("\"g7\""), "If-None-Match: \"g7\" (valid: *)"),
        (Some("g7"), None, "If-Match: g7 (valid"),
        (Some("W/\"g7\""), None, "W/"),
        (Some("\"g7\", "), None, "valid"),
        (Some(""), None, "valid"),
        (Some("\"\""), None, "valid"),
        (Some("\""), None, "valid"),
    ] {
        let refused = Expected::parse(if_match, if_none_match).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains(said), "{if_match:?}: {refused}");
    }
}

#[test]
fn conditions_hold_or_not() {
    let one_of = |generation| Expected::OneOf(vec![Etag::of(mark(generation))]);
    for (expected, newest, holds) in [
        (Expected::Anything, None, true),
        (Expected::Anything, Some(7), true),
        (Expected::Nothing, None, true),
        (Expected::Nothing, Some(7), false),
        (Expected::Something, None, false),
        (Expected::Something, Some(7), true),
        (one_of(7), None, false),
        (one_of(7), Some(7), true),
        (one_of(7), Some(8), false),
    ] {
        let newest = newest.map(mark);
        assert_eq!(expected.holds(newest), holds, "{expected:?} {newest:?}");
    }
}
