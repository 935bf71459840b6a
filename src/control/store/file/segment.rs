//! One file of generations: read from its beginning, written at its end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::directory::Directory;
use super::frame::{self, HEADER, Header, Kind};
use crate::control::store::{Generation, Record};

/// A generation that is in a segment.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub record: Record,
    pub header: Header,
    /// Where its frame begins.
    pub at: u64,
}

impl Entry {
    fn body_at(&self) -> u64 {
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
        let file = File::open(directory.segment(first))?;
        let length = file.metadata()?.len();
        let mut scan = Scan { file, length };
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
                    let lost = scan.highest_after(at)?;
                    let last = segment.last().unwrap_or(first.saturating_sub(1));
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
        match File::open(&path) {
            Ok(file) => Ok(Reading {
                file,
                path,
                entries: self.entries.iter().take(index + 1).cloned().collect(),
            }),
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
    ) -> Result<crate::routing::Delta, String> {
        let entry = self.entries.get(index).ok_or("it is not there")?;
        let file = File::open(directory.segment(self.first)).map_err(|error| error.to_string())?;
        frame::read_delta(&read_body(&file, entry)?)
    }
}

/// A generation that is about to be put together.
#[derive(Debug)]
pub(super) struct Reading {
    file: File,
    path: PathBuf,
    /// A table, and what made each of the next ones of the one before.
    entries: Vec<Entry>,
}

impl Reading {
    /// Reads them all. Takes time that grows with the table.
    ///
    /// # Errors
    /// Which generation cannot be put together, and why.
    pub fn run(self) -> Result<Generation, Broken> {
        let mut current: Option<Generation> = None;
        for entry in self.entries {
            match next(&self.file, &entry, current.as_ref()) {
                Ok(next) => current = Some(next),
                Err(why) => {
                    return Err(Broken {
                        good: current.map(Box::new),
                        generation: entry.record.generation,
                        why: format!("{}: {why}", self.path.display()),
                    });
                }
            }
        }
        current.ok_or_else(|| Broken {
            good: None,
            generation: 0,
            why: format!("{}: it has no table", self.path.display()),
        })
    }
}

/// The generation of `entry` on top of the one before.
fn next(file: &File, entry: &Entry, before: Option<&Generation>) -> Result<Generation, String> {
    let body = read_body(file, entry)?;
    let table = match before {
        None => frame::read_table(&body)?,
        Some(before) => {
            let delta = frame::read_delta(&body)?;
            before.table.apply(&delta).map_err(|problems| {
                let first = problems.first().map(ToString::to_string);
                format!("its delta is not valid: {}", first.unwrap_or_default())
            })?
        }
    };
    match table.digest() == entry.record.digest {
        true => Ok(Generation {
            record: entry.record.clone(),
            table: table.into(),
        }),
        false => Err(format!(
            "its table has the digest {}, not {}",
            table.digest(),
            entry.record.digest
        )),
    }
}

/// A generation that cannot be put together.
#[derive(Debug)]
pub(super) struct Broken {
    /// The last one before it that can.
    pub good: Option<Box<Generation>>,
    pub generation: u64,
    pub why: String,
}

fn read_body(file: &File, entry: &Entry) -> Result<Vec<u8>, String> {
    let bytes = entry.header.body_bytes;
    let mut body = Vec::new();
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    body.try_reserve_exact(length)
        .map_err(|_| format!("no memory for its {bytes} bytes"))?;
    body.resize(length, 0);
    file.read_exact_at(&mut body, entry.body_at())
        .map_err(|error| error.to_string())?;
    match entry.header.has_body(&body) {
        true => Ok(body),
        false => Err("it is damaged: its sum is not that of its content".to_owned()),
    }
}

/// What is at a place of a file.
enum Frame {
    Good(Box<Entry>),
    /// The end of the file is before the frame's, or there is nothing but zeros.
    Torn,
    /// Bytes that are no frame. If the header is one, where it ends.
    Bad(Option<u64>),
}

struct Scan {
    file: File,
    length: u64,
}

impl Scan {
    fn frame(&mut self, at: u64) -> io::Result<Frame> {
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

    /// The highest generation that can be made out from `at` on; 0 if none.
    fn highest_after(&mut self, mut at: u64) -> io::Result<u64> {
        let mut highest = 0;
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

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    /// Where the next frame goes. What is in the file after it is rubble.
    end: u64,
    /// There may be rubble that could not be removed.
    rubble: bool,
}

impl Tail {
    /// Writes a new segment that has `record` and its table in it. It is there as a
    /// whole or not at all.
    ///
    /// # Errors
    /// It cannot be written; nothing has changed then.
    pub fn begin(directory: &Directory, generation: &Generation) -> io::Result<(Segment, Self)> {
        let begun = Self::write(directory, generation);
        if begun.is_err() {
            directory.discard_new();
        }
        begun
    }

    fn write(directory: &Directory, generation: &Generation) -> io::Result<(Segment, Self)> {
        let first = generation.record.generation;
        let file = directory.new_segment()?;
        let mut out = BufWriter::with_capacity(1 << 16, &file);
        out.write_all(&[0; HEADER])?;
        let header = frame::write_table(&generation.record, &generation.table, &mut out)?;
        out.flush()?;
        drop(out);
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        if let Err(error) = directory.put(first) {
            // It may have its name, and would be found at the next start.
            let _ = directory.remove(first);
            return Err(error);
        }
        let header = Header::read(&header).ok_or_else(|| io::Error::other("no header"))?;
        let end = header.frame_bytes().unwrap_or(u64::MAX);
        let entry = Entry {
            record: generation.record.clone(),
            header,
            at: 0,
        };
        let segment = Segment {
            first,
            entries: vec![entry],
            end,
            how: End::Clean,
        };
        let rubble = false;
        Ok((segment, Self { file, end, rubble }))
    }

    /// Goes on with a segment; what is after its last whole frame is cut off.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn resume(directory: &Directory, segment: &Segment) -> io::Result<Self> {
        let path = directory.segment(segment.first);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if segment.how == End::Torn {
            file.set_len(segment.end)?;
            file.sync_all()?;
        }
        Ok(Self {
            file,
            end: segment.end,
            rubble: false,
        })
    }

    /// Adds a frame at the end, durable when this returns. Says where it begins.
    ///
    /// # Errors
    /// It was not added, or it is not known whether it was.
    pub fn add(&mut self, frame: &[u8]) -> Result<u64, AddError> {
        if self.rubble {
            self.clear().map_err(AddError::Failed)?;
        }
        let added = self
            .file
            .write_all_at(frame, self.end)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = added {
            // A full disk still takes this.
            return Err(match self.clear() {
                Ok(()) => AddError::Failed(error),
                Err(_) => {
                    self.rubble = true;
                    AddError::Unknown(error)
                }
            });
        }
        let at = self.end;
        self.end += frame.len() as u64;
        Ok(at)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.sync_all()?;
        self.rubble = false;
        Ok(())
    }
}

/// Why a frame was not added.
#[derive(Debug)]
pub(super) enum AddError {
    Failed(io::Error),
    /// It may be there after the next start.
    Unknown(io::Error),
}
