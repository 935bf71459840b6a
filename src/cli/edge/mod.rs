//! `cellgate edge`: the data plane.
//!
//! `wiring` makes its parts and connects them, on the listeners of `sockets`;
//! `background` are the services beside the request path.

mod background;
mod sockets;
mod wiring;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use self::wiring::Edge;
use super::output;
use crate::http::ignore_until_handled;
use crate::settings::Settings;
use crate::source::load_initial;
use crate::state::{EdgeOptions, EdgeState};
use crate::telemetry::{Metrics, logging};

/// Run the data plane: route each request to the cell of its tenant
///
/// Takes the routing table from the routing file or the control plane that the settings name, and serves
/// until it is stopped.
///
/// Signals: SIGHUP reads the routing file again. SIGUSR1 reopens the access log. SIGTERM drains and stops.
/// SIGQUIT hands the listeners over to a process started with -u. SIGINT stops at once.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings file; the default is conf/edge.yaml, if it exists
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,

    /// Check the settings and the routing file, print every problem, and exit with 0 or 1
    #[arg(short, long)]
    test: bool,

    /// Take over the listeners of a running edge; then send SIGQUIT to that one
    #[arg(short, long)]
    upgrade: bool,

    /// Run in the background
    #[arg(short, long)]
    daemon: bool,
}

/// With invalid settings, `-t` could check a file that is not meant.
const ROUTING_NOT_CHECKED: &str =
    "the routing file was not checked, because the settings that name it are invalid";

/// Serves until a signal stops it. Exits with 1 when it cannot start, with one line for
/// each reason on standard error.
pub fn run(args: Args) -> ExitCode {
    ignore_until_handled();
    let environment = |name: &str| std::env::var(name).ok();
    let draft = Settings::read(args.conf.as_deref(), &environment, args.daemon);
    let settings = draft.settings;
    let mut problems: Vec<String> = draft.problems.iter().map(ToString::to_string).collect();
    if args.test {
        if draft.routing_path_is_known {
            problems.extend(routing_problems(&settings));
        } else {
            problems.push(ROUTING_NOT_CHECKED.to_owned());
        }
        if problems.is_empty() {
            let path = settings.routing.path.display();
            output::line(format_args!("settings and routing file {path} are valid"));
            return ExitCode::SUCCESS;
        }
    }
    if !problems.is_empty() {
        return output::refuse(problems);
    }
    logging::init(settings.log_format);
    match Edge::prepare(&settings, args.upgrade, args.daemon) {
        Ok(edge) => {
            edge.serve();
            ExitCode::SUCCESS
        }
        Err(problems) => output::refuse(problems),
    }
}

/// The problems of the routing file, for `-t`.
fn routing_problems(settings: &Settings) -> Vec<String> {
    let path = &settings.routing.path;
    let state = EdgeState::new(EdgeOptions::default(), Arc::new(Metrics::new()));
    match load_initial(path, settings.limits.routing_file_bytes, &state) {
        Ok(()) => Vec::new(),
        Err(problems) => {
            let named = |problem| format!("{}: {problem}", path.display());
            problems.iter().map(named).collect()
        }
    }
}
