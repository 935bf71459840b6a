//! Why something did not work.

use std::io::{self, Write};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::check::write_problems;
use crate::control::core::Etag;
use crate::control::store::Record;
use crate::table::Problem;

/// It was refused, or is not valid.
const REFUSED: u8 = 1;
/// There is no one to ask, or nothing to ask with.
const UNREACHABLE: u8 = 2;

/// Why something did not work.
#[derive(Debug)]
pub(super) struct Failure {
    status: u8,
    json: Value,
    message: String,
    problems: Vec<Problem>,
    /// The file that has the problems.
    file: Option<String>,
}

/// What a control plane says is wrong.
#[derive(Deserialize)]
struct Refusal {
    message: String,
    #[serde(default)]
    problems: Vec<Problem>,
    newest: Option<Record>,
}

impl Failure {
    fn new(status: u8, error: &str, message: String) -> Self {
        Self {
            status,
            json: json!({"error": error, "message": message, "problems": []}),
            message,
            problems: Vec::new(),
            file: None,
        }
    }

    /// What was asked for makes no sense.
    pub fn refused(error: &str, message: impl Into<String>) -> Self {
        Self::new(REFUSED, error, message.into())
    }

    /// There is no answer, or nothing to ask with.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(UNREACHABLE, "unreachable", message.into())
    }

    /// What was printed could not be written. Says nothing when the reader has seen
    /// enough, as in `… | head`.
    pub fn unwritable(name: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::unreachable(String::new()),
            _ => Self::unreachable(format!("{name}: {error}")),
        }
    }

    /// What is in a file is not valid.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        let message = match problems.as_slice() {
            [one] => one.to_string(),
            more => format!("{} problems", more.len()),
        };
        let mut failure = Self::refused("invalid", message);
        failure.json["problems"] = json!(problems);
        failure.problems = problems;
        failure
    }

    /// What the control plane answered.
    pub fn answered(status: StatusCode, url: &str, body: &[u8]) -> Self {
        let code = match status.is_server_error() {
            true => UNREACHABLE,
            false => REFUSED,
        };
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let refusal = json
            .as_ref()
            .and_then(|json| Refusal::deserialize(json).ok());
        let (Some(json), Some(refusal)) = (json, refusal) else {
            let body = String::from_utf8_lossy(body);
            let start: String = body.trim().chars().take(200).collect();
            let message = format!("{url} answered {status}, which is no control plane's: {start}");
            return Self::new(code, "unexpected_answer", message);
        };
        let message = match refusal.newest {
            Some(newest) => {
                let etag = Etag::of(newest.mark()).to_string();
                format!("{} (its etag: {})", refusal.message, etag.trim_matches('"'))
            }
            None => refusal.message,
        };
        Self {
            status: code,
            json,
            message,
            problems: refusal.problems,
            file: None,
        }
    }

    /// The problems are this file's.
    pub fn in_file(mut self, file: &str) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Which word says what kind of failure it is.
    pub fn is(&self, error: &str) -> bool {
        self.json["error"] == error
    }

    pub fn status(&self) -> u8 {
        self.status
    }

    pub fn json(&self) -> &Value {
        &self.json
    }

    pub fn write(&self, stderr: &mut dyn Write) -> io::Result<()> {
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
