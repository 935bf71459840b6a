//! JSON values for log lines.
//!
//! Strings are serde_json's. In addition, DEL and the C1 control characters are
//! escaped, so that a line that is shown in a terminal cannot control it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Appends `text` as a JSON string, with its quotes.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    // Neither the Vec nor the string can fail.
    let _ = text.serialize(&mut Serializer::with_formatter(out, Printable));
}

/// Appends `bytes` as a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_str(out, &String::from_utf8_lossy(bytes));
}

/// Appends a number in decimal.
pub fn write_u64(out: &mut Vec<u8>, value: u64) {
    let _ = write!(out, "{value}");
}

/// Escapes the control characters that JSON allows in a string.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // DEL, and the first byte of every C1 control character in UTF-8.
        if memchr::memchr2(0x7f, 0xc2, fragment.as_bytes()).is_none() {
            return out.write_all(fragment.as_bytes());
        }
        for piece in fragment.split_inclusive(char::is_control) {
            let clean = piece.trim_end_matches(char::is_control).len();
            let (clean, controls) = piece.split_at(clean);
            out.write_all(clean.as_bytes())?;
            for control in controls.chars() {
                write!(out, "\\u{:04x}", u32::from(control))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes() {
        for (text, expected) in [
            ("", r#""""#),
            ("plain /path?q=1", r#""plain /path?q=1""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\r\t\0", r#""\n\r\t\u0000""#),
            ("\u{1b}[31m\u{7f}\u{9b}", r#""\u001b[31m\u007f\u009b""#),
            ("zürich 東京", "\"zürich 東京\""),
        ] {
            assert_eq!(written(|out| write_str(out, text)), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        for (bytes, expected) in [
            (&b"acme"[..], "\"acme\""),
            (b"a\xffb", "\"a\u{fffd}b\""),
            (b"\xc3", "\"\u{fffd}\""),
            (b"\xff\"\n", "\"\u{fffd}\\\"\\n\""),
        ] {
            assert_eq!(written(|out| write_bytes(out, bytes)), expected);
        }
    }

    #[test]
    fn numbers() {
        for value in [0, 7, u64::MAX] {
            assert_eq!(written(|out| write_u64(out, value)), value.to_string());
        }
    }

    proptest! {
        #[test]
        fn strings_come_back_as_they_were(text in any::<String>()) {
            let line = written(|out| write_str(out, &text));
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }

        #[test]
        fn bytes_come_back_as_their_lossy_text(bytes: Vec<u8>) {
            let line = written(|out| write_bytes(out, &bytes));
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert_eq!(
                serde_json::from_str::<String>(&line).unwrap(),
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}
