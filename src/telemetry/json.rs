//! JSON written by hand, for lines that are too many to go through serde: a
//! string costs one pass and no allocation.
//!
//! Besides what RFC 8259 section 7 demands, DEL and the C1 controls are
//! escaped, so that a line read in a terminal cannot steer it.

/// Appends `text` as a JSON string, quotes included.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends `bytes` as a JSON string. What is not UTF-8 becomes U+FFFD.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        write_escaped(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

/// Appends a number in decimal.
pub fn write_u64(out: &mut Vec<u8>, mut value: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0u8; 20];
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        length += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[digits.len() - length..]);
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some((index, found)) = rest.char_indices().find(|(_, c)| must_escape(*c)) {
        let (clean, tail) = rest.split_at(index);
        out.extend_from_slice(clean.as_bytes());
        write_escape(out, found);
        rest = &tail[found.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
}

fn must_escape(c: char) -> bool {
    c == '"' || c == '\\' || c.is_control()
}

fn write_escape(out: &mut Vec<u8>, c: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match c {
        '"' | '\\' => c as u8,
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        // Every control character is below U+0100.
        _ => {
            let code = c as u32 as usize;
            out.extend_from_slice(b"\\u00");
            out.push(HEX[code >> 4 & 15]);
            out.push(HEX[code & 15]);
            return;
        }
    };
    out.push(b'\\');
    out.push(short);
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
        for value in [0, 7, 10, 200, 18_446_744_073_709_551_615] {
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
