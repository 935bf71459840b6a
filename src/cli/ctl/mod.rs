//! `cellgate ctl`: reads and changes the routing table of a control plane.
//!
//! - `client` and `tls` talk to it, `failure` is why something did not work.
//! - `keys`, `document`, `history`, `compare` and `edges` are the commands, each a
//!   function from what was asked to what is printed.
//! - `table` aligns columns.

mod client;
mod compare;
mod document;
mod edges;
mod failure;
mod history;
mod keys;
mod table;
mod tls;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use self::client::Client;
use self::failure::Failure;
use super::check::{exit, write_json};

/// Read and change the routing table of a control plane
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit status: 0 when it was done, 1 when it was refused or something is not valid, \
2 when the control plane cannot be reached or a file cannot be read.

$CELLGATE_TOKEN may hold the token itself, where there is no --token-file.")]
pub struct Args {
    #[command(flatten)]
    server: Server,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

/// Where the control plane is, and who asks.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Control plane")]
struct Server {
    /// Address of the control plane
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "CELLGATE_CONTROL_URL",
        default_value = "http://127.0.0.1:8081"
    )]
    url: String,

    /// File that holds the token to show
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Certificates to verify the control plane with, instead of the system's
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Certificate to show to the control plane, with its chain
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// Private key of the certificate
    #[arg(long, global = true, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,

    /// How long the control plane may be silent
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
}

/// On what condition something is changed.
#[derive(clap::Args, Debug)]
struct Condition {
    /// Change it only on top of this generation, given by its etag
    ///
    /// Without it the change is made on top of whatever is there.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print where a key lives, or the whole routing document
    Get(document::Get),
    /// Have keys live on placements, all at once
    Set(keys::Set),
    /// Take keys out of the table, all at once
    Unset(keys::Unset),
    /// List keys
    Keys(keys::List),
    /// Put a routing document in the place of all there is
    Import(document::Import),
    /// List the generations, newest first
    History(history::List),
    /// Show a generation: who made it, when and what
    Show(history::Show),
    /// Show what a generation changed, or what differs between two
    Diff(compare::Args),
    /// Make what a generation has a new generation
    Restore(history::Restore),
    /// List the edges, or show one
    Edges(edges::Args),
    /// Show the control plane and what it has
    Status,
}

/// What is printed when all went well.
struct Printed {
    text: String,
    json: Value,
}

/// How a command ended that was not refused.
enum Done {
    Print(Printed),
    /// It has printed what it had, as it came.
    Printed,
}

impl From<Printed> for Done {
    fn from(printed: Printed) -> Self {
        Self::Print(printed)
    }
}

/// Runs the command on the process's own standard streams.
pub fn run(args: Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(done(&args)),
        Err(error) => Err(Failure::unreachable(format!("cannot start: {error}"))),
    };
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    exit(print(done, args.json, &mut stdout, &mut stderr))
}

async fn done(args: &Args) -> Result<Done, Failure> {
    let mut client = Client::new(&args.server)?;
    let client = &mut client;
    Ok(match &args.command {
        Command::Get(get) => return document::get(client, get).await,
        Command::Set(set) => keys::set(client, set).await?.into(),
        Command::Unset(unset) => keys::unset(client, unset).await?.into(),
        Command::Keys(list) => keys::list(client, list).await?.into(),
        Command::Import(import) => document::import(client, import).await?.into(),
        Command::History(list) => history::list(client, list).await?.into(),
        Command::Show(show) => return history::show(client, show).await,
        Command::Diff(diff) => compare::diff(client, diff).await?.into(),
        Command::Restore(restore) => history::restore(client, restore).await?.into(),
        Command::Edges(edges) => edges::edges(client, edges).await?.into(),
        Command::Status => edges::status(client).await?.into(),
    })
}

fn print(
    done: Result<Done, Failure>,
    json: bool,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let status = match (done, json) {
        (Ok(Done::Printed), _) => 0,
        (Ok(Done::Print(printed)), true) => write_json(stdout, &printed.json).map(|()| 0)?,
        (Ok(Done::Print(printed)), false) => {
            stdout.write_all(printed.text.as_bytes()).map(|()| 0)?
        }
        (Err(failure), true) => write_json(stdout, &failure.json()).map(|()| failure.status())?,
        (Err(failure), false) => failure.write(stderr).map(|()| failure.status())?,
    };
    stdout.flush()?;
    Ok(status)
}
