//! A generation put together from what a segment has of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::frame;
use super::segment::Entry;
use crate::control::store::Generation;

/// A generation that is about to be put together.
#[derive(Debug)]
pub(super) struct Reading {
    file: File,
    path: PathBuf,
    /// A table, and what made each of the next ones of the one before.
    entries: Vec<Entry>,
}

impl Reading {
    pub fn new(file: File, path: PathBuf, entries: Vec<Entry>) -> Self {
        Self {
            file,
            path,
            entries,
        }
    }

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

pub(super) fn read_body(file: &File, entry: &Entry) -> Result<Vec<u8>, String> {
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
