//! `cellgate cell`: a demo cell that echoes requests, and misbehaves when told to.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::print;
use crate::demo::{Cell, Misbehaviour, serve};

/// Run a demo cell: an HTTP server that answers with what it was asked
///
/// Every answer is a JSON object with the cell's name, the time, and the request's method, path, query
/// and headers; the header X-Cell-Name names the cell again. GET /health answers
/// {"status":"healthy","cell":NAME}. Request bodies are read and dropped.
///
/// The switches to misbehave leave GET /health alone unless they say otherwise. A cell that is refused
/// connections is one that does not run.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the cell, as it appears in its answers
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Address and port to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,

    /// Let whoever reaches the cell change how it misbehaves: PUT /_cell/misbehaviour takes a JSON object
    /// named after the switches, {"status":503,"fail_rate":0.5} or {} for well, and GET shows it
    #[arg(long)]
    control: bool,

    #[command(flatten, next_help_heading = "Misbehaviour")]
    misbehaviour: Misbehaviour,
}

/// Serves until SIGINT or SIGTERM. Exits 1 when it cannot listen, 2 when its arguments are wrong.
pub fn run(args: Args) -> ExitCode {
    let (name, listen) = (args.name.clone(), args.listen);
    if let Err(problem) = args.misbehaviour.check() {
        eprintln!("cell {name}: {problem}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(run_cell(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(format_args!(
                "cell {name}: cannot listen on {listen}: {error}"
            ));
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
    let address = listener.local_addr()?;
    print::error(format_args!("cell {} listening on {address}", args.name));
    let cell = Cell {
        name: args.name,
        misbehaviour: args.misbehaviour,
        control: args.control,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_header_value_are_refused() {
        assert!(parse_name("tier1").is_ok());
        assert!(parse_name("").is_err());
        assert!(parse_name("a\nb").is_err());
    }
}
