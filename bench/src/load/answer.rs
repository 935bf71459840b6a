//! Reads an answer as it arrives in pieces and compares it with what it has to be.

use memchr::memmem;

/// Longest header that is read, in bytes.
const HEAD: usize = 16 << 10;

/// Why an answer is not the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    Status(u16),
    Cell(String),
    Garbled(String),
}

/// An answer being read.
#[derive(Debug, Default)]
pub struct Answer {
    head: Vec<u8>,
    /// Of the body: which one it has to be, and how much of it was seen.
    body: Option<(usize, usize)>,
    /// The peer wants the connection to end.
    pub closes: bool,
}

impl Answer {
    /// Forgets the last answer.
    pub fn start(&mut self) {
        self.head.clear();
        self.body = None;
        self.closes = false;
    }

    /// Takes the next bytes; `bodies` are the right ones by cell. True when the
    /// answer is complete.
    pub fn take(
        &mut self,
        bytes: &[u8],
        cell: Option<usize>,
        bodies: &[Vec<u8>],
    ) -> Result<bool, Wrong> {
        let mut bytes = bytes;
        if self.body.is_none() {
            let seen = self.head.len();
            let end = if seen == 0 {
                memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
            } else {
                self.head.extend_from_slice(bytes);
                let from = seen.saturating_sub(3);
                memmem::find(&self.head[from..], b"\r\n\r\n").map(|at| from + at + 4 - seen)
            };
            let Some(end) = end else {
                if seen == 0 {
                    self.head.extend_from_slice(bytes);
                }
                return match self.head.len() {
                    0..HEAD => Ok(false),
                    _ => Err(Wrong::Garbled("endless header".into())),
                };
            };
            let whole = if seen == 0 {
                &bytes[..end]
            } else {
                &self.head[..seen + end]
            };
            let head = Head::read(whole)?;
            self.closes = head.closes;
            let from = head.check(cell, bodies)?;
            self.body = Some((from, 0));
            bytes = &bytes[end..];
        }
        let Some((from, seen)) = &mut self.body else {
            return Ok(false);
        };
        let right = bodies[*from].get(*seen..*seen + bytes.len());
        if right != Some(bytes) {
            return Err(Wrong::Garbled(format!("body differs after {seen} bytes")));
        }
        *seen += bytes.len();
        Ok(*seen == bodies[*from].len())
    }
}

struct Head<'h> {
    status: u16,
    cell: Option<&'h [u8]>,
    length: Option<usize>,
    closes: bool,
}

impl<'h> Head<'h> {
    fn read(head: &'h [u8]) -> Result<Head<'h>, Wrong> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = head
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok())
            .ok_or_else(|| Wrong::Garbled(text(&head[..head.len().min(80)])))?;
        let mut read = Head {
            status,
            cell: None,
            length: None,
            closes: false,
        };
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', head) {
            let line = head[start..end].trim_ascii();
            start = end + 1;
            // The first byte rules most lines out.
            match line.first() {
                Some(b'x' | b'X') => read.cell = value(line, b"x-cell").or(read.cell),
                Some(b'c' | b'C') => {
                    if let Some(length) = value(line, b"content-length") {
                        read.length = std::str::from_utf8(length)
                            .ok()
                            .and_then(|l| l.parse().ok());
                    } else if let Some(options) = value(line, b"connection") {
                        read.closes = options.eq_ignore_ascii_case(b"close");
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// The cell that answered, if the answer is a right one.
    fn check(&self, cell: Option<usize>, bodies: &[Vec<u8>]) -> Result<usize, Wrong> {
        if self.status != 200 {
            return Err(Wrong::Status(self.status));
        }
        let name = self.cell.unwrap_or_default();
        let from = bodies
            .iter()
            .position(|body| body.starts_with(name) && body.get(name.len()) == Some(&b' '));
        let from = from
            .filter(|&from| cell.is_none_or(|cell| cell == from))
            .ok_or_else(|| Wrong::Cell(String::from_utf8_lossy(name).into_owned()))?;
        match self.length {
            Some(length) if length == bodies[from].len() => Ok(from),
            length => Err(Wrong::Garbled(format!("content-length {length:?}"))),
        }
    }
}

/// What is behind the name of a header field, if it is this one.
fn value<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::body;
    use crate::table::CELLS;

    fn bodies() -> Vec<Vec<u8>> {
        (0..=CELLS).map(|cell| body(cell, 128)).collect()
    }

    fn answer(status: u16, name: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {status} X\r\nserver: nginx\r\nx-cell: {name}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn whole_answers_pass_wherever_they_are_cut() {
        let bodies = bodies();
        let bytes = answer(200, "cell-3", &bodies[3]);
        for first in 0..bytes.len() {
            for second in [first, first + 1, bytes.len() - 1] {
                let second = second.max(first).min(bytes.len());
                let mut read = Answer::default();
                read.start();
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let done = parts.map(|part| read.take(part, Some(3), &bodies));
                assert_eq!(done[2], Ok(true), "{first} {second}");
                assert!(done[..2].iter().all(|d| *d == Ok(false)) || second == bytes.len());
            }
        }
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let bodies = bodies();
        let read = |bytes: &[u8]| Answer::default().take(bytes, Some(3), &bodies);
        assert_eq!(read(&answer(503, "cell-3", b"")), Err(Wrong::Status(503)));
        let other = read(&answer(200, "cell-4", &bodies[4]));
        assert_eq!(other, Err(Wrong::Cell("cell-4".into())));
        let mixed = read(&answer(200, "cell-3", &bodies[4]));
        assert!(matches!(mixed, Err(Wrong::Garbled(_))), "{mixed:?}");
        let short = read(&answer(200, "cell-3", b"x"));
        assert!(matches!(short, Err(Wrong::Garbled(_))), "{short:?}");
        let alien = read(b"SSH-2.0-OpenSSH\r\n\r\n");
        assert!(matches!(alien, Err(Wrong::Garbled(_))), "{alien:?}");
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nX-Ce"), Ok(false));
    }
}
