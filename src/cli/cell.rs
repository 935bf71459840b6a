//! `cellgate cell`: runs one demo cell.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use http::HeaderValue;
use tokio::net::TcpListener;

use super::output;
use super::process::Stop;
use crate::demo::{Cell, Misbehaviour, serve};

/// Run a demo cell: an HTTP server that echoes requests, and misbehaves if asked to
///
/// Each answer is a JSON object with the cell's name, the time, and the request's method, path, query and
/// headers. The header X-Cell-Name has the cell's name as well. GET /health answers
/// {"status":"healthy","cell":NAME}. Request bodies are read and dropped.
///
/// The options under "Misbehaviour" do not affect GET /health unless they say so. To test refused
/// connections, run no cell.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the cell in its answers
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Address and port to listen on; port 0 is any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,

    /// Let anyone who can connect change the misbehaviour: PUT /_cell/misbehaviour takes a JSON object with
    /// the options below, such as {"status":503,"fail_rate":0.5}, or {} for none; GET shows it
    #[arg(long)]
    control: bool,

    #[command(flatten, next_help_heading = "Misbehaviour")]
    misbehaviour: Misbehaviour,
}

/// Serves until SIGINT or SIGTERM. Exits with 1 when it cannot listen, 2 when an argument is invalid.
pub fn run(args: Args) -> ExitCode {
    let (name, listen) = (args.name.clone(), args.listen);
    if let Err(problem) = args.misbehaviour.check() {
        output::error(format_args!("cell {name}: {problem}"));
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(run_cell(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(format_args!(
                "cell {name}: cannot listen on {listen}: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

async fn run_cell(args: Args) -> io::Result<()> {
    // Before the line is printed: whoever waits for it may send a signal at once.
    let mut stop = Stop::listen()?;
    let listener = TcpListener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    output::error(format_args!("cell {} listening on {address}", args.name));
    let cell = Cell {
        name: args.name,
        misbehaviour: args.misbehaviour,
        control: args.control,
    };
    serve(listener, cell, stop.requested()).await;
    Ok(())
}

fn parse_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("empty (valid: visible ASCII characters)".to_owned());
    }
    HeaderValue::from_str(name)
        .map(|_| name.to_owned())
        .map_err(|_| "not a header value (valid: visible ASCII characters)".to_owned())
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
