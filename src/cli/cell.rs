//! `cellgate cell`: a demo cell that echoes requests, and misbehaves when told to.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cell::{Cell, Misbehaviour, serve};

/// Run a demo cell: an HTTP server that answers with what it was asked
///
/// Every answer is a JSON object with the cell's name, the time, and the request's method, path, query
/// and headers; the header X-Cell-Name names the cell again. GET /health answers
/// {"status":"healthy","cell":NAME}. Request bodies are read and dropped.
///
/// --delay and --close concern every request; --status and --fail-rate leave GET /health alone.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the cell, as it appears in its answers
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Address and port to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,

    /// Wait this long before each answer, for instance 500ms or 12s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,

    /// Answer with this status instead of 200
    #[arg(long, value_name = "CODE", value_parser = parse_status)]
    status: Option<StatusCode>,

    /// Answer this share of requests, from 0 to 1, with 500
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    fail_rate: f64,

    /// Accept each connection, then close it without an answer
    #[arg(long)]
    close: bool,
}

/// Serves until SIGINT or SIGTERM. Exits 1 when it cannot listen.
pub fn run(args: Args) -> ExitCode {
    let (name, listen) = (args.name.clone(), args.listen);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(run_cell(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cell {name}: cannot listen on {listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run_cell(args: Args) -> io::Result<()> {
    // Handlers come first: whoever waits for the line below may send a signal as soon as it is there.
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let listener = TcpListener::bind(args.listen).await?;
    eprintln!("cell {} listening on {}", args.name, listener.local_addr()?);
    let cell = Cell {
        name: args.name,
        misbehaviour: Misbehaviour {
            delay: args.delay,
            status: args.status,
            fail_rate: args.fail_rate,
            close: args.close,
        },
    };
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    serve(listener, cell, stop).await;
    Ok(())
}

fn parse_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("a cell needs a name that is not empty".to_owned());
    }
    HeaderValue::from_str(name)
        .map(|_| name.to_owned())
        .map_err(|_| "a name goes into a header: visible ASCII characters only".to_owned())
}

fn parse_status(code: &str) -> Result<StatusCode, String> {
    // 1xx is no final answer, so it would leave the caller waiting.
    code.parse::<u16>()
        .ok()
        .filter(|code| (200..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| "expected a status from 200 to 599".to_owned())
}

fn parse_share(share: &str) -> Result<f64, String> {
    share
        .parse::<f64>()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0 to 1, for instance 0.3".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_out_of_range_are_refused() {
        assert!(parse_name("tier1").is_ok());
        assert!(parse_name("").is_err());
        assert!(parse_name("a\nb").is_err());
        assert_eq!(parse_status("503"), Ok(StatusCode::SERVICE_UNAVAILABLE));
        for bad in ["100", "600", "-1", "ok", ""] {
            assert!(parse_status(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_share("0.3"), Ok(0.3));
        for bad in ["-0.1", "1.1", "NaN", "half"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }
}
