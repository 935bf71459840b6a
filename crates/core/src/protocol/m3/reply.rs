//! The answer of an edge to a document.

use serde::{Deserialize, Serialize};

use crate::protocol::bounds::{cut, line};
use crate::protocol::limits::{TO_CONTROL_BYTES, VALUE_BYTES};
use crate::protocol::message::{Received, decode};
use crate::protocol::refusal::Refusal;
use crate::table::Problem;

/// Longest error, in bytes.
const ERROR_BYTES: usize = 16 * 1024;

/// The answer to a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// The document is being served.
    Ack(Ack),
    /// The document is refused; the previous one is still served.
    Nack(Nack),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The version of the document. Edges written in Go leave it empty.
    #[serde(default)]
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    #[serde(default)]
    pub version: String,
    /// For people.
    #[serde(default)]
    pub error: String,
}

impl Reply {
    /// The document `version` is being served.
    pub fn ack(version: &str) -> Self {
        Self::Ack(Ack {
            version: fitted(version, VALUE_BYTES),
        })
    }

    /// The document `version` is refused because of `problems`.
    pub fn nack(version: &str, problems: &[Problem]) -> Self {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Self::Nack(Nack {
            version: fitted(version, VALUE_BYTES),
            error: fitted(&problems.join("; "), ERROR_BYTES),
        })
    }

    /// Decodes a text frame.
    ///
    /// # Errors
    ///
    /// The frame is too large, not JSON, or out of bounds; the connection must be closed so.
    pub fn decode(frame: &[u8]) -> Result<Received<Self>, Refusal> {
        let read = |kind: &str, text: &str| {
            Some(match kind {
                "ack" => serde_json::from_str(text).map(Self::Ack),
                "nack" => serde_json::from_str(text).map(Self::Nack),
                _ => return None,
            })
        };
        decode(frame, TO_CONTROL_BYTES, read, |reply| match reply {
            Self::Ack(ack) => line("version", &ack.version, VALUE_BYTES),
            // The error is free text.
            Self::Nack(nack) => line("version", &nack.version, VALUE_BYTES),
        })
    }

    /// Encodes the message.
    pub fn encode(&self) -> String {
        // Cannot fail: there are no maps.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// On one line, and cut to `most` bytes.
fn fitted(text: &str, most: usize) -> String {
    let mut text = text.replace(char::is_control, " ");
    cut(&mut text, most);
    text
}
