//! What single values of a document may be.
//!
//! The quick path asks only whether a value passes; the slow path prints the
//! error. Both ask here.

use std::fmt;

/// Longest placement name, in bytes. It is sent to every client in
/// `X-Routed-To` and labels metrics, so it stays a name.
pub(super) const PLACEMENT_NAME_MAX: usize = 128;

/// Longest version, in bytes. It stands in every log line about a reload.
pub(super) const VERSION_MAX: usize = 256;

/// Why a version is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionError {
    Empty,
    Control(char),
    TooLong(usize),
}

pub(super) fn check_version(version: &str) -> Result<(), VersionError> {
    if version.trim().is_empty() {
        return Err(VersionError::Empty);
    }
    if version.len() > VERSION_MAX {
        return Err(VersionError::TooLong(version.len()));
    }
    match version.chars().find(|character| character.is_control()) {
        Some(character) => Err(VersionError::Control(character)),
        None => Ok(()),
    }
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty version (give each change one, such as \"1.0.0\")"),
            Self::Control(character) => {
                write!(
                    f,
                    "version with the control character U+{:04X}",
                    u32::from(*character)
                )
            }
            Self::TooLong(bytes) => {
                write!(f, "version of {bytes} bytes (at most {VERSION_MAX})")
            }
        }
    }
}

/// Why no request can ever carry a routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A request with an empty key is answered 400.
    Empty,
    /// The characters that no header value may hold (RFC 9110, section 5.5).
    Control(char),
    /// White space around a header value is not part of it (RFC 9110, section
    /// 5.5), so a key that starts or ends with some never comes in.
    Padded,
}

/// Checks that a request header can carry `key`.
///
/// # Errors
///
/// Says why none can.
pub fn check_key(key: &str) -> Result<(), KeyError> {
    let bytes = key.as_bytes();
    let padding = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if bytes.is_empty() {
        return Err(KeyError::Empty);
    }
    if padding(bytes.first()) || padding(bytes.last()) {
        return Err(KeyError::Padded);
    }
    match bytes
        .iter()
        .find(|&&byte| byte.is_ascii_control() && byte != b'\t')
    {
        Some(&byte) => Err(KeyError::Control(char::from(byte))),
        None => Ok(()),
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("empty routing key (a request without a key is answered 400)")
            }
            Self::Control(character) => write!(
                f,
                "routing key with the control character U+{:04X}, which no header can carry",
                u32::from(*character)
            ),
            Self::Padded => f.write_str(
                "routing key with white space at its start or end, which is stripped from headers",
            ),
        }
    }
}

/// Why a placement cannot be called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameError {
    Empty,
    TooLong(usize),
    Character(char),
}

/// A placement's name goes out in `X-Routed-To`: printable ASCII, no spaces.
pub(super) fn check_placement_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > PLACEMENT_NAME_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    match name.chars().find(|character| !character.is_ascii_graphic()) {
        Some(character) => Err(NameError::Character(character)),
        None => Ok(()),
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty placement name"),
            Self::TooLong(bytes) => {
                write!(
                    f,
                    "placement name of {bytes} bytes (at most {PLACEMENT_NAME_MAX})"
                )
            }
            Self::Character(character) => write!(
                f,
                "placement name with the character {}; valid is printable ASCII without spaces, \
                 as the name is sent in the header X-Routed-To",
                Codepoint(*character)
            ),
        }
    }
}

/// A character by its look, where it has one, and its number.
struct Codepoint(char);

impl fmt::Display for Codepoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u32::from(self.0);
        if self.0.is_alphanumeric() {
            write!(f, "'{}' (U+{number:04X})", self.0)
        } else {
            write!(f, "U+{number:04X}")
        }
    }
}
