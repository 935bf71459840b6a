//! `cellgate check`: validates routing documents with the code that an edge compiles
//! them with.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::output::{exit, write_json, write_problems};
use crate::table::{Problem, RoutingTable, compile};

/// Validate routing documents offline
///
/// Prints one line for each valid document, and every problem of the others.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit status: 0 when all documents are valid, 1 when one is invalid, 2 when one cannot be read.")]
pub struct Args {
    /// Routing documents; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Print a JSON array with one entry for each document
    ///
    /// Problems are in the array as well. Without this option, they are printed on
    /// standard error, as FILE:LINE:COLUMN: MESSAGE.
    #[arg(long)]
    pub json: bool,
}

/// All documents are valid.
const VALID: u8 = 0;
/// A document is invalid.
const INVALID: u8 = 1;
/// A document cannot be read. Outweighs the others.
const UNREADABLE: u8 = 2;

/// Runs the command on the process's own standard streams.
pub fn run(args: Args) -> ExitCode {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    exit(check(
        &args,
        &mut io::stdin().lock(),
        &mut stdout,
        &mut stderr,
    ))
}

/// Validates all documents. Returns the exit status.
///
/// # Errors
/// `stdout` or `stderr` cannot be written to.
pub fn check(
    args: &Args,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let mut status = VALID;
    let mut reports = Vec::new();
    for file in &args.files {
        let report = examine(file, stdin);
        status = status.max(report.status());
        if args.json {
            reports.push(report);
        } else {
            report.write(stdout, stderr)?;
        }
    }
    if args.json {
        write_json(stdout, &reports)?;
    }
    stdout.flush()?;
    Ok(status)
}

fn examine(file: &Path, stdin: &mut dyn Read) -> Report {
    let name = file.display().to_string();
    let read = if file == Path::new("-") {
        let mut document = Vec::new();
        stdin.read_to_end(&mut document).map(|_| document)
    } else {
        fs::read(file)
    };
    match read {
        Ok(document) => match compile(&document) {
            Ok(table) => Report::valid(name, &table),
            Err(problems) => Report {
                file: name,
                problems,
                ..Report::default()
            },
        },
        Err(error) => Report {
            file: name,
            error: Some(format!("cannot be read: {error}")),
            ..Report::default()
        },
    }
}

/// The result for one document.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    valid: bool,
    #[serde(flatten)]
    summary: Option<Summary>,
    problems: Vec<Problem>,
    /// Why the file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Summary {
    version: String,
    keys: usize,
    placements: usize,
    default: String,
}

impl Report {
    fn valid(file: String, table: &RoutingTable) -> Self {
        Self {
            file,
            valid: true,
            summary: Some(Summary {
                version: table.version().to_owned(),
                keys: table.key_count(),
                placements: table.placements().len(),
                default: table.placement(table.default_placement()).name.clone(),
            }),
            ..Self::default()
        }
    }

    fn status(&self) -> u8 {
        match (&self.error, self.valid) {
            (Some(_), _) => UNREADABLE,
            (None, true) => VALID,
            (None, false) => INVALID,
        }
    }

    fn write(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> io::Result<()> {
        let file = &self.file;
        if let Some(Summary {
            version,
            keys,
            placements,
            default,
        }) = &self.summary
        {
            let (keys, placements) = (counted(*keys, "key"), counted(*placements, "placement"));
            writeln!(
                stdout,
                "{file}: ok version {version}, {keys}, {placements}, default {default}"
            )?;
        }
        if let Some(error) = &self.error {
            writeln!(stderr, "{file}: {error}")?;
        }
        write_problems(stderr, file, &self.problems)
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/routing.json");
    const BROKEN: &str = "{\"version\": \"2\",\n \"routingTable\": {\"acme\": \"tier9\"},\n \
                          \"cellEndpoints\": {\"tier1\": \"cell:1\"}, \"defaultPlacement\": \"tier1\"}";

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// Runs with command line `args` and standard input `stdin`; returns exit
    /// status, standard output and standard error.
    fn run(args: &[&str], stdin: &str) -> (u8, String, String) {
        let Cli { args } = Cli::parse_from(["check"].iter().chain(args));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = check(&args, &mut stdin.as_bytes(), &mut stdout, &mut stderr).unwrap();
        (
            status,
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
        )
    }

    #[test]
    fn a_valid_document_is_one_line() {
        let (status, stdout, stderr) = run(&[SAMPLE], "");
        assert_eq!(
            stdout,
            format!("{SAMPLE}: ok version 1.0.0, 4 keys, 4 placements, default tier3\n")
        );
        assert_eq!((status, stderr.as_str()), (0, ""));
    }

    #[test]
    fn problems_are_one_line_each_on_standard_error() {
        let (status, stdout, stderr) = run(&["-"], BROKEN);
        assert_eq!(
            stderr,
            "-:2:27: routingTable[\"acme\"]: unknown placement \"tier9\" (known: tier1; did you mean \"tier1\"?)\n\
             -:3:29: cellEndpoints[\"tier1\"]: endpoint \"cell:1\" has no scheme (write \"http://cell:1\")\n"
        );
        assert_eq!((status, stdout.as_str()), (1, ""));
    }

    #[test]
    fn unreadable_outweighs_invalid_outweighs_valid() {
        let (status, stdout, stderr) = run(&[SAMPLE, "-", "/no/such/file", "/"], BROKEN);
        assert_eq!(status, 2);
        assert!(stdout.contains(": ok version 1.0.0"), "{stdout}");
        assert!(stderr.contains("-:2:27: "), "{stderr}");
        assert!(
            stderr.contains("/no/such/file: cannot be read: "),
            "{stderr}"
        );
        assert!(stderr.contains("\n/: cannot be read: "), "{stderr}");
        assert_eq!(run(&[SAMPLE, "-"], BROKEN).0, 1);
        assert_eq!(run(&[SAMPLE, SAMPLE], "").0, 0);
    }

    #[test]
    fn json_tells_all_on_standard_output() {
        let (status, stdout, stderr) = run(&["--json", SAMPLE, "-", "/no/such/file"], "[]");
        let mut reports: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let error = reports[2]["error"].take();
        assert!(
            error.as_str().unwrap().starts_with("cannot be read: "),
            "{error}"
        );
        assert_eq!(
            reports,
            json!([
                {
                    "file": SAMPLE, "valid": true, "version": "1.0.0", "keys": 4,
                    "placements": 4, "default": "tier3", "problems": [],
                },
                {
                    "file": "-", "valid": false,
                    "problems": [{
                        "pointer": "", "line": 1, "column": 1,
                        "message": "expected an object with the fields version, routingTable, \
                                    placements or cellEndpoints, defaultPlacement; found an array",
                    }],
                },
                { "file": "/no/such/file", "valid": false, "problems": [], "error": null },
            ])
        );
        assert_eq!((status, stderr.as_str()), (2, ""));
    }
}
