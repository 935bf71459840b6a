//! What there is to start with, after whatever happened to the files.

use std::time::SystemTime;

use super::directory::Directory;
use super::reading::{Broken, Reading};
use super::segment::{End, Segment};
use super::tail::{AddError, Tail};
use crate::control::store::{Author, Generation, Record};

/// A directory that can be gone on with.
pub(super) struct Recovered {
    pub segments: Vec<Segment>,
    pub newest: Option<Generation>,
    pub tail: Option<Tail>,
}

/// Finds the newest generation. If a later one is lost, it comes back under a number
/// above that one's.
///
/// # Errors
/// In words for an operator: the files cannot be read or written, or there are some
/// and none has a generation that can be put together.
pub(super) fn recover(directory: &Directory) -> Result<Recovered, String> {
    let firsts = directory.segments().map_err(|error| error.to_string())?;
    let mut segments = Vec::new();
    for first in &firsts {
        let path = directory.segment(*first);
        let segment = Segment::scan(directory, *first)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        if let End::Damaged { .. } = segment.how {
            let good = match segment.last() {
                Some(last) => format!("after generation {last}"),
                None => "at its beginning".to_owned(),
            };
            log::error!(
                target: "cellgate::control",
                "{}: damaged {good}; the file is left as it is",
                path.display()
            );
        }
        segments.push(segment);
    }
    let highest = segments.iter().map(highest).max().unwrap_or_default();
    supersede(&mut segments);

    let Some((newest, lost)) = newest(directory, &mut segments)? else {
        if segments.is_empty() {
            return Ok(Recovered {
                segments,
                newest: None,
                tail: None,
            });
        }
        return Err(format!(
            "none of its generations can be put together, see the log; to begin anew with what is \
             in the routing file, move its {} files that end in .segment elsewhere",
            segments.len()
        ));
    };
    if lost {
        return again(directory, segments, newest, highest);
    }
    let tail = match segments.last() {
        Some(last) => {
            if last.how == End::Torn {
                log::warn!(
                    target: "cellgate::control",
                    "{}: cut off behind generation {}: what was there was being written when \
                     the process ended, and was never acknowledged",
                    directory.segment(last.first).display(),
                    newest.record.generation
                );
            }
            Some(Tail::resume(directory, last).map_err(|error| error.to_string())?)
        }
        None => None,
    };
    Ok(Recovered {
        segments,
        newest: Some(newest),
        tail,
    })
}

/// The highest generation that a segment is known to have had.
fn highest(segment: &Segment) -> u64 {
    let lost = match segment.how {
        End::Damaged { lost } => lost,
        End::Clean | End::Torn => 0,
    };
    segment.last().unwrap_or(segment.first).max(lost)
}

/// What a later segment has as well, or instead, is its. What it was not made of was
/// never acknowledged: nothing is added behind what may be there, see `Line`.
fn supersede(segments: &mut [Segment]) {
    let mut last = u64::MAX;
    for segment in segments.iter_mut().rev() {
        segment
            .entries
            .retain(|entry| entry.record.generation <= last);
        let parent = segment.entries.first().map(|first| first.record.parent);
        last = last.min(parent.unwrap_or(segment.first.saturating_sub(1)));
    }
}

/// The newest generation that can be put together, and whether a later one is lost.
fn newest(
    directory: &Directory,
    segments: &mut [Segment],
) -> Result<Option<(Generation, bool)>, String> {
    let mut lost = false;
    for segment in segments.iter_mut().rev() {
        lost |= matches!(segment.how, End::Damaged { .. });
        let Some(index) = segment.entries.len().checked_sub(1) else {
            continue;
        };
        match segment.reading(directory, index).and_then(Reading::run) {
            Ok(newest) => return Ok(Some((newest, lost))),
            Err(Broken {
                good,
                generation,
                why,
            }) => {
                log::error!(
                    target: "cellgate::control",
                    "generation {generation} cannot be put together: {why}; the file is left as \
                     it is"
                );
                lost = true;
                segment
                    .entries
                    .retain(|entry| entry.record.generation < generation);
                if let Some(good) = good {
                    return Ok(Some((*good, lost)));
                }
            }
        }
    }
    Ok(None)
}

/// Makes `newest` the newest again, above all that there were.
fn again(
    directory: &Directory,
    mut segments: Vec<Segment>,
    newest: Generation,
    highest: u64,
) -> Result<Recovered, String> {
    let was = newest.record.generation;
    let recovered = Generation {
        record: Record {
            generation: highest.max(was) + 1,
            parent: was,
            at: SystemTime::now(),
            author: Author {
                who: "store".to_owned(),
                from: String::new(),
                what: format!("recover generation {was}"),
            },
            set: 0,
            removed: 0,
            head: false,
            id: format!("{:032x}", rand::random::<u128>()),
            ..newest.record
        },
        table: newest.table,
    };
    log::error!(
        target: "cellgate::control",
        "generations after {was} are lost, the last known of them is {highest}; generation {was} \
         is the newest again, as generation {}: make again what was changed since {}",
        recovered.record.generation,
        crate::telemetry::time::rfc3339_millis(newest.record.at)
    );
    let (segment, tail) = Tail::begin(directory, &recovered)
        .map_err(|(AddError::Failed(error) | AddError::Unknown(error))| error.to_string())?;
    segments.push(segment);
    Ok(Recovered {
        segments,
        newest: Some(recovered),
        tail: Some(tail),
    })
}
