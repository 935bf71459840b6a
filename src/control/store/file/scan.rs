//! What is in a segment's file, whatever has happened to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::frame::{self, HEADER, Header};
use super::segment::Entry;

/// What is at a place of a file.
pub(super) enum Frame {
    Good(Box<Entry>),
    /// The end of the file is before the frame's, or there is nothing but zeros.
    Torn,
    /// Bytes that are no frame. If the header is one, where it ends.
    Bad(Option<u64>),
}

pub(super) struct Scan {
    file: File,
    length: u64,
}

impl Scan {
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn frame(&mut self, at: u64) -> io::Result<Frame> {
        let left = self.length.saturating_sub(at);
        let mut header = [0; HEADER];
        if left < HEADER as u64 {
            return Ok(Frame::Torn);
        }
        self.file.read_exact_at(&mut header, at)?;
        let Some(header) = Header::read(&header) else {
            // Some file systems grow a file before its bytes are there.
            let empty = self.only_zeros_from(at)?;
            return Ok(if empty { Frame::Torn } else { Frame::Bad(None) });
        };
        let Some(bytes) = header.frame_bytes().filter(|bytes| *bytes <= left) else {
            return Ok(Frame::Torn);
        };
        // The header vouches for the length, which is in the file.
        let mut record = vec![0; usize::try_from(header.record_bytes).unwrap_or_default()];
        self.file.read_exact_at(&mut record, at + HEADER as u64)?;
        let Some(record) = header.record(&record) else {
            return Ok(Frame::Bad(Some(at + bytes)));
        };
        Ok(Frame::Good(Box::new(Entry { record, header, at })))
    }

    fn only_zeros_from(&mut self, at: u64) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(at))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(true),
                read if buffer.iter().take(read).any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }

    /// Where the next thing begins that is a header, beyond `at`.
    fn header_after(&mut self, at: u64) -> io::Result<Option<u64>> {
        let mut rest = Vec::new();
        self.file.seek(SeekFrom::Start(at + 1))?;
        self.file.read_to_end(&mut rest)?;
        let places = memchr::memmem::find_iter(&rest, &frame::MAGIC);
        let mut headers = places.filter(|place| {
            let bytes = rest.get(*place..).and_then(|rest| rest.first_chunk());
            bytes.is_some_and(|bytes| Header::read(bytes).is_some())
        });
        Ok(headers.next().map(|place| at + 1 + place as u64))
    }

    /// The highest generation that can be made out from `at` on, where what comes
    /// after `last` was; `last` if none.
    pub fn highest_after(&mut self, mut at: u64, last: u64) -> io::Result<u64> {
        let mut highest = last;
        while at < self.length {
            let number;
            (at, number) = match self.frame(at)? {
                Frame::Good(entry) => (
                    at + entry.header.frame_bytes().unwrap_or(u64::MAX),
                    Some(entry.record.generation),
                ),
                Frame::Bad(Some(next)) => (next, None),
                Frame::Bad(None) => match self.header_after(at)? {
                    Some(next) => (next, None),
                    None => break,
                },
                Frame::Torn => break,
            };
            // Damaged or not readable, it was one.
            highest = number.unwrap_or(highest + 1).max(highest);
        }
        Ok(highest)
    }
}
