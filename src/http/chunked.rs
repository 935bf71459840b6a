//! Pure: checks the framing of a chunked body (RFC 9112 §7.1) without decoding it.
//!
//! Pingora's parser, which decodes the body, reads an empty or garbled chunk size as zero,
//! so that a truncated body would reach a cell as a complete one. This check passes every
//! byte on unchanged, and the first byte out of place ends the request.

use super::head::{is_field_byte, is_tchar};

/// Longest chunk-size line, extensions included, and longest trailer line, in bytes.
const MAX_LINE: usize = 4096;
/// Longest trailer section, in bytes; Pingora's parser takes 64 KiB.
const MAX_TRAILERS: usize = 16_384;
/// Most digits of a chunk size: enough for 2^60 bytes, fewer than overflow Pingora's parser.
const MAX_DIGITS: u32 = 15;

/// The body broke the chunked framing; the name of the broken rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadChunk(pub &'static str);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// At least one hex digit of the size must come.
    SizeStart,
    Size,
    /// Optional whitespace before an extension or the end of the line.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Follows one chunked body across any split into reads.
#[derive(Debug)]
pub struct ChunkedBody {
    state: State,
    /// Size being read, then data bytes left in the chunk.
    size: u64,
    digits: u32,
    line: usize,
    trailers: usize,
}

impl Default for ChunkedBody {
    fn default() -> Self {
        ChunkedBody {
            state: State::SizeStart,
            size: 0,
            digits: 0,
            line: 0,
            trailers: 0,
        }
    }
}

impl ChunkedBody {
    /// Whether the last chunk and its trailer section have passed.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Follows `bytes`; returns how many of them belong to this body. Fewer than
    /// all only when the body ended inside them.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let left = bytes.len() - at;
                    let step = usize::try_from(self.size).unwrap_or(usize::MAX).min(left);
                    self.size -= step as u64;
                    at += step;
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                    continue;
                }
                _ => self.state = self.step(byte)?,
            }
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.line += 1;
        if self.line > MAX_LINE {
            return Err(BadChunk("chunk line too long"));
        }
        match (self.state, byte) {
            (State::SizeStart | State::Size, b) if b.is_ascii_hexdigit() => {
                self.digits += 1;
                if self.digits > MAX_DIGITS {
                    return Err(BadChunk("chunk size too large"));
                }
                let digit = char::from(b).to_digit(16).unwrap_or(0);
                self.size = self.size << 4 | u64::from(digit);
                Ok(State::Size)
            }
            (State::Size | State::SizeSpace | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size | State::SizeSpace, b';') => Ok(State::Extension),
            (State::Size | State::SizeSpace, b' ' | b'\t') => Ok(State::SizeSpace),
            (State::SizeStart | State::Size | State::SizeSpace, _) => Err(BadChunk("chunk size")),
            (State::Extension, b) if is_field_byte(b) => Ok(State::Extension),
            (State::Extension, _) => Err(BadChunk("chunk extension")),
            (State::SizeLf, b'\n') => {
                self.line = 0;
                self.digits = 0;
                Ok(if self.size == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::SizeStart)
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, b) if is_tchar(b) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, b) if is_tchar(b) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b) if is_field_byte(b) => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                Err(BadChunk("trailer"))
            }
            (State::TrailerLf, b'\n') => {
                self.trailers += self.line;
                if self.trailers > MAX_TRAILERS {
                    return Err(BadChunk("trailers too long"));
                }
                self.line = 0;
                Ok(State::TrailerStart)
            }
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(BadChunk("chunk line without CRLF")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follow(bytes: &[u8]) -> Result<(usize, bool), BadChunk> {
        let mut body = ChunkedBody::default();
        body.follow(bytes).map(|used| (used, body.done()))
    }

    #[test]
    fn follows_a_whole_body_and_stops_at_its_end() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "00A;x=\"y\" ; z\r\n0123456789\r\n0\r\n\r\n",
            "1 \r\na\r\n0\r\nT: v\r\nU:\r\n\r\n",
        ] {
            assert_eq!(follow(body.as_bytes()), Ok((body.len(), true)), "{body:?}");
            let next = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(follow(next.as_bytes()), Ok((body.len(), true)), "{next:?}");
            let cut = &body.as_bytes()[..body.len() - 1];
            assert_eq!(follow(cut), Ok((cut.len(), false)), "{body:?} cut");
        }
    }

    #[test]
    fn refuses_what_a_lenient_parser_would_pass() {
        for (body, rule) in [
            ("\r\n\r\n", "chunk size"),
            (";ext\r\n\r\n", "chunk size"),
            ("x\r\n", "chunk size"),
            ("-1\r\n", "chunk size"),
            ("0x1\r\n", "chunk size"),
            ("1 2\r\n", "chunk size"),
            ("0000000000000001\r\n", "chunk size too large"),
            ("1\na\n0\n\n", "chunk size"),
            ("1;a\nb\r\n", "chunk extension"),
            ("1;a\0\r\n", "chunk extension"),
            ("1\r\nab\r\n", "chunk line without CRLF"),
            ("1\r\na\n0\r\n\r\n", "chunk line without CRLF"),
            ("0\r\n bad: x\r\n\r\n", "trailer"),
            ("0\r\nbad\r\n\r\n", "trailer"),
            ("0\r\na: \0\r\n\r\n", "trailer"),
        ] {
            assert_eq!(follow(body.as_bytes()), Err(BadChunk(rule)), "{body:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(MAX_LINE));
        assert_eq!(
            follow(long.as_bytes()),
            Err(BadChunk("chunk line too long"))
        );
        let many = format!("0\r\n{}\r\n", "a:b\r\n".repeat(MAX_TRAILERS / 5 + 1));
        assert_eq!(follow(many.as_bytes()), Err(BadChunk("trailers too long")));
    }

    proptest! {
        /// Encoding any chunks gives a body that is followed to its last byte,
        /// however it is cut into reads.
        #[test]
        fn any_cut_of_any_chunks(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            step in 1usize..17,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let length = wire.len();
            wire.extend_from_slice(b"NEXT");
            let mut body = ChunkedBody::default();
            let mut used = 0;
            while !body.done() {
                let end = (used + step).min(wire.len());
                let took = body.follow(&wire[used..end]);
                prop_assert!(took.is_ok());
                used += took.unwrap_or(0);
            }
            prop_assert_eq!(used, length);
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = follow(&bytes);
        }
    }
}
