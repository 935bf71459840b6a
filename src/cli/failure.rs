//! How a command that answers a question ends: with a result, or with a failure, as
//! text for people or as JSON for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::output::{write_json, write_problems};
use crate::table::Problem;

/// The exit code when a request was refused, or a document is invalid.
pub(super) const REFUSED: u8 = 1;
/// The exit code when nobody answers, or a file cannot be read.
pub(super) const UNREACHABLE: u8 = 2;

/// A result.
pub(super) struct Printed {
    pub text: String,
    pub json: Value,
}

/// Why there is no result.
#[derive(Debug)]
pub(super) struct Failure {
    status: u8,
    json: Value,
    message: String,
    problems: Vec<Problem>,
    /// The file that has the problems.
    file: Option<String>,
}

impl Failure {
    /// With the exit code `status`, and `error` as its stable name in JSON.
    pub fn new(status: u8, error: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            json: json!({"error": error, "message": message, "problems": []}),
            message,
            problems: Vec::new(),
            file: None,
        }
    }

    /// The request makes no sense, or is not permitted.
    pub fn refused(error: &str, message: impl Into<String>) -> Self {
        Self::new(REFUSED, error, message)
    }

    /// Nobody answers, or something that the request needs cannot be read.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(UNREACHABLE, "unreachable", message)
    }

    /// Writing to `name` failed. Silent if the reader closed it, as in `… | head`.
    pub fn unwritable(name: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::unreachable(String::new()),
            _ => Self::unreachable(format!("{name}: {error}")),
        }
    }

    /// A document has `problems`.
    pub fn invalid(error: &str, problems: Vec<Problem>) -> Self {
        let message = match problems.as_slice() {
            [one] => one.to_string(),
            more => format!("{} problems", more.len()),
        };
        let mut failure = Self::refused(error, message);
        failure.json["problems"] = json!(problems);
        failure.problems = problems;
        failure
    }

    /// The other side's own account of an error, which is passed on as it came.
    pub fn answered(status: u8, json: Value, message: String, problems: Vec<Problem>) -> Self {
        Self {
            status,
            json,
            message,
            problems,
            file: None,
        }
    }

    /// The problems are those of `file`.
    pub fn in_file(mut self, file: &str) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Whether `error` is its name.
    pub fn is(&self, error: &str) -> bool {
        self.json["error"] == error
    }

    fn write(&self, stderr: &mut dyn Write) -> io::Result<()> {
        match &self.file {
            _ if self.message.is_empty() => Ok(()),
            _ if self.problems.is_empty() => writeln!(stderr, "{}", self.message),
            Some(file) => write_problems(stderr, file, &self.problems),
            None => self
                .problems
                .iter()
                .try_for_each(|problem| writeln!(stderr, "{problem}")),
        }
    }
}

/// Writes the result to `stdout`, or the failure to `stderr`. With `json`, either goes
/// to `stdout` as JSON. Returns the exit code.
///
/// # Errors
/// A stream cannot be written to.
pub(super) fn print(
    result: Result<Printed, Failure>,
    json: bool,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let status = match (result, json) {
        (Ok(printed), true) => write_json(stdout, &printed.json).map(|()| 0)?,
        (Ok(printed), false) => stdout.write_all(printed.text.as_bytes()).map(|()| 0)?,
        (Err(failure), true) => write_json(stdout, &failure.json).map(|()| failure.status)?,
        (Err(failure), false) => failure.write(stderr).map(|()| failure.status)?,
    };
    stdout.flush()?;
    Ok(status)
}
