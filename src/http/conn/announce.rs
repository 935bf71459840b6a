//! Header fields that are added while a response is written.
//!
//! The proxy library's header is a map that keeps each name twice; adding a field
//! there allocates and hashes. Here it is appended to what is sent anyway.

use std::sync::{Mutex, PoisonError};

use super::ClientConn;

/// Whole field lines for the final response that is about to be written. The filters
/// only have `&self`; nobody ever waits for the lock.
#[derive(Debug, Default)]
pub(super) struct Announced(Mutex<Vec<u8>>);

impl ClientConn {
    /// Adds fields to the final response whose head is written next, in place of those
    /// announced before. `write` appends whole lines, each with its CRLF.
    pub fn announce(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let lines = self.announced.0.lock();
        let mut lines = lines.unwrap_or_else(PoisonError::into_inner);
        lines.clear();
        write(&mut lines);
    }
}

impl Announced {
    /// The lines, if `written` begins with the status line of a final response, and
    /// where that line ends.
    pub(super) fn due(&mut self, written: &[u8]) -> Option<(usize, &mut Vec<u8>)> {
        let lines = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return None;
        }
        Some((final_status_line(written)?, lines))
    }

    /// Forgets what nothing was written for.
    pub(super) fn clear(&mut self) {
        let lines = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        lines.clear();
    }
}

/// The length of the status line at the start, with its CRLF, unless others follow
/// before the answer: 101 is one, the rest of 1xx is not (RFC 9110 §15.2).
fn final_status_line(bytes: &[u8]) -> Option<usize> {
    const VERSION: usize = b"HTTP/1.1 ".len();
    let code = bytes.get(VERSION..VERSION + 3)?;
    if !bytes.starts_with(b"HTTP/1.") || code.first() == Some(&b'1') && code != b"101" {
        return None;
    }
    let end = memchr::memchr(b'\n', bytes)?;
    Some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_status_line_is_told_from_others() {
        for (bytes, length) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Some(17)),
            ("HTTP/1.0 404 \r\n", Some(15)),
            ("HTTP/1.1 101 Switching\r\n\r\n", Some(24)),
            ("HTTP/1.1 100 Continue\r\n\r\n", None),
            ("HTTP/1.1 103 Early Hints\r\n\r\n", None),
            ("HTTP/1.1 200", None),
            ("HTTP/1.1 ", None),
            ("a body", None),
            ("", None),
        ] {
            assert_eq!(final_status_line(bytes.as_bytes()), length, "{bytes:?}");
        }
    }

    #[test]
    fn lines_wait_for_the_answer_itself() {
        let mut announced = Announced(Mutex::new(b"X: y\r\n".to_vec()));
        assert!(announced.due(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_none());
        let due = announced.due(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(due.map(|(end, lines)| (end, lines.len())), Some((25, 6)));
        announced.clear();
        assert!(announced.due(b"HTTP/1.1 204 No Content\r\n\r\n").is_none());
    }
}
