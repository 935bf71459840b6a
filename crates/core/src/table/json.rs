//! JSON values with their places in the text.
//!
//! serde drops positions, so an object is read as slices of the text (`RawValue`), whose
//! addresses are their places. A slice is valid JSON of any depth: `RawValue` is scanned
//! without recursion.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::problem::Refused;

/// One member of an object, as written.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub key: Raw<'a>,
    pub value: Raw<'a>,
}

/// One JSON value, as written: without white space around it, with quotes.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a>(&'a str);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|value| Self(value.get()))
    }
}

impl<'a> Raw<'a> {
    /// Reads `text` as one JSON value.
    ///
    /// # Errors
    ///
    /// If the text is not one JSON value and white space.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The byte offset of this value in `text`, of which it must be a part.
    pub fn offset_in(self, text: &str) -> usize {
        (self.0.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
    }

    /// Calls `read` with the members of this object in order, duplicates included, until it
    /// breaks. Returns whether this is an object. Keeps no member, as there may be millions.
    pub fn each_member(self, read: impl FnMut(Member<'a>) -> ControlFlow<()>) -> bool {
        let is_object = self.0.starts_with('{');
        if is_object {
            // The text is valid JSON, so that this fails only if `read` breaks.
            let _ = Deserializer::from_str(self.0).deserialize_map(MemberVisitor(read));
        }
        is_object
    }

    /// Calls `read` with the elements of this array in order, until it breaks. Returns whether
    /// this is an array.
    pub fn each_element(self, read: impl FnMut(Raw<'a>) -> ControlFlow<()>) -> bool {
        let is_array = self.0.starts_with('[');
        if is_array {
            let _ = Deserializer::from_str(self.0).deserialize_seq(ElementVisitor(read));
        }
        is_array
    }

    /// The elements of this array in order, and their number. If there are more than `most`,
    /// only the number. `None` if this is not an array.
    pub fn elements(self, most: usize) -> Option<(Vec<Raw<'a>>, usize)> {
        let (mut elements, mut count) = (Vec::new(), 0);
        let is_array = self.each_element(|element| {
            count += 1;
            match count <= most {
                true => elements.push(element),
                false => elements.clear(),
            }
            ControlFlow::Continue(())
        });
        is_array.then_some((elements, count))
    }

    /// Whether this is the word `null`.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// This number as it is written; `None` if this is not a number.
    pub fn number(self) -> Option<&'a str> {
        self.0
            .starts_with(|first: char| first == '-' || first.is_ascii_digit())
            .then_some(self.0)
    }

    /// The text of this string.
    ///
    /// # Errors
    ///
    /// If this is not a string, or one with escapes that are not valid text (an unpaired
    /// surrogate).
    pub fn string(self) -> Result<Cow<'a, str>, Refused<'a>> {
        let inner = self.0.strip_prefix('"');
        let Some(inner) = inner.and_then(|rest| rest.strip_suffix('"')) else {
            return Err(Refused::because(move || {
                format!("expected a string, found {}", self.described())
            }));
        };
        if !inner.contains('\\') {
            return Ok(Cow::Borrowed(inner));
        }
        // The scan has found all other errors in strings.
        serde_json::from_str(self.0).map(Cow::Owned).map_err(|_| {
            Refused::because(|| {
                "string with half of a surrogate pair \
                 (\\ud800 to \\udfff stand for text in pairs only)"
                    .to_owned()
            })
        })
    }

    /// Whether this is a string, with valid escapes or not.
    pub fn is_string(self) -> bool {
        self.0.starts_with('"')
    }

    /// What this is, in a few words: `an array`, `the number 42`.
    pub fn described(self) -> Described<'a> {
        Described(self)
    }
}

/// See [`Raw::described`].
pub(super) struct Described<'a>(Raw<'a>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 24;
        let text = self.0.0;
        match text.as_bytes().first() {
            Some(b'{') => f.write_str("an object"),
            Some(b'[') => f.write_str("an array"),
            Some(b'"') => f.write_str("a string"),
            Some(b'-' | b'0'..=b'9') if text.len() > SHOWN => f.write_str("a long number"),
            Some(b'-' | b'0'..=b'9') => write!(f, "the number {text}"),
            // true, false or null.
            _ => f.write_str(text),
        }
    }
}

struct MemberVisitor<F>(F);

impl<'de, F: FnMut(Member<'de>) -> ControlFlow<()>> Visitor<'de> for MemberVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry()? {
            if (self.0)(Member { key, value }).is_break() {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

struct ElementVisitor<F>(F);

impl<'de, F: FnMut(Raw<'de>) -> ControlFlow<()>> Visitor<'de> for ElementVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            if (self.0)(element).is_break() {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// The message of an error of serde_json without its position, whose column is in bytes.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    if text.ends_with(&position) {
        text.truncate(text.len() - position.len());
    }
    text
}

