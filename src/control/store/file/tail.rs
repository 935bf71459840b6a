//! The end of the last segment, which is written to; and a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::directory::{Directory, PutError};
use super::frame::{self, HEADER, Header};
use super::segment::{End, Entry, Segment};
use crate::control::store::Generation;

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
    /// It cannot be written; nothing has changed then. Or it was, and may be there
    /// after the next start.
    pub fn begin(
        directory: &Directory,
        generation: &Generation,
    ) -> Result<(Segment, Self), AddError> {
        let first = generation.record.generation;
        let written = match Self::write(directory, generation) {
            Ok(written) => written,
            Err(error) => {
                directory.discard_new();
                return Err(AddError::Failed(error));
            }
        };
        match directory.put(first) {
            Ok(()) => Ok(written),
            Err(PutError::Failed(error)) => {
                directory.discard_new();
                Err(AddError::Failed(error))
            }
            // It has its name, and would be found at the next start.
            Err(PutError::Unsure(error)) => Err(match directory.remove(first) {
                Ok(()) => AddError::Failed(error),
                Err(_) => AddError::Unknown(error),
            }),
        }
    }

    /// Beside its place.
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

/// Why a generation was not added.
#[derive(Debug)]
pub(super) enum AddError {
    /// It is not there, and will not be.
    Failed(io::Error),
    /// It may be there after the next start.
    Unknown(io::Error),
}
