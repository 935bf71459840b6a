//! `cellgate-bench`: Cellgate beside nginx, HAProxy, Envoy and a bare Pingora.
//!
//! `run` measures in turns and writes JSON lines; `report` makes tables and plots
//! of them. `make bench` does both, after it has brought and built everything.

mod cells;
mod client;
mod load;
mod measure;
mod peers;
mod process;
mod record;
mod report;
mod run;
mod sys;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Report(report::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Report(args) => report::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
