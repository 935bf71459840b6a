//! Pure: finds the end of an HTTP/1.x request head and refuses what RFC 9112 forbids.
//!
//! The proxy library accepts more than the standard allows (bare LF, a space in
//! the target, a missing Host, repeated lengths). A lenient edge behind or in
//! front of a stricter hop is how requests are smuggled, so the head is judged
//! here, byte by byte, before any parser acts on it.

use memchr::memchr;

/// Most header fields of a request; Pingora's parser has the same limit.
const MAX_FIELDS: usize = 256;
/// Longest request target, in bytes; `http::Uri` holds no longer one.
const MAX_TARGET: usize = 65_534;

/// Why a request was refused before it reached the proxy's own filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The bytes are not the request that RFC 9112 describes (400).
    Malformed(&'static str),
    /// The transfer coding is not a known one (501, RFC 9112 §6.1).
    TransferCoding,
    /// The request speaks another major version of HTTP (505).
    Version,
    /// CONNECT asks for a tunnel, which an edge in front of cells does not offer (405).
    Connect,
    /// The head is larger than the configured limit, or has too many fields (431).
    TooLarge,
    /// The head did not arrive in time (408).
    Timeout,
}

/// How the body that follows a head is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFraming {
    /// This many bytes follow; zero when the request has no body.
    Length(u64),
    /// A chunked body follows.
    Chunked,
}

/// What scanning the bytes received so far came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// The head is not complete; more bytes are needed.
    Partial,
    /// The head ends after this many bytes; a body framed so follows.
    Complete { length: usize, body: BodyFraming },
    /// The head must not be acted on.
    Refused(Refusal),
}

/// Incremental scanner: call [`HeadScanner::scan`] with the whole buffer each
/// time it grew; lines already judged are not read again.
#[derive(Debug, Default)]
pub struct HeadScanner {
    /// Start of the first line not judged yet.
    line_start: usize,
    /// Where to look for the end of that line; bytes before it hold none.
    searched: usize,
    fields: usize,
    http10: bool,
    has_host: bool,
    /// The authority of an absolute-form target, which Host has to repeat.
    authority: Option<Box<[u8]>>,
    content_length: Option<u64>,
    transfer_encoding: Option<Coding>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Coding {
    Chunked,
    Unknown,
    NotChunkedLast,
}

impl HeadScanner {
    /// Judges `bytes`, which starts at the first byte of the request line.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        loop {
            let Some(found) = bytes
                .get(self.searched..)
                .and_then(|rest| memchr(b'\n', rest))
            else {
                self.searched = bytes.len();
                return Scan::Partial;
            };
            let end = self.searched + found;
            let start = self.line_start;
            let line = bytes.get(start..end).unwrap_or_default();
            self.line_start = end + 1;
            self.searched = end + 1;

