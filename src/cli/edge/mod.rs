//! `cellgate edge`: the data plane, wired together.

mod background;
pub(super) mod limits;
mod sockets;
mod wiring;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use self::wiring::Edge;
use super::print;
use crate::http::ignore_until_handled;
use crate::settings::Settings;
use crate::source::load_initial;
use crate::state::{EdgeOptions, EdgeState};
use crate::telemetry::{Metrics, logging};

/// Run the data plane: route each request to the cell of its tenant
///
/// Reads its settings from conf/edge.yaml (or the file given with -c), its routing table from the
/// file named there, and serves until it is told to stop.
///
/// Signals: SIGHUP reads the routing file again, SIGUSR1 reopens the access log, SIGTERM drains
/// and ends, SIGQUIT hands the listeners to a process started with -u, SIGINT ends at once.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings file; without it conf/edge.yaml if there is one, else the defaults
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,

    /// Check the settings and the routing file, list every problem, and exit 0 or 1
    #[arg(short, long)]
    test: bool,

    /// Take the listeners over from a running edge; send that one SIGQUIT right after
    #[arg(short, long)]
    upgrade: bool,

    /// Run in the background
    #[arg(short, long)]
    daemon: bool,
}

/// Judging another file than the one that was meant would mislead.
const ROUTING_NOT_CHECKED: &str =
    "the routing file was not checked: which one it is will be known when the settings are valid";

/// Serves until a signal ends it. Exits 1 when it cannot start, with one line a
/// reason on standard error.
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
            print::line(format_args!("settings and routing file {path} are valid"));
            return ExitCode::SUCCESS;
        }
    }
    if !problems.is_empty() {
        return refuse(problems);
    }
    logging::init(settings.log_format);
    match Edge::prepare(&settings, args.upgrade, args.daemon) {
        Ok(edge) => {
            edge.serve();
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(problems),
    }
}

fn refuse(problems: impl IntoIterator<Item = String>) -> ExitCode {
    for problem in problems {
        print::error(format_args!("error: {problem}"));
    }
    ExitCode::FAILURE
}

/// What `-t` says of the routing file, also when the settings have to be
/// repaired as well.
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
