//! Messages in JSON text frames: one object each, told apart by `type`.
//!
//! The type is read first and the rest after it, both in one pass over the text
//! and without a tree in between. What is not known is left alone: fields and
//! whole messages that a later version has are no errors.

mod to_control;
mod to_edge;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::refusal::{Close, Refusal};

pub use to_control::{Ack, Hello, LastError, Load, Nack, Resync, Status, ToControl};
pub use to_edge::{Checkpoint, DeltaMessage, SnapshotBegin, SnapshotEnd, ToEdge, Welcome};

/// A text frame that could be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Received<M> {
    Message(M),
    /// Of a type that a later version has, cut to 64 characters: worth one line in
    /// a log, and nothing else.
    Unknown(String),
}

/// A message that is above the bound of its direction, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    pub bytes: usize,
    pub most: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message of {} bytes (at most {})", self.bytes, self.most)
    }
}

impl std::error::Error for TooLarge {}

/// The type of a message; all else is left out.
#[derive(Deserialize)]
struct Tag {
    r#type: String,
}

/// How many characters of an unknown type are kept.
const UNKNOWN_CHARS: usize = 64;

/// Reads a frame of at most `most` bytes. `read` is given the type, and reads the
/// text if it knows that.
pub(super) fn decode<M>(
    frame: &[u8],
    most: usize,
    read: impl FnOnce(&str, &str) -> Option<serde_json::Result<M>>,
    check: impl FnOnce(&M) -> Result<(), String>,
) -> Result<Received<M>, Refusal> {
    if frame.len() > most {
        let bytes = frame.len();
        return Err(Refusal::new(Close::TooLarge, TooLarge { bytes, most }));
    }
    let text = std::str::from_utf8(frame)
        .map_err(|error| Refusal::new(Close::Malformed, format_args!("not UTF-8: {error}")))?;
    let malformed = |error| Refusal::new(Close::Malformed, format_args!("message: {error}"));
    let Tag { r#type } = serde_json::from_str(text).map_err(malformed)?;
    let Some(message) = read(&r#type, text) else {
        let kept = r#type.chars().take(UNKNOWN_CHARS).collect();
        return Ok(Received::Unknown(kept));
    };
    let message = message.map_err(|error| {
        Refusal::new(
            Close::Malformed,
            format_args!("message {type}: {error}", type = r#type),
        )
    })?;
    check(&message).map_err(|why| {
        Refusal::new(
            Close::Policy,
            format_args!("message {type}: {why}", type = r#type),
        )
    })?;
    Ok(Received::Message(message))
}

pub(super) fn encode(message: &impl Serialize, most: usize) -> Result<String, TooLarge> {
    // Nothing that is written here has keys that are no strings.
    let text = serde_json::to_string(message).unwrap_or_default();
    match text.len() {
        bytes if bytes > most => Err(TooLarge { bytes, most }),
        _ => Ok(text),
    }
}
