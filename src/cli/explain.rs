//! `cellgate explain`: where a routing key goes and why, by a routing file or by the
//! admin service of a running edge.

mod edge;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::failure::{Failure, Printed, UNREACHABLE, print};
use super::output::{exit, fields};
use crate::table::{Endpoint, Scheme, WeightedEndpoint, check_key, compile};

/// Show where a routing key goes, and why
///
/// Looks the key up in a routing file, or asks a running edge, which also knows the state of its cells.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit status: 0 when there is an answer, 1 when the key or the document is invalid or the edge has no \
table, 2 when the file cannot be read or the edge is unreachable.")]
pub struct Args {
    /// The routing key, as requests carry it
    #[arg(value_name = "KEY")]
    pub key: String,

    /// Routing file to look the key up in
    ///
    /// The default is $CONFIG_PATH, or else config/routing.json.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    pub routing: Option<PathBuf>,

    /// Ask the edge with this admin service, such as http://127.0.0.1:9901
    #[arg(long, value_name = "URL", value_parser = admin_url)]
    pub admin: Option<Endpoint>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The routing file without `--routing` and `$CONFIG_PATH`.
const DEFAULT_ROUTING: &str = "config/routing.json";

fn admin_url(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    match endpoint.scheme {
        Scheme::Http => Ok(endpoint),
        Scheme::Https => Err("the admin service speaks plain http".to_owned()),
    }
}

/// Runs the command on the process's own standard streams.
pub fn run(args: Args) -> ExitCode {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    let config_path = env::var_os("CONFIG_PATH");
    exit(explain(&args, config_path, &mut stdout, &mut stderr))
}

/// Answers on `stdout`, or says on `stderr` why not. Returns the exit status. With
/// `--json`, `stdout` gets a JSON object either way. `config_path` is `$CONFIG_PATH`.
///
/// # Errors
/// `stdout` or `stderr` cannot be written to.
pub fn explain(
    args: &Args,
    config_path: Option<OsString>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let answer = check_key(&args.key)
        .map_err(|error| Failure::refused("invalid_key", error.to_string()))
        .and_then(|()| match &args.admin {
            Some(admin) => edge::ask(admin, &args.key),
            None => {
                let configured = config_path
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from);
                let file = args.routing.clone().or(configured);
                ask_file(file.unwrap_or_else(|| DEFAULT_ROUTING.into()), &args.key)
            }
        });
    print(answer, args.json, stdout, stderr)
}

fn ask_file(path: PathBuf, key: &str) -> Result<Printed, Failure> {
    let file = path.display().to_string();
    let document = fs::read(&path).map_err(|error| {
        let message = format!("{file}: cannot be read: {error}");
        Failure::new(UNREACHABLE, "unreadable", message)
    })?;
    let table = compile(&document).map_err(|problems| {
        Failure::invalid("invalid_routing_document", problems).in_file(&file)
    })?;
    let explanation = table.explain(key);
    let mut rows = vec![
        ("key", explanation.key.clone()),
        ("placement", explanation.placement.clone()),
        (
            "reason",
            format!("{} ({})", explanation.reason, explanation.why),
        ),
        endpoints(&explanation.endpoints),
    ];
    if let Some(fallback) = &explanation.fallback {
        rows.push(("fallback", fallback.clone()));
    }
    rows.push(("table", format!("{file} (version {})", explanation.version)));
    let text = fields(&rows);
    let json = serde_json::to_value(&explanation)
        .map_err(|error| Failure::refused("internal_error", error.to_string()))?;
    Ok(Printed { text, json })
}

/// The endpoints of a placement, with their weights if those differ.
fn endpoints(all: &[WeightedEndpoint]) -> (&'static str, String) {
    let weighted = all.windows(2).any(|pair| pair[0].weight != pair[1].weight);
    let shown: Vec<String> = all
        .iter()
        .map(|WeightedEndpoint { endpoint, weight }| {
            if weighted {
                format!("{endpoint} (weight {weight})")
            } else {
                endpoint.to_string()
            }
        })
        .collect();
    let name = if all.len() == 1 {
        "endpoint"
    } else {
        "endpoints"
    };
    (name, shown.join(", "))
}

#[cfg(test)]
mod tests;
