//! Where things stand in a JSON text: the raw members of its objects, and byte
//! offsets as lines and columns.
//!
//! serde drops positions, so an object is read as slices of the text
//! (`RawValue`), each of which knows its place by its address. What the slices
//! hold has passed the JSON grammar, whatever its depth: `RawValue` is scanned,
//! not recursed into.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One member of an object, as written.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub key: Raw<'a>,
    pub value: Raw<'a>,
}

/// One JSON value, as written: no white space around it, quotes included.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// Reads `text` as one JSON value.
    ///
    /// # Errors
    ///
    /// When the text is not one JSON value and white space.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(Self::from)
    }

    /// The byte offset of this value in `text`, of which it must be a part.
    pub fn offset_in(self, text: &str) -> usize {
        (self.0.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
    }

    /// The members of this object in order, duplicates included; `None` when
    /// this is no object.
    pub fn members(self) -> Option<Vec<Member<'a>>> {
        let Members(members) = serde_json::from_str(self.0).ok()?;
        Some(members)
    }

    /// The elements of this array in order; `None` when this is no array.
    pub fn elements(self) -> Option<Vec<Raw<'a>>> {
        let elements: Vec<&RawValue> = serde_json::from_str(self.0).ok()?;
        Some(elements.into_iter().map(Self::from).collect())
    }

    /// Whether this is the word `null`.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Whether this is a string.
    pub fn is_string(self) -> bool {
        self.0.starts_with('"')
    }

    /// This number as it was written; `None` when this is no number.
    pub fn number(self) -> Option<&'a str> {
        self.0
            .starts_with(|first: char| first == '-' || first.is_ascii_digit())
            .then_some(self.0)
    }

    /// The text of this string.
    ///
    /// # Errors
    ///
    /// When this is no string, or one whose escapes stand for no text (such as
    /// half of a surrogate pair), with the words for it.
    pub fn string(self) -> Result<Cow<'a, str>, String> {
        let Some(inner) = self
            .0
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        else {
            return Err(format!("expected a string, found {}", self.described()));
        };
        if !inner.contains('\\') {
            return Ok(Cow::Borrowed(inner));
        }
        // Of all that can be wrong with a string, this alone passes the scan.
        serde_json::from_str(self.0).map(Cow::Owned).map_err(|_| {
            "string with half of a surrogate pair (\\ud800 to \\udfff stand for text in pairs only)"
                .to_owned()
        })
    }

    /// What this is, in a few words: `an array`, `the number 42`.
    pub fn described(self) -> String {
        const SHOWN: usize = 24;
        match self.0.as_bytes().first() {
            Some(b'{') => "an object".to_owned(),
            Some(b'[') => "an array".to_owned(),
            Some(b'"') => "a string".to_owned(),
            Some(b'-' | b'0'..=b'9') if self.0.len() > SHOWN => "a long number".to_owned(),
            Some(b'-' | b'0'..=b'9') => format!("the number {}", self.0),
            // The words that remain: true, false and null.
            _ => self.0.to_owned(),
        }
    }
}

impl<'a> From<&'a RawValue> for Raw<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get())
    }
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.push(Member {
                key: key.into(),
                value: value.into(),
            });
        }
        Ok(Members(members))
    }
}

/// What serde_json says, without where: it counts columns in bytes.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    if text.ends_with(&position) {
        text.truncate(text.len() - position.len());
    }
    text
}

/// The byte offset that an error of serde_json about `text` points to.
pub(super) fn offset_of(error: &serde_json::Error, text: &str) -> usize {
    let line_start = match error.line() {
        0 => return 0,
        1 => 0,
        line => memchr::memchr_iter(b'\n', text.as_bytes())
            .nth(line - 2)
            .map_or(text.len(), |newline| newline + 1),
    };
    // Its columns count from 1; 0 is the line break before the line.
    let mut offset = (line_start + error.column())
        .saturating_sub(1)
        .min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A place for people: line and column from 1, the column in characters.
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

/// The positions of some offsets, found in one sweep over the text: a document
/// may well be one line of many megabytes.
pub(super) struct Positions(Vec<(usize, Position)>);

impl Positions {
    /// Finds the positions of `offsets` in `text`; each must lie on a character.
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

    /// The position of one of the offsets that were looked for.
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

    #[test]
    fn members_keep_their_places() {
        let text = " { \"a\" : [1, {}],\n\"\\u0061\": \"x\", \"a\":null}";
        let object = Raw::parse(text).unwrap();
        let members = object.members().unwrap();
        let seen: Vec<_> = members
            .iter()
            .map(|member| {
                let key = member.key.string().unwrap().into_owned();
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
        assert!(
            members
                .iter()
                .all(|member| member.value.members().is_none())
        );
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
            assert_eq!(Raw::parse(text).unwrap().described(), expected);
        }
        assert_eq!(
            Raw::parse(&"9".repeat(1000)).unwrap().described(),
            "a long number"
        );
    }
}
