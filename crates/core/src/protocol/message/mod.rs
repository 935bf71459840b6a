//! Messages in JSON text frames: one object each, with its type in the field `type`.
//!
//! The text is parsed twice, first for its type and then for its fields, without a generic tree.
//! Unknown fields and message types are ignored, so that later versions can add them.

mod to_control;
mod to_edge;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::refusal::{Close, Refusal};

pub use to_control::{Ack, Hello, LastError, Load, Nack, Resync, Status, ToControl};
pub use to_edge::{Checkpoint, DeltaMessage, SnapshotBegin, SnapshotEnd, ToEdge, Welcome};

/// A decoded text frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Received<M> {
    Message(M),
    /// A message of an unknown type, cut to 64 characters. Ignore it, except for a log line.
    Unknown(String),
}

/// A message that exceeds the bound of its direction, in bytes.
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

/// The type of a message.
#[derive(Deserialize)]
struct Tag {
    r#type: String,
}

/// How many characters of an unknown type are kept.
const UNKNOWN_CHARS: usize = 64;

/// Decodes a frame of at most `most` bytes. `read` gets the type and the text, and returns none for an
/// unknown type.
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
    // Cannot fail: all map keys are strings.
    let text = serde_json::to_string(message).unwrap_or_default();
    match text.len() {
        bytes if bytes > most => Err(TooLarge { bytes, most }),
        _ => Ok(text),
    }
}
