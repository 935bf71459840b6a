//! What commands write to the standard streams, and the exit codes they end with.
//!
//! The reader may have closed the stream, as in `… | head`. The standard library's
//! printing macros would panic then, so none is used.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::table::Problem;

/// The exit code when the result cannot be written.
const UNWRITTEN: u8 = 2;

/// Prints a line on standard output; write errors are ignored.
pub(super) fn line(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a line on standard error; write errors are ignored.
pub(super) fn error(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints why a process cannot start, one problem a line.
pub(super) fn refuse(problems: impl IntoIterator<Item = String>) -> ExitCode {
    for problem in problems {
        error(format_args!("error: {problem}"));
    }
    ExitCode::FAILURE
}

/// The exit code of a command that ended with `status`, or failed to write its result.
pub(super) fn exit(status: io::Result<u8>) -> ExitCode {
    match status {
        Ok(status) => ExitCode::from(status),
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(UNWRITTEN),
        Err(cause) => {
            error(format_args!("cannot write the result: {cause}"));
            ExitCode::from(UNWRITTEN)
        }
    }
}

/// Writes `value` as indented JSON.
pub(super) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Writes one `FILE:LINE:COLUMN: MESSAGE` line a problem, which editors and CI systems
/// turn into links.
pub(super) fn write_problems(
    out: &mut dyn Write,
    file: &str,
    problems: &[Problem],
) -> io::Result<()> {
    for problem in problems {
        let words = problem.without_position();
        match (problem.line, problem.column) {
            (0, _) => writeln!(out, "{file}: {words}")?,
            (line, column) => writeln!(out, "{file}:{line}:{column}: {words}")?,
        }
    }
    Ok(())
}

/// Rows below a head, each column as wide as its widest cell. Control characters are
/// escaped.
pub(super) fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> String {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; COLUMNS]> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.clone().map(|cell| escaped(&cell)))
        .collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = widths.iter().zip(row);
        let line: String = cells
            .map(|(width, cell)| format!("{cell:width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names with their values, one a line. Control characters are escaped.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in fields {
        let line = format!("{name:width$}  {}", escaped(value));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `text` on one line, without characters that a terminal would act on.
pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character.is_control() {
            true => character.escape_default().collect::<Vec<_>>(),
            false => vec![character],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |key: &str, placement: &str, why: &str| {
            [key.to_owned(), placement.to_owned(), why.to_owned()]
        };
        let rows = [
            row("acme", "tier1", ""),
            row("café-de-flore", "a", "b c"),
            row("\x1b[31m\n", "", ""),
        ];
        assert_eq!(
            table(["KEY", "PLACEMENT", "WHY"], &rows),
            "KEY            PLACEMENT  WHY\n\
             acme           tier1\n\
             café-de-flore  a          b c\n\
             \\u{1b}[31m\\n\n"
        );
        assert_eq!(table(["KEY", "N"], &[]), "KEY  N\n");
    }

    #[test]
    fn values_are_aligned() {
        let text = fields(&[
            ("id", "cp-1".into()),
            ("version", "".into()),
            ("at", "now".into()),
        ]);
        assert_eq!(text, "id       cp-1\nversion\nat       now\n");
    }
}
