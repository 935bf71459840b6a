//! `cellgate demo`: runs the demo of `crate::demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use super::process::Stop;
use crate::demo;

/// Run four demo cells and an edge on this machine, and print what to try
///
/// Starts the cells tier1, tier2, tier3 and visa on 127.0.0.1:9001 to 9004 and an edge in front of them,
/// each as a process of its own. Run it in the directory that contains conf/ and config/. Ctrl-C stops
/// everything.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings file of the edge
    #[arg(short, long, value_name = "FILE", default_value = "conf/demo.yaml")]
    conf: PathBuf,
}

/// Runs until SIGINT or SIGTERM (exit 0), or until a process of the demo cannot start or stops (exit 1).
pub fn run(args: Args) -> ExitCode {
    // The demo has to stay on this thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let cannot_start = |error| vec![format!("cannot start: {error}")];
    let result = runtime.map_err(cannot_start).and_then(|runtime| {
        runtime.block_on(async {
            let mut stop = Stop::listen().map_err(cannot_start)?;
            demo::run(&args.conf, async || stop.requested().await).await
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems {
                output::error(format_args!("demo: {problem}"));
            }
            ExitCode::FAILURE
        }
    }
}
