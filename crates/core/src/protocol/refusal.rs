//! Close codes and reasons (RFC 6455, section 7.4).

use std::fmt;

use super::limits::CLOSE_REASON_BYTES;

/// The close codes that the protocol uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Close {
    /// The sender ends and will not reconnect.
    Normal = 1000,
    /// The sender shuts down; reconnect, elsewhere if possible.
    GoingAway = 1001,
    /// A frame of the wrong kind, or out of order.
    Protocol = 1002,
    /// Not UTF-8, not JSON, or not the fields of this message type.
    Malformed = 1007,
    /// A value out of bounds, or something that is not permitted.
    Policy = 1008,
    /// A frame that is too large.
    TooLarge = 1009,
    /// The sender failed, through no fault of the receiver.
    Internal = 1011,
    /// Too many connections or snapshots; reconnect later.
    TryLater = 1013,
}

impl Close {
    /// The number in the close frame.
    pub fn code(self) -> u16 {
        self as u16
    }
}

/// A violation of the protocol that closes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub close: Close,
    reason: String,
}

impl Refusal {
    /// Escapes control characters in `reason`, which may quote received data, and cuts it to the size
    /// of a close frame.
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

    /// The reason in the close frame.
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
