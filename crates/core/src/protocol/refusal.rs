//! Why a connection ends, in a close frame (RFC 6455, section 7.4).

use std::fmt;

use super::limits::CLOSE_REASON_BYTES;

/// The close codes that the protocol uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Close {
    /// The sender ends orderly and will not be back.
    Normal = 1000,
    /// The sender shuts down; dial again, elsewhere if there is a choice.
    GoingAway = 1001,
    /// A frame of the wrong kind, or at the wrong time.
    Protocol = 1002,
    /// Not UTF-8, not JSON, or not the fields that a message of this type has.
    Malformed = 1007,
    /// A value outside of its bounds, or something that the sender may not do.
    Policy = 1008,
    /// A frame above its bound.
    TooLarge = 1009,
    /// The sender cannot go on, by no fault of the receiver.
    Internal = 1011,
    /// Too many connections or snapshots at a time; dial again later.
    TryLater = 1013,
}

impl Close {
    /// The number in the close frame.
    pub fn code(self) -> u16 {
        self as u16
    }
}

/// Something received that the connection does not survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub close: Close,
    reason: String,
}

impl Refusal {
    /// `reason` comes out on one line and short enough for a close frame, as it may
    /// repeat what was received.
    pub fn new(close: Close, reason: impl fmt::Display) -> Self {
        let mut short = String::new();
        for character in reason.to_string().chars() {
            let escaped: String = match character.is_control() {
                true => character.escape_default().collect(),
                false => character.into(),
            };
            if short.len() + escaped.len() > CLOSE_REASON_BYTES - '…'.len_utf8() {
                short.push('…');
                break;
            }
            short.push_str(&escaped);
        }
        Self {
            close,
            reason: short,
        }
    }

    /// For the close frame.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}
