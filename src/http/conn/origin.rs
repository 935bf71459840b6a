//! Header fields that a request gets before the proxy library reads it.
//!
//! The library's header is a map that keeps each name twice and has no room to spare;
//! adding a field there moves the others. Here it is added to bytes that are read anyway.

use http::HeaderValue;

use super::{ClientConn, buffers};

/// Appends whole field lines, each with its CRLF, to a head that has none of
/// [`ORIGIN_FIELDS`](super::super::ORIGIN_FIELDS): the fields, or some of them, for a
/// client with this address that asked for this host.
pub type OriginFields = fn(client: &HeaderValue, host: &[u8], lines: &mut Vec<u8>);

impl ClientConn {
    /// Whether the request's head says whom it comes from because it was added here.
    pub fn told_origin(&self) -> bool {
        self.told_origin
    }

    /// Adds the fields to the head of so many bytes that `input` begins with, if that is
    /// asked for and the head has none of them. How long it is then.
    pub(super) fn tell_origin(&mut self, length: usize) -> usize {
        let fields = self.config.origin_fields.zip(self.scanner.untold_host());
        let Some((write, host)) = fields else {
            return length;
        };
        let input = self.input.get(self.start..self.end).unwrap_or_default();
        let mut lines = buffers::empty();
        write(
            &self.peer_header,
            input.get(host).unwrap_or_default(),
            &mut lines,
        );
        // The parser behind us has a limit of its own, which is above that of settings.
        let told = length + lines.len();
        if told <= self.config.header_bytes {
            self.insert(length - b"\r\n".len(), &lines);
            self.told_origin = true;
        }
        buffers::give_empty(lines);
        if self.told_origin { told } else { length }
    }

    /// Makes room `at` some byte of what is buffered, where there is less to move.
    fn insert(&mut self, at: usize, lines: &[u8]) {
        let mut at = self.start + at;
        if let Some(start) = self.start.checked_sub(lines.len()) {
            self.input.copy_within(self.start..at, start);
            self.start = start;
            at -= lines.len();
        } else {
            let end = self.end + lines.len();
            if self.input.len() < end {
                self.input.resize(end, 0);
            }
            self.input.copy_within(at..self.end, at + lines.len());
            self.end = end;
        }
        if let Some(room) = self.input.get_mut(at..at + lines.len()) {
            room.copy_from_slice(lines);
        }
    }
}