            // RFC 9112 §2.2 lets a recipient accept a bare LF; doing so is what
            // lets two hops disagree on where a line ends.
            let Some((b'\r', line)) = line.split_last() else {
                return Scan::Refused(Refusal::Malformed("line without CRLF"));
            };
            let judged = if start == 0 {
                self.request_line(line)
            } else if line.is_empty() {
                return match self.finish() {
                    Ok(body) => Scan::Complete {
                        length: end + 1,
                        body,
                    },
                    Err(refusal) => Scan::Refused(refusal),
                };
            } else {
                self.field_line(line)
            };
            if let Err(refusal) = judged {
                return Scan::Refused(refusal);
            }
        }
    }

    /// `method SP request-target SP HTTP-version` (RFC 9112 §3).
    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let malformed = Err(Refusal::Malformed("request line"));
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return malformed;
        };
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.http10 = true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refusal::Version);
            }
            _ => return malformed,
        }
        if method.is_empty() || !method.iter().all(|byte| is_tchar(*byte)) {
            return malformed;
        }
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        if target.len() > MAX_TARGET {
            return Err(Refusal::TooLarge);
        }
        if !is_target(target) {
            return Err(Refusal::Malformed("request target"));
        }
        // origin-form, absolute-form or, for OPTIONS only, asterisk-form (RFC 9112 §3.2).
        let known_form = match target {
            [b'/', ..] => true,
            b"*" => method == b"OPTIONS",
            _ => match authority(target) {
                Some(authority) => {
                    self.authority = Some(authority.into());
                    http::uri::Authority::try_from(authority).is_ok() && is_host(authority)
                }
                None => false,
            },
        };
        if known_form {
            Ok(())
        } else {
            Err(Refusal::Malformed("request target"))
        }
    }

    /// `field-name ":" OWS field-value OWS`, no folding (RFC 9112 §5).
    fn field_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Refusal::TooLarge);
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(Refusal::Malformed("header field without a colon"));
        };
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().all(|byte| is_tchar(*byte)) {
            return Err(Refusal::Malformed("header field name"));
        }
        let value = value.get(1..).unwrap_or_default();
        // No early exit, so that the compiler can compare many bytes at a time.
        if value
            .iter()
            .fold(false, |bad, byte| bad | !is_field_byte(*byte))
        {
            return Err(Refusal::Malformed("header field value"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value.trim_ascii()),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.content_length(value.trim_ascii())
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 §3.2: one Host, and its value is `uri-host [ ":" port ]`.
    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.has_host {
            return Err(Refusal::Malformed("more than one Host"));
        }
        self.has_host = true;
        if !is_host(value) {
            return Err(Refusal::Malformed("Host"));
        }
        // By RFC 9112 §3.2.2 the target wins. A sender of two names wants two hops to see
        // different ones.
        match &self.authority {
            Some(authority) if **authority != *value => {
                Err(Refusal::Malformed("Host differs from the request target"))
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.3 allows equal repeats to be merged; refusing them leaves
    /// nothing for two hops to disagree about.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            return Err(Refusal::Malformed("more than one Content-Length"));
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        // Only digits so far, hence valid UTF-8; what is left to fail is overflow.
        let length = std::str::from_utf8(value).ok().filter(|_| digits);
        match length.and_then(|text| text.parse().ok()) {
            Some(length) => {
                self.content_length = Some(length);
                Ok(())
            }
            None => Err(Refusal::Malformed("Content-Length")),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        let coding = if value.eq_ignore_ascii_case(b"chunked") {
            Coding::Chunked
        } else {
            let last = value
                .rsplit(|byte| *byte == b',')
                .next()
                .unwrap_or_default();
            if last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                Coding::Unknown
            } else {
                Coding::NotChunkedLast
            }
        };
        self.transfer_encoding = Some(match self.transfer_encoding {
            None => coding,
            // Two field lines are one list: "gzip" then "chunked", or "chunked" twice.
            Some(_) if coding == Coding::Chunked => Coding::Unknown,
            Some(_) => coding,
        });
    }

    fn finish(&self) -> Result<BodyFraming, Refusal> {
        if !self.has_host && !self.http10 {
            return Err(Refusal::Malformed("HTTP/1.1 without Host"));
        }
        match (self.transfer_encoding, self.content_length) {
            (None, length) => Ok(BodyFraming::Length(length.unwrap_or(0))),
            // RFC 9112 §6.1: faulty framing in a version that never had the field.
            (Some(_), _) if self.http10 => Err(Refusal::Malformed("Transfer-Encoding in HTTP/1.0")),
            (Some(_), Some(_)) => Err(Refusal::Malformed(
                "both Transfer-Encoding and Content-Length",
            )),
            (Some(Coding::Chunked), None) => Ok(BodyFraming::Chunked),
            (Some(Coding::Unknown), None) => Err(Refusal::TransferCoding),
            (Some(Coding::NotChunkedLast), None) => Err(Refusal::Malformed(
                "chunked is not the final transfer coding",
            )),
        }
    }
}

/// Printable ASCII without `#`, which begins a fragment and so cannot be part of a target
/// (RFC 9112 §3.2), and without the bytes forbidden by RFC 3986 that Pingora's parser
/// refuses. Others that RFC 3986 forbids pass, because browsers send them.
fn is_target(target: &[u8]) -> bool {
    let end = memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    let printable = |byte: &u8| (0x21..=0x7e).contains(byte) && !matches!(byte, b'#' | b'<' | b'>');
    path.iter().all(|byte| printable(byte) && *byte != b'`')
        && query.iter().all(|byte| printable(byte) && *byte != b'"')
}

/// `tchar` (RFC 9110 §5.6.2).
pub(super) const fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

static TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        table[byte] = value.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

/// HTAB, SP, VCHAR or obs-text (RFC 9110 §5.5).
pub(super) const fn is_field_byte(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || byte == b'\t'
}

/// `uri-host [ ":" port ]` by its characters; empty is allowed (RFC 9112 §3.2).
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(close) = memchr(b']', rest) else {
                return false;
            };
            let (literal, after) = rest.split_at(close);
            let plausible = literal
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'v'));
            match after.get(1..).unwrap_or_default() {
                [] => return plausible,
                [b':', port @ ..] if plausible => (&[] as &[u8], port),
                _ => return false,
            }
        }
        _ => match memchr(b':', value) {
            Some(colon) => {
                let (host, port) = value.split_at(colon);
                (host, port.get(1..).unwrap_or_default())
            }
            None => (value, &[] as &[u8]),
        },
    };
    let reg_name = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
            || matches!(
                byte,
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            )
    };
    host.iter().all(reg_name) && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// The authority of an `http` or `https` target in absolute-form.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let after = |scheme: &[u8]| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after(b"http://").or_else(|| after(b"https://"))?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    rest.get(..end.unwrap_or(rest.len()))
}

#[cfg(test)]
mod tests;
