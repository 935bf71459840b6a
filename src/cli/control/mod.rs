//! `cellgate control`: the control plane.
//!
//! `serve` wires its parts together and runs them; `reload` replaces tokens and
//! certificates at SIGHUP.

mod reload;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::output;
use super::process::raise_open_files;
use crate::control::settings::{Settings, StoreSettings};
use crate::http::ignore_until_handled;
use crate::table;
use crate::telemetry::logging;

/// Run the control plane: keep the routing table, and push every change to all edges
///
/// Keeps every generation of the routing table, takes changes from the API and the routing file, and
/// serves until it is stopped.
///
/// Signals: SIGHUP reloads tokens and certificates. SIGTERM or SIGINT disconnects the edges and stops; a
/// second one stops at once.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings file; the default is conf/control.yaml, if it exists
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,

    /// Check the settings and the routing file, print every problem, and exit with 0 or 1
    #[arg(short, long)]
    test: bool,

    /// Accept connections from other machines without tokens or client certificates: anyone who can
    /// connect can change the routing table
    #[arg(long)]
    insecure: bool,
}

/// Deadline for writing the last log lines.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// Connections besides those of edges: operators, scrapers, load balancers, and edges
/// that are just connecting.
const OTHERS: usize = 1024;

/// Serves until a signal stops it. Exits with 1 when it cannot start, with one line for
/// each reason on standard error.
pub fn run(args: Args) -> ExitCode {
    ignore_until_handled();
    let settings = match load(&args) {
        Ok(settings) => settings,
        Err(problems) => return output::refuse(problems),
    };
    if args.test {
        return match check_routing(&settings) {
            Ok(line) => {
                output::line(line);
                ExitCode::SUCCESS
            }
            Err(problems) => output::refuse(problems),
        };
    }
    logging::init(settings.log_format);
    raise_open_files("max_edges", settings.max_edges.saturating_add(OTHERS));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return output::refuse([error.to_string()]),
    };
    let served = runtime.block_on(serve::serve(&args, settings));
    // Tasks that still wait for a peer are not waited for.
    runtime.shutdown_background();
    logging::flush(LOG_FLUSH);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => output::refuse([problem]),
    }
}

fn load(args: &Args) -> Result<Settings, Vec<String>> {
    let environment = |name: &str| std::env::var(name).ok();
    Settings::load(args.conf.as_deref(), &environment, args.insecure)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// What `-t` prints when the settings are valid.
fn check_routing(settings: &Settings) -> Result<String, Vec<String>> {
    let StoreSettings::File(file) = &settings.store else {
        return Ok("settings are valid".to_owned());
    };
    let path = file.path.display();
    let document = match std::fs::read(&file.path) {
        Ok(document) => document,
        // The control plane writes it with the first generation.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(format!(
                "settings are valid; there is no routing file {path} yet"
            ));
        }
        Err(error) => return Err(vec![format!("cannot read {path}: {error}")]),
    };
    match table::compile(&document) {
        Ok(_) => Ok(format!("settings and routing file {path} are valid")),
        Err(problems) => Err(problems
            .iter()
            .map(|problem| format!("{path}: {problem}"))
            .collect()),
    }
}
