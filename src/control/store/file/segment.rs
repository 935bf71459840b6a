//! One file of generations, as far as it is known without reading their contents.

use std::fs::File;
use std::io;

use super::directory::Directory;
use super::frame::{self, HEADER, Header, Kind};
use super::reading::{Broken, Reading, read_body};
use super::scan::{Frame, Scan};
use crate::control::store::Record;

/// A generation that is in a segment.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub record: Record,
    pub header: Header,
    /// Where its frame begins.
    pub at: u64,
}

impl Entry {
    pub fn body_at(&self) -> u64 {
        self.at + HEADER as u64 + self.header.record_bytes
    }
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a whole frame.
    Clean,
    /// With what a write that was never finished left.
    Torn,
    /// Something in it is not what was written. `lost` is the highest generation
    /// that is known to have been after the last good one.
    Damaged { lost: u64 },
}

/// What is known of a segment without its bodies.
#[derive(Debug)]
pub(super) struct Segment {
    /// What its name says.
    pub first: u64,
    /// In the order of their numbers, each made of the one before.
    pub entries: Vec<Entry>,
    /// Where the last whole frame of `entries` ends.
    pub end: u64,
    pub how: End,
}

impl Segment {
    /// Reads all headers and records, and no bodies.
    ///
    /// # Errors
    /// The file cannot be read. That it is damaged is none.
    pub fn scan(directory: &Directory, first: u64) -> io::Result<Self> {
        let mut scan = Scan::new(File::open(directory.segment(first))?)?;
        let length = scan.length();
        let mut segment = Self {
            first,
            entries: Vec::new(),
            end: 0,
            how: End::Clean,
        };
        let mut at = 0;
        while at < length {
            match scan.frame(at)? {
                Frame::Good(entry) if segment.follows(&entry) => {
                    at += entry.header.frame_bytes().unwrap_or(u64::MAX);
                    segment.end = at;
                    segment.entries.push(*entry);
                }
                Frame::Torn if !segment.entries.is_empty() => {
                    segment.how = End::Torn;
                    break;
                }
                _ => {
                    let last = segment.last().unwrap_or(first.saturating_sub(1));
                    let lost = scan.highest_after(at, last)?;
                    segment.how = End::Damaged {
                        lost: lost.max(last.saturating_add(1)),
                    };
                    break;
                }
            }
        }
        if segment.entries.is_empty() && segment.how == End::Clean {
            segment.how = End::Damaged { lost: first };
        }
        Ok(segment)
    }

    /// Whether `entry` is what has to come next.
    fn follows(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        match self.entries.last() {
            None => entry.header.kind == Kind::Table && record.generation == self.first,
            Some(last) => {
                let last = last.record.generation;
                let grows = record.parent == last && record.generation > last;
                entry.header.kind == Kind::Delta && grows
            }
        }
    }

    /// The number of its last generation.
    pub fn last(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.record.generation)
    }

    /// The bytes of the table that it begins with.
    pub fn table_bytes(&self) -> u64 {
        self.entries
            .first()
            .and_then(|entry| entry.header.frame_bytes())
            .unwrap_or_default()
    }

    /// All that it takes to put the generation at `index` together, whatever becomes
    /// of the segment meanwhile.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn reading(&self, directory: &Directory, index: usize) -> Result<Reading, Broken> {
        let path = directory.segment(self.first);
        let entries = self.entries.iter().take(index + 1).cloned().collect();
        match File::open(&path) {
            Ok(file) => Ok(Reading::new(file, path, entries)),
            Err(error) => Err(Broken {
                good: None,
                generation: self.first,
                why: format!("{}: {error}", path.display()),
            }),
        }
    }

    /// What made the generation at `index` of the one before.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn delta(
        &self,
        directory: &Directory,
        index: usize,
    ) -> Result<crate::table::Delta, String> {
        let entry = self.entries.get(index).ok_or("it is not there")?;
        let file = File::open(directory.segment(self.first)).map_err(|error| error.to_string())?;
        frame::read_delta(&read_body(&file, entry)?)
    }
}
