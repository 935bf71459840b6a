//! The digest of the content of a routing document, independent of how it is written.
//!
//! Two parties compare digests to find out whether they have the same content. This is the
//! definition, which is part of the protocol; all numbers are unsigned:
//!
//! - The *head* of a document is the document without `routingTable`.
//! - `D(x)` is XXH3-128 with seed 0 of the bytes `x`, as a number: the 128-bit
//!   value whose canonical representation is big-endian (the XXH3 specification).
//! - For each routing key with its placement's name, `E = D(0x01 ‖ n ‖ key ‖
//!   name)`: `n` is the length of the key in bytes, 8 bytes little-endian; key
//!   and name are UTF-8.
//! - For the head, `H = D(0x00 ‖ json)`: `json` is the head in the canonical form
//!   of RFC 8785.
//! - The digest is `H` plus the sum of all `E`, modulo 2^128, and is written as
//!   32 lowercase hexadecimal digits.
//!
//! A sum does not depend on the order of its terms, and a change of one key is one
//! subtraction and one addition. It is not a signature: with effort, somebody who may choose
//! the keys can make two tables with the same digest.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_128;

use super::json::{Member, Raw};

const HEAD: u8 = 0;
const ENTRY: u8 = 1;

/// The digest of a table's content; the [module](self) defines it. Shown as 32
/// lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{32}$"))]
pub struct Digest(u128);

/// Entries of at most this many bytes are hashed without an allocation.
const SHORT: usize = 256;

/// The sum over the entries of a table, and the total length of their keys.
#[derive(Clone, Copy, Default)]
pub(super) struct Entries {
    sum: u128,
    key_bytes: u64,
}

impl Entries {
    pub fn add(&mut self, key: &str, placement: &str) {
        self.sum = self.sum.wrapping_add(entry(key, placement));
        self.key_bytes += key.len() as u64;
    }

    /// Reverses [`add`](Self::add).
    pub fn remove(&mut self, key: &str, placement: &str) {
        self.sum = self.sum.wrapping_sub(entry(key, placement));
        self.key_bytes -= key.len() as u64;
    }

    /// The digest of a table with these entries and the head hash `head`.
    pub fn with_head(&self, head: HeadHash) -> Digest {
        Digest(self.sum.wrapping_add(head.0))
    }

    /// The total length of all keys in bytes.
    pub fn key_bytes(&self) -> u64 {
        self.key_bytes
    }
}

fn entry(key: &str, placement: &str) -> u128 {
    let length = (key.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&[ENTRY], &length, key.as_bytes(), placement.as_bytes()];
    let mut short = [0; SHORT];
    let mut end = 0;
    for part in parts {
        match short.get_mut(end..end + part.len()) {
            Some(place) => place.copy_from_slice(part),
            None => return xxh3_128(&parts.concat()),
        }
        end += part.len();
    }
    xxh3_128(short.get(..end).unwrap_or_default())
}

/// The term of a head in the digest.
#[derive(Clone, Copy)]
pub(super) struct HeadHash(u128);

impl HeadHash {
    /// The term of a head in canonical form.
    pub fn of(json: &str) -> Self {
        let mut bytes = Vec::with_capacity(1 + json.len());
        bytes.push(HEAD);
        bytes.extend(json.as_bytes());
        Self(xxh3_128(&bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestError;

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a digest (valid: 32 lowercase hexadecimal digits)")
    }
}

impl std::error::Error for DigestError {}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(digit) {
            return Err(DigestError);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| DigestError)
    }
}

/// The head that has the fields `members`, in canonical JSON (RFC 8785): no white space,
/// members in the order of their names, no unnecessary escapes. Members without a value are
/// left out.
///
/// It relies on properties of valid documents: names are ASCII, so that their order by
/// UTF-16 is that by bytes; numbers are integers from 0 to 2^53, so that their text is
/// canonical already; and nesting is shallow.
///
/// # Errors
///
/// A string in it is not valid text, such as an unpaired surrogate.
pub(super) fn canonical<'a>(
    members: impl IntoIterator<Item = (&'a str, Option<Raw<'a>>)>,
) -> Result<String, String> {
    let mut members: Vec<_> = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.into(), value?)))
        .collect();
    let mut text = String::new();
    write_members(&mut members, &mut text)?;
    Ok(text)
}