/// The byte offset of an error of serde_json in `text`.
pub(super) fn offset_of(error: &serde_json::Error, text: &str) -> usize {
    let line_start = match error.line() {
        0 => return 0,
        1 => 0,
        line => memchr::memchr_iter(b'\n', text.as_bytes())
            .nth(line - 2)
            .map_or(text.len(), |newline| newline + 1),
    };
    // Columns start at 1; 0 is the line break before the line.
    let mut offset = (line_start + error.column())
        .saturating_sub(1)
        .min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A line and a column, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// The positions of some offsets, found in one pass over the text, as a document may be one
/// line of many megabytes.
pub(super) struct Positions(Vec<(usize, Position)>);

impl Positions {
    /// Finds the positions of `offsets` in `text`, each the start of a character.
    pub fn find(text: &str, mut offsets: Vec<usize>) -> Self {
        offsets.sort_unstable();
        offsets.dedup();
        let (mut line, mut column, mut from) = (1, 1, 0);
        let found = offsets
            .into_iter()
            .map(|offset| {
                let passed = text.get(from..offset).unwrap_or_default();
                let newlines = memchr::memchr_iter(b'\n', passed.as_bytes()).count();
                let tail = match memchr::memrchr(b'\n', passed.as_bytes()) {
                    Some(newline) => {
                        column = 1;
                        passed.get(newline + 1..).unwrap_or_default()
                    }
                    None => passed,
                };
                line += newlines;
                column += tail.chars().count();
                from = offset;
                let position = Position {
                    line: u32::try_from(line).unwrap_or(u32::MAX),
                    column: u32::try_from(column).unwrap_or(u32::MAX),
                };
                (offset, position)
            })
            .collect();
        Self(found)
    }

    /// The position of one of the offsets.
    pub fn of(&self, offset: usize) -> Position {
        match self.0.binary_search_by_key(&offset, |(at, _)| *at) {
            Ok(index) => self.0.get(index).map(|(_, position)| *position),
            Err(_) => None,
        }
        .unwrap_or(Position { line: 0, column: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_places() {
        let text = " { \"a\" : [1, {}],\n\"\\u0061\": \"x\", \"a\":null}";
        let object = Raw::parse(text).unwrap();
        let mut members = Vec::new();
        assert!(object.each_member(|member| {
            members.push(member);
            ControlFlow::Continue(())
        }));
        let seen: Vec<_> = members
            .iter()
            .map(|member| {
                let key = member.key.string().ok().unwrap().into_owned();
                (
                    key,
                    member.key.offset_in(text),
                    member.value.offset_in(text),
                    member.value.0,
                )
            })
            .collect();
        let a = "a".to_owned();
        assert_eq!(
            seen,
            [
                (a.clone(), 3, 9, "[1, {}]"),
                (a.clone(), 18, 28, "\"x\""),
                (a, 33, 37, "null")
            ]
        );
        for member in &members {
            assert!(!member.value.each_member(|_| panic!("it is no object")));
        }
    }

    #[test]
    fn reading_stops_where_the_caller_breaks() {
        let break_at = |end: usize, count: &mut usize| {
            *count += 1;
            match *count == end {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        for (end, expected) in [(1, 1), (2, 2), (3, 3), (9, 3)] {
            let (mut members, mut elements) = (0, 0);
            let object = Raw::parse(r#"{"a": 1, "b": [{}], "a": 2}"#).unwrap();
            assert!(object.each_member(|_| break_at(end, &mut members)));
            let array = Raw::parse("[1, [2], 3]").unwrap();
            assert!(array.each_element(|_| break_at(end, &mut elements)));
            assert_eq!((members, elements), (expected, expected));
        }
        let array = Raw::parse("[1, [2], 3]").unwrap();
        let few = |most| array.elements(most).map(|(few, count)| (few.len(), count));
        assert_eq!((few(2), few(3)), (Some((0, 3)), Some((3, 3))));
        assert!(Raw::parse("{}").unwrap().elements(3).is_none());
    }

    #[test]
    fn values_are_described() {
        for (text, expected) in [
            ("{}", "an object"),
            ("[]", "an array"),
            ("\"x\"", "a string"),
            ("-1.5e3", "the number -1.5e3"),
            ("true", "true"),
            ("null", "null"),
        ] {
            assert_eq!(Raw::parse(text).unwrap().described().to_string(), expected);
        }
        assert_eq!(
            Raw::parse(&"9".repeat(1000))
                .unwrap()
                .described()
                .to_string(),
            "a long number"
        );
    }

    #[test]
    fn columns_count_characters() {
        let text = "ab\nzür\u{1F600}x\r\n\n  y";
        let places = [
            ("a", 1, 1),
            ("b", 1, 2),
            ("z", 2, 1),
            ("r", 2, 3),
            ("x", 2, 5),
            ("y", 4, 3),
        ];
        let offset = |part: &str| text.find(part).unwrap();
        let positions = Positions::find(
            text,
            places.iter().rev().map(|(part, ..)| offset(part)).collect(),
        );
        for (part, line, column) in places {
            assert_eq!(
                positions.of(offset(part)),
                Position { line, column },
                "{part}"
            );
        }
        let end = Positions::find(text, vec![text.len(), text.len()]);
        assert_eq!(end.of(text.len()), Position { line: 4, column: 4 });
    }

    #[test]
    fn errors_of_serde_point_into_the_text() {
        for (text, expected) in [
            ("", 0),
            ("nope", 1),
            ("{\n  \"ü\": ?\n}", 10),
            ("{}\n\n x", 5),
            ("[1,\n", 3),
            ("\"a\nb\"", 2),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            let offset = offset_of(&error, text);
            assert_eq!(offset, expected, "{text:?}: {error}");
        }
    }
}
