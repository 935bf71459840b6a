//! Where things stand in a JSON text: the raw members of its objects.
//!
//! serde drops positions, so an object is read as slices of the text
//! (`RawValue`), each of which knows its place by its address. What the slices
//! hold has passed the JSON grammar, whatever its depth: `RawValue` is scanned,
//! not recursed into.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
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

    /// Calls `read` with the members of this object in order, duplicates
    /// included, until it breaks; says whether this is an object. None is kept:
    /// there may be millions.
    pub fn each_member(self, read: impl FnMut(Member<'a>) -> ControlFlow<()>) -> bool {
        let is_object = self.0.starts_with('{');
        if is_object {
            // The text has passed the grammar: it fails only where `read` breaks.
            let _ = Deserializer::from_str(self.0).deserialize_map(MemberVisitor(read));
        }
        is_object
    }

    /// Calls `read` with the elements of this array in order, until it breaks;
    /// says whether this is an array.
    pub fn each_element(self, read: impl FnMut(Raw<'a>) -> ControlFlow<()>) -> bool {
        let is_array = self.0.starts_with('[');
        if is_array {
            let _ = Deserializer::from_str(self.0).deserialize_seq(ElementVisitor(read));
        }
        is_array
    }

    /// The elements of this array in order, or their number when there are more
    /// than `most`; `None` when this is no array.
    pub fn elements(self, most: usize) -> Option<Result<Vec<Raw<'a>>, usize>> {
        let (mut elements, mut count) = (Vec::new(), 0);
        let is_array = self.each_element(|element| {
            count += 1;
            if count <= most {
                elements.push(element);
            }
            ControlFlow::Continue(())
        });
        is_array.then_some(if count <= most {
            Ok(elements)
        } else {
            Err(count)
        })
    }

    /// Whether this is the word `null`.
    pub fn is_null(self) -> bool {
        self.0 == "null"
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
    /// half of a surrogate pair).
    pub fn string(self) -> Result<Cow<'a, str>, NotText<'a>> {
        let Some(inner) = self
            .0
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        else {
            return Err(NotText(self));
        };
        if !inner.contains('\\') {
            return Ok(Cow::Borrowed(inner));
        }
        // Of all that can be wrong with a string, escapes alone pass the scan.
        serde_json::from_str(self.0)
            .map(Cow::Owned)
            .map_err(|_| NotText(self))
    }

    /// Whether this is a string, of text or not.
    pub fn is_string(self) -> bool {
        self.0.starts_with('"')
    }

    /// What this is, in a few words: `an array`, `the number 42`.
    pub fn described(self) -> Described<'a> {
        Described(self)
    }
}

/// Why a value is no text.
pub(super) struct NotText<'a>(Raw<'a>);

impl fmt::Display for NotText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_string() {
            f.write_str(
                "string with half of a surrogate pair \
                 (\\ud800 to \\udfff stand for text in pairs only)",
            )
        } else {
            write!(f, "expected a string, found {}", self.0.described())
        }
    }
}

/// What a value is, in a few words.
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
            // The words that remain: true, false and null.
            _ => f.write_str(text),
        }
    }
}

impl<'a> From<&'a RawValue> for Raw<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get())
    }
}

struct MemberVisitor<F>(F);

impl<'de, F: FnMut(Member<'de>) -> ControlFlow<()>> Visitor<'de> for MemberVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let member = Member {
                key: key.into(),
                value: value.into(),
            };
            if (self.0)(member).is_break() {
                return Err(A::Error::custom("enough was read"));
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
        while let Some(element) = elements.next_element::<&RawValue>()? {
            if (self.0)(element.into()).is_break() {
                return Err(A::Error::custom("enough was read"));
            }
        }
        Ok(())
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
    fn reading_ends_where_it_is_told_to() {
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
        let few = |most| array.elements(most).map(|few| few.map(|few| few.len()));
        assert_eq!((few(2), few(3)), (Some(Err(3)), Some(Ok(3))));
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
}
