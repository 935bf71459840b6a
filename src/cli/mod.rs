//! The commands: one file or folder each, with its arguments and what it does. `edge`
//! and `control` wire the other modules together.
//!
//! `output`, `failure` and `process` are shared by commands. May import every other
//! folder; only `main` imports it.

mod cell;
mod check;
mod control;
mod ctl;
mod demo;
mod edge;
mod explain;
mod failure;
mod health;
mod output;
mod process;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// A thin, fast edge proxy that routes each tenant to the cell where it lives
///
/// Cellgate reads a routing key from each request, finds its cell in a routing table that changes while
/// it runs, and proxies the request to that cell.
#[derive(Parser, Debug)]
#[command(
    name = "cellgate",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Edge(edge::Args),
    Control(control::Args),
    Check(check::Args),
    Ctl(ctl::Args),
    Explain(explain::Args),
    Health(health::Args),
    Cell(cell::Args),
    Demo(demo::Args),
    /// Print a shell completion script
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Runs the command that the process was called with.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Edge(args) => edge::run(args),
        Command::Control(args) => control::run(args),
        Command::Check(args) => check::run(args),
        Command::Ctl(args) => ctl::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Health(args) => health::run(args),
        Command::Cell(args) => cell::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Completions { shell } => {
            // Into memory first: the generator panics when standard output is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cellgate", &mut script);
            let mut stdout = io::stdout().lock();
            let written = stdout.write_all(&script).and_then(|()| stdout.flush());
            output::exit(written.map(|()| 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
