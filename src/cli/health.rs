//! `cellgate health`: asks an edge whether it is ready, for container and load-balancer checks.

use std::process::ExitCode;
use std::time::Duration;

use super::fetch::get;
use super::print;

/// Ask a running edge whether it is ready to serve
///
/// Reads GET /readyz of the admin service. Exits 0 when the edge is ready, and 1 when it is not ready,
/// is draining, or cannot be reached. Made for container health checks, where no curl is at hand.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address of the admin service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: String,

    /// Ask this URL instead, for instance a demo cell's /health; any 2xx is healthy
    #[arg(long, value_name = "URL", conflicts_with = "admin")]
    url: Option<String>,

    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Prints one line: `ready`, or why not.
pub fn run(args: Args) -> ExitCode {
    match ask(args) {
        Ok(()) => {
            print::line("ready");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            print::error(format_args!("not ready: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn ask(args: Args) -> Result<(), String> {
    let url = args
        .url
        .unwrap_or_else(|| format!("{}/readyz", args.admin.trim_end_matches('/')));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let answer = runtime.block_on(get(&url, args.timeout))?;
    if answer.status.is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body);
    Err(format!("{url} answered {}: {}", answer.status, body.trim()))
}
