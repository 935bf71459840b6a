//! `cellgate explain`: where a key goes, and why. Asks a routing file, or the
//! admin service of a running edge.

mod edge;

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::check::{exit, write_json, write_problems};
use crate::table::{Endpoint, Problem, Scheme, WeightedEndpoint, check_key, compile};

/// Tells where a routing key goes, and why: by a routing file, or by the table
/// that a running edge serves with.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit status: 0 when the key has a place, 1 when the key or the document is \
refused, 2 when the file cannot be read or the edge cannot be reached.")]
pub struct Args {
    /// The routing key, as a request would carry it
    #[arg(value_name = "KEY")]
    pub key: String,

    /// Routing document to ask
    ///
    /// Without this and --admin: $CONFIG_PATH, or else config/routing.json.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    pub routing: Option<PathBuf>,

    /// Admin service of a running edge to ask, such as http://127.0.0.1:9901
    #[arg(long, value_name = "URL", value_parser = admin_url)]
    pub admin: Option<Endpoint>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What routing documents are read from when nothing says otherwise.
const DEFAULT_ROUTING: &str = "config/routing.json";

/// The key or the document is refused.
const REFUSED: u8 = 1;
/// There is no one to ask.
const UNREACHABLE: u8 = 2;

fn admin_url(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    match endpoint.scheme {
        Scheme::Http => Ok(endpoint),
        Scheme::Https => Err("the admin service speaks plain http".to_owned()),
    }
}

/// Runs the command on the process's own standard streams.
pub fn run(args: Args) -> ExitCode {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    let config_path = env::var_os("CONFIG_PATH");
    exit(explain(&args, config_path, &mut stdout, &mut stderr))
}

/// Answers on `stdout`, or says on `stderr` why not; returns the exit status.
/// With `--json`, `stdout` gets a JSON object either way. `config_path` is the
/// environment's routing file.
///
/// # Errors
///
/// When `stdout` or `stderr` cannot be written to.
pub fn explain(
    args: &Args,
    config_path: Option<OsString>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let answer = check_key(&args.key)
        .map_err(|error| Failure::refused("invalid_key", error.to_string()))
        .and_then(|()| match &args.admin {
            Some(admin) => edge::ask(admin, &args.key),
            None => {
                let configured = config_path
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from);
                let file = args.routing.clone().or(configured);
                ask_file(file.unwrap_or_else(|| DEFAULT_ROUTING.into()), &args.key)
            }
        });
    let status = match (answer, args.json) {
        (Ok(answer), true) => write_json(stdout, &answer.json).map(|()| 0),
        (Ok(answer), false) => stdout.write_all(answer.text.as_bytes()).map(|()| 0),
        (Err(failure), true) => write_json(stdout, &failure).map(|()| failure.status),
        (Err(failure), false) => failure.write(stderr).map(|()| failure.status),
    }?;
    stdout.flush()?;
    Ok(status)
}

/// Where the key goes, for people and for machines.
struct Answer {
    text: String,
    json: serde_json::Value,
}

/// Why there is no answer.
#[derive(Debug, Serialize)]
struct Failure {
    #[serde(skip)]
    status: u8,
    /// The stable code, of the admin service when it was that which refused.
    error: String,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
    /// The file that has the problems.
    #[serde(skip)]
    file: String,
}

impl Failure {
    fn new(status: u8, error: &str, message: String) -> Self {
        Self {
            status,
            error: error.to_owned(),
            message,
            problems: Vec::new(),
            file: String::new(),
        }
    }

    fn refused(error: &str, message: String) -> Self {
        Self::new(REFUSED, error, message)
    }

    fn unreachable(error: &str, message: String) -> Self {
        Self::new(UNREACHABLE, error, message)
    }

    fn write(&self, stderr: &mut dyn Write) -> io::Result<()> {
        if self.problems.is_empty() {
            writeln!(stderr, "{}", self.message)
        } else {
            write_problems(stderr, &self.file, &self.problems)
        }
    }
}

fn ask_file(path: PathBuf, key: &str) -> Result<Answer, Failure> {
    let file = path.display().to_string();
    let document = fs::read(&path).map_err(|error| {
        Failure::unreachable("unreadable", format!("{file}: cannot be read: {error}"))
    })?;
    let table = compile(&document).map_err(|problems| Failure {
        problems,
        file: file.clone(),
        ..Failure::refused("invalid_routing_document", format!("{file}: is not valid"))
    })?;
    let explanation = table.explain(key);
    let mut rows = vec![
        ("key", explanation.key.clone()),
        ("placement", explanation.placement.clone()),
        (
            "reason",
            format!("{} ({})", explanation.reason, explanation.why),
        ),
        endpoints(&explanation.endpoints),
    ];
    if let Some(fallback) = &explanation.fallback {
        rows.push(("fallback", fallback.clone()));
    }
    rows.push(("table", format!("{file} (version {})", explanation.version)));
    let text = columns(&rows);
    let json = serde_json::to_value(&explanation)
        .map_err(|error| Failure::refused("internal_error", error.to_string()))?;
    Ok(Answer { text, json })
}

/// A single endpoint alone; several with their weights, if those differ.
fn endpoints(all: &[WeightedEndpoint]) -> (&'static str, String) {
    let weighted = all.windows(2).any(|pair| pair[0].weight != pair[1].weight);
    let shown: Vec<String> = all
        .iter()
        .map(|WeightedEndpoint { endpoint, weight }| {
            if weighted {
                format!("{endpoint} (weight {weight})")
            } else {
                endpoint.to_string()
            }
        })
        .collect();
    let name = if all.len() == 1 {
        "endpoint"
    } else {
        "endpoints"
    };
    (name, shown.join(", "))
}

fn columns(rows: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12}{value}");
    }
    text
}

#[cfg(test)]
mod tests;
