//! One file a command: its arguments, and what runs when it is called.
//!
//! The only folder that may import all others; nothing imports it but `main`.

pub mod cell;
pub mod check;
mod control;
pub mod ctl;
pub mod demo;
mod edge;
pub mod explain;
mod fetch;
pub mod health;
mod print;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// A thin, fast edge proxy that routes each tenant to the cell where it lives
///
/// Cellgate reads a routing key from each request, looks it up in a table that changes while it
/// runs, and proxies the request to the cell named there.
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
    /// Print a completion script for a shell
    Completions {
        /// Which shell
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
            // Not to standard output itself: the generator panics when that is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cellgate", &mut script);
            let mut stdout = io::stdout().lock();
            let written = stdout.write_all(&script).and_then(|()| stdout.flush());
            check::exit(written.map(|()| 0))
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
