//! Checks of values against their bounds. Errors start with the name of the field.

use std::fmt;

use super::limits::{KEY_BYTES, NUMBER_MAX, PROBLEM_BYTES, PROBLEMS};
use crate::table::Problem;

/// Checks an identifier: 1 to `most` bytes of printable ASCII without spaces.
pub(super) fn name(field: &str, value: &str, most: usize) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{field}: empty"));
    }
    length(field, value, most)?;
    match value.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(format!(
            "{field}: {value:?} (valid: printable ascii without spaces)"
        )),
    }
}

/// Checks text for people: at most `most` bytes on one line.
pub(super) fn line(field: &str, value: &str, most: usize) -> Result<(), String> {
    length(field, value, most)?;
    match value.chars().find(|character| character.is_control()) {
        None => Ok(()),
        Some(character) => Err(format!(
            "{field}: control character U+{:04X}",
            u32::from(character)
        )),
    }
}

pub(super) fn length(field: &str, value: &str, most: usize) -> Result<(), String> {
    count(field, value.len(), "bytes", most)
}

pub(super) fn count(field: &str, count: usize, what: &str, most: usize) -> Result<(), String> {
    match count > most {
        true => Err(format!("{field}: {count} {what} (at most {most})")),
        false => Ok(()),
    }
}

/// Checks a number that may be 0.
pub(super) fn number(field: &str, value: u64) -> Result<(), String> {
    match value > NUMBER_MAX {
        true => Err(format!("{field}: {value} (at most {NUMBER_MAX})")),
        false => Ok(()),
    }
}

/// Checks the number of a generation.
pub(super) fn generation(field: &str, value: u64) -> Result<(), String> {
    match value {
        0 => Err(format!("{field}: 0 (the first generation is 1)")),
        value => number(field, value),
    }
}

pub(super) fn problems(list: &[Problem]) -> Result<(), String> {
    count("problems", list.len(), "problems", PROBLEMS)?;
    for problem in list {
        length("problems: pointer", &problem.pointer, PROBLEM_BYTES)?;
        line("problems: message", &problem.message, PROBLEM_BYTES)?;
    }
    Ok(())
}

/// Cuts `value` to at most `most` bytes, at a character boundary.
pub(super) fn cut(value: &mut String, most: usize) {
    if value.len() > most {
        let mut end = most.saturating_sub('…'.len_utf8());
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        value.push('…');
    }
}

/// Checks that a key is short enough to be sent.
///
/// # Errors
///
/// It is longer than [`KEY_BYTES`].
pub fn sendable(key: &str) -> Result<(), KeyTooLong> {
    match key.len() {
        bytes if bytes > KEY_BYTES => Err(KeyTooLong { bytes }),
        _ => Ok(()),
    }
}

/// A routing key that no message can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTooLong {
    pub bytes: usize,
}

impl fmt::Display for KeyTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "routing key of {} bytes, which cannot be sent to edges (at most {KEY_BYTES})",
            self.bytes
        )
    }
}

impl std::error::Error for KeyTooLong {}
