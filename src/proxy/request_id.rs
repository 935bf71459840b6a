//! The id under which one request is known to the client, the cell and the logs.

use http::HeaderValue;
use rand::RngCore;

/// Longest client-chosen id that is kept, in bytes.
const MAX_LENGTH: usize = 128;

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
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut random = [0; 16];
    rand::rng().fill_bytes(&mut random);
    let mut text = Vec::with_capacity(32);
    for byte in random {
        text.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
    }
    // Hexadecimal digits are always a valid header value.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or(HeaderValue::from_static("unknown"))
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
    }
}
