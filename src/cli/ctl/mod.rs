//! `cellgate ctl`: reads and changes the routing table of a control plane.
//!
//! `client` sends requests; `keys`, `document`, `history`, `compare` and `edges` are
//! the subcommands, each a function from its arguments to what is printed.

mod client;
mod compare;
mod document;
mod edges;
mod history;
mod keys;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use self::client::Client;
use super::failure::{Failure, Printed, print};
use super::output::exit;

/// Read and change the routing table of a control plane
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The API token is read from --token-file, or else from $CELLGATE_TOKEN.

Exit status: 0 on success, 1 when the request was refused or the input is invalid, 2 when the \
control plane is unreachable or a file cannot be read.")]
pub struct Args {
    #[command(flatten)]
    server: Server,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

/// The control plane, and how to authenticate to it.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Control plane")]
struct Server {
    /// URL of the control plane
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "CELLGATE_CONTROL_URL",
        default_value = "http://127.0.0.1:8081"
    )]
    url: String,

    /// File with the API token
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Trusted CA certificates, instead of the system's (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Client certificate with its chain (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// Private key of the client certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,

    /// How long to wait for the control plane to answer
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
}

/// The condition of a change.
#[derive(clap::Args, Debug)]
struct Condition {
    /// Make the change only if the newest generation has this etag
    ///
    /// `status`, `show` and every change print etags. Without this option, the change
    /// applies to whichever generation is the newest.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print the placement of a key, or the whole routing document
    Get(document::Get),
    /// Assign keys to placements atomically
    Set(keys::Set),
    /// Remove keys from the table atomically
    Unset(keys::Unset),
    /// List keys
    Keys(keys::List),
    /// Replace the whole routing document
    Import(document::Import),
    /// List generations, newest first
    History(history::List),
    /// Show one generation: its author, time and change
    Show(history::Show),
    /// Show what a generation changed, or the difference between two
    Diff(compare::Args),
    /// Make a new generation with the content of an older one
    Restore(history::Restore),
    /// List edges, or show one
    Edges(edges::Args),
    /// Show the control plane and its newest generation
    Status,
}

/// How a successful subcommand ended.
enum Done {
    Print(Printed),
    /// It has written its output as it came.
    Written,
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
    let result = match done {
        Ok(Done::Written) => return ExitCode::SUCCESS,
        Ok(Done::Print(printed)) => Ok(printed),
        Err(failure) => Err(failure),
    };
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    exit(print(result, args.json, &mut stdout, &mut stderr))
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
