//! The id under which one request is known to the client, the cell and the logs.

use http::HeaderValue;
use rand::RngCore;

/// Longest client-chosen id that is kept, in bytes.
const MAX_LENGTH: usize = 128;

/// Random bytes of an id that is made.
const RANDOM: usize = 16;

/// Keeps the client's id if it is 1 to 128 bytes of visible ASCII, and otherwise makes one:
/// 128 random bits in hexadecimal.
pub fn keep_or_make(given: Option<&[u8]>) -> HeaderValue {
    let kept = given
        .filter(|id| is_usable(id))
        .and_then(|id| HeaderValue::from_bytes(id).ok());
    kept.unwrap_or_else(make)
}

/// Visible ASCII only: the id is written into logs and headers unchanged.
fn is_usable(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn make() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut random = [0; RANDOM];
    rand::rng().fill_bytes(&mut random);
    let mut digits = [0; 2 * RANDOM];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(random) {
        pair.copy_from_slice(&[byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
    }
    // Hexadecimal digits are always a valid header value.
    HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("unknown"))
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
            let id = keep_or_make(Some(given.as_bytes()));
            assert_eq!(id.as_bytes() == given.as_bytes(), kept, "{given:?}");
            assert!(is_usable(id.as_bytes()));
        }
        let (first, second) = (make(), make());
        assert_eq!(first.len(), 32);
        assert_ne!(first, second);
    }
}
