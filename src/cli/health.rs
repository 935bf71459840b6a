//! `cellgate health`: checks whether an edge is ready, for container health checks.

use std::process::ExitCode;
use std::time::Duration;

use super::output;
use crate::client::get;

/// Check whether a running edge is ready
///
/// Requests GET /readyz from the edge's admin service, for health checks in containers without curl.
///
/// Exit status: 0 when the edge is ready, 1 when it is starting, draining or unreachable.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address of the admin service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: String,

    /// Request this URL instead, such as a demo cell's /health; any 2xx status means ready
    #[arg(long, value_name = "URL", conflicts_with = "admin")]
    url: Option<String>,

    /// Deadline of the request
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// The largest answer, in bytes.
const ANSWER_BYTES: usize = 1 << 20;

/// Prints one line: `ready`, or why not.
pub fn run(args: Args) -> ExitCode {
    match ask(args) {
        Ok(()) => {
            output::line("ready");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            output::error(format_args!("not ready: {reason}"));
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
    let answer = runtime
        .block_on(get(&url, ANSWER_BYTES, args.timeout))
        .map_err(|why| format!("{url}: {why}"))?;
    if answer.status.is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body);
    Err(format!("{url}: status {}: {}", answer.status, body.trim()))
}
