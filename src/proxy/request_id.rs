//! The id under which one request is known to the client, the cell and the logs.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use rand::RngCore;

/// The field that carries it, in every direction.
pub(super) const FIELD: HeaderName = HeaderName::from_static("x-request-id");

/// Longest client-chosen id that is kept, in bytes.
const MAX_LENGTH: usize = 128;

/// Length of those that are made, in bytes.
const MADE_LENGTH: usize = 32;

/// How many a thread makes at a time.
const AT_ONCE: usize = 32;

/// Keeps the client's id when it is 1 to 128 bytes of visible ASCII, makes one
/// otherwise: 128 random bits as hexadecimal.
pub(super) fn keep_or_make(given: Option<&HeaderValue>) -> HeaderValue {
    match given {
        Some(id) if is_usable(id.as_bytes()) => id.clone(),
        _ => make(),
    }
}

/// Visible ASCII only: the id is written into logs and headers as it is.
fn is_usable(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn make() -> HeaderValue {
    // Hexadecimal digits are always a valid header value.
    HeaderValue::from_maybe_shared(digits()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// An id that is new: 128 random bits as hexadecimal.
pub(super) fn digits() -> Bytes {
    thread_local! {
        static READY: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
    }
    READY.with_borrow_mut(|ready| {
        if ready.len() < MADE_LENGTH {
            *ready = many_digits();
        }
        ready.split_to(MADE_LENGTH.min(ready.len()))
    })
}

/// Random digits for [`AT_ONCE`] ids, which share their memory.
fn many_digits() -> Bytes {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut random = [0; AT_ONCE * MADE_LENGTH / 2];
    rand::rng().fill_bytes(&mut random);
    let mut text = BytesMut::with_capacity(AT_ONCE * MADE_LENGTH);
    for byte in random {
        text.extend_from_slice(&[byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
    }
    text.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_safe_to_log() {
        for (given, kept) in [
            ("abc-123", true),
            ("x".repeat(128).as_str(), true),
            ("", false),
            ("x".repeat(129).as_str(), false),
            ("a b", false),
            ("a\tb", false),
            ("\u{e9}", false),
        ] {
            let value = HeaderValue::from_bytes(given.as_bytes()).ok();
            let id = keep_or_make(value.as_ref());
            assert_eq!(id.as_bytes() == given.as_bytes(), kept, "{given:?}");
            assert!(is_usable(id.as_bytes()));
        }
        let (first, second) = (make(), make());
        assert_eq!(first.len(), 32);
        assert_ne!(first, second);
        let many: std::collections::HashSet<_> = (0..10 * AT_ONCE).map(|_| make()).collect();
        assert_eq!(many.len(), 10 * AT_ONCE);
    }
}