fn write_members<'a>(
    members: &mut [(Cow<'a, str>, Raw<'a>)],
    out: &mut String,
) -> Result<(), String> {
    members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    out.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(name, out);
        out.push(':');
        write(*value, out)?;
    }
    out.push('}');
    Ok(())
}

fn write(value: Raw<'_>, out: &mut String) -> Result<(), String> {
    if let Some(number) = value.number() {
        out.push_str(number);
    } else if value.is_string() {
        write_string(&text(value)?, out);
    } else if let Some(members) = members(value) {
        write_members(&mut members?, out)?;
    } else if let Some((elements, _)) = value.elements(usize::MAX) {
        out.push('[');
        for (index, element) in elements.into_iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            write(element, out)?;
        }
        out.push(']');
    } else {
        // true, false and null.
        out.push_str(&value.described().to_string());
    }
    Ok(())
}

fn text(value: Raw<'_>) -> Result<Cow<'_, str>, String> {
    value.string().map_err(|error| error.to_string())
}

type Members<'a> = Vec<(Cow<'a, str>, Raw<'a>)>;

/// The members of `value`; none if it is not an object.
fn members<'a>(value: Raw<'a>) -> Option<Result<Members<'a>, String>> {
    let mut members = Ok(Vec::new());
    let is_object = value.each_member(|Member { key, value }| match (&mut members, text(key)) {
        (Ok(members), Ok(name)) => {
            members.push((name, value));
            ControlFlow::Continue(())
        }
        (_, name) => {
            members = name.map(|_| Vec::new());
            ControlFlow::Break(())
        }
    });
    is_object.then_some(members)
}

/// Escapes as in RFC 8785, section 3.2.2.2. serde_json does the same.
fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_32_digits_and_read_back() {
        let digest = Digest(0xab);
        let text = "000000000000000000000000000000ab";
        assert_eq!(digest.to_string(), text);
        assert_eq!(serde_json::to_value(digest).unwrap(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(
            serde_json::from_value::<Digest>(text.into()).unwrap(),
            digest
        );
        for wrong in [
            "",
            "ab",
            &text.replace('a', "A"),
            &text.replace('a', "+"),
            &format!("{text}0"),
        ] {
            assert_eq!(wrong.parse::<Digest>(), Err(DigestError), "{wrong}");
            assert!(serde_json::from_value::<Digest>(wrong.into()).is_err());
        }
    }

    /// A second implementation of the definition.
    #[test]
    fn the_digest_is_as_defined() {
        let head = r#"{"cellEndpoints":{"x":"http://x"},"defaultPlacement":"x","version":"1"}"#;
        let hash = HeadHash::of(head);
        let h = xxh3_128(format!("\0{head}").as_bytes());
        let e = xxh3_128(b"\x01\x04\0\0\0\0\0\0\0acmex");
        let mut entries = Entries::default();
        assert_eq!(entries.with_head(hash), Digest(h));
        entries.add("acme", "x");
        assert_eq!(entries.with_head(hash), Digest(h.wrapping_add(e)));
        entries.add("acm", "ex");
        assert_ne!(
            entries.with_head(hash),
            Digest(h.wrapping_add(e).wrapping_add(e))
        );
        entries.remove("acm", "ex");
        entries.remove("acme", "x");
        assert_eq!(entries.with_head(hash), Digest(h));
        // The value of the empty input, from the specification of XXH3.
        assert_eq!(xxh3_128(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn documents_that_differ_in_form_have_one_canonical_form() {
        let value = " { \"b\" : [ 1 , \"\\u0061\\/\\u20ac\" , null , true ] ,\r\n\t\"a\" : { \"\\u0062\" : {} , \"a\" : [] } } ";
        let value = Raw::parse(value).unwrap();
        assert_eq!(
            canonical([("z", Some(value)), ("absent", None), ("c", Some(value))]).unwrap(),
            r#"{"c":{"a":{"a":[],"b":{}},"b":[1,"a/€",null,true]},"z":{"a":{"a":[],"b":{}},"b":[1,"a/€",null,true]}}"#
        );
        let escapes = Raw::parse(r#""\u0000\u001F\u0008\t\n\u000c\r\"\\\u007f""#).unwrap();
        assert_eq!(
            canonical([("x", Some(escapes))]).unwrap(),
            "{\"x\":\"\\u0000\\u001f\\b\\t\\n\\f\\r\\\"\\\\\u{7f}\"}"
        );
        let half = Raw::parse(r#"["\ud800"]"#).unwrap();
        assert!(canonical([("x", Some(half))]).is_err());
    }
}
