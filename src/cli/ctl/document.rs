//! `get` and `import`: the whole routing document.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::client::{Answer, Ask, Client};
use super::compare;
use super::history::written;
use super::keys;
use super::{Condition, Done};
use crate::cli::failure::{Failure, Printed};
use crate::control::api::{Batch, Comparison};
use crate::table::{Delta, Problem, RoutingTable, compile};

#[derive(clap::Args, Debug)]
pub(super) struct Get {
    /// A routing key; without it, the whole routing document is printed
    key: Option<String>,

    /// Write the routing document to this file
    #[arg(long, short, value_name = "FILE", conflicts_with = "key")]
    output: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(super) struct Import {
    /// File with the routing document; `-` is standard input
    file: PathBuf,

    /// The file lists keys to change: {"set": {KEY: PLACEMENT}, "remove": [KEY]}
    #[arg(long)]
    keys: bool,

    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    condition: Condition,
}

/// How many changes of each kind a dry run lists.
const LISTED: usize = 100;

/// `get`.
pub(super) async fn get(client: &mut Client, args: &Get) -> Result<Done, Failure> {
    if let Some(key) = &args.key {
        return Ok(keys::get(client, key).await?.into());
    }
    let mut answer = client.send(Ask::get("/document")).await?;
    let Some(file) = &args.output else {
        copy(&mut answer, &mut io::stdout().lock(), "standard output").await?;
        return Ok(Done::Written);
    };
    let name = file.display().to_string();
    let cannot = |error: &io::Error| Failure::unwritable(&name, error);
    // Into another file first, so that an existing one is replaced as a whole.
    let partial = PathBuf::from(format!("{name}.partial"));
    let mut out = File::create(&partial).map_err(|error| cannot(&error))?;
    let copied = copy(&mut answer, &mut out, &name).await;
    let kept = copied.and_then(|()| {
        out.sync_all()
            .and_then(|()| std::fs::rename(&partial, file))
            .map_err(|error| cannot(&error))
    });
    if let Err(failure) = kept {
        let _ = std::fs::remove_file(&partial);
        return Err(failure);
    }
    let etag = answer.etag().unwrap_or_default();
    let json = json!({"file": name, "etag": etag});
    let text = format!("{name}: etag {etag}\n");
    Ok(Printed { text, json }.into())
}

/// Writes the body of `answer` to `out`, which errors call `name`.
pub(super) async fn copy(
    answer: &mut Answer,
    out: &mut dyn Write,
    name: &str,
) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::unwritable(name, &error);
    while let Some(piece) = answer.piece().await? {
        out.write_all(&piece).map_err(cannot)?;
    }
    out.flush().map_err(cannot)
}

/// `import`.
pub(super) async fn import(client: &mut Client, args: &Import) -> Result<Printed, Failure> {
    let name = args.file.display().to_string();
    let content = read(&args.file)
        .map_err(|error| Failure::unreachable(format!("{name}: cannot be read: {error}")))?;
    let done = match (args.dry_run, args.keys) {
        (true, _) => dry_run(client, args, &content).await,
        (false, true) => keys::batch(client, content, &args.condition).await,
        (false, false) => {
            let ask = Ask {
                method: Method::PUT,
                path: "/document".to_owned(),
                body: content,
                if_match: args.condition.if_match.as_deref(),
            };
            client.json(ask).await.and_then(written)
        }
    };
    done.map_err(|failure| failure.in_file(&name))
}

fn read(file: &Path) -> io::Result<Bytes> {
    if file == Path::new("-") {
        let mut content = Vec::new();
        io::stdin().read_to_end(&mut content)?;
        return Ok(content.into());
    }
    Ok(std::fs::read(file)?.into())
}

/// Computes what the change would do, with the control plane's own code.
async fn dry_run(client: &mut Client, args: &Import, content: &[u8]) -> Result<Printed, Failure> {
    let current = current(client, &args.condition).await?;
    let next = match args.keys {
        false => compile(content).map_err(invalid)?,
        true => {
            let batch = serde_json::from_slice::<Batch>(content)
                .map_err(|error| Failure::refused("invalid_body", format!("body: {error}")))?;
            let current = current.as_ref().ok_or_else(|| {
                Failure::refused("no_document", "there is no routing document yet")
            })?;
            current.apply(&Delta::from(batch)).map_err(invalid)?
        }
    };
    let same = current
        .as_ref()
        .is_some_and(|current| current.digest() == next.digest());
    let comparison = Comparison::of(current.as_ref(), &next, LISTED).map_err(invalid)?;
    let mut text = "dry run: nothing was changed\n".to_owned();
    text.push_str(&compare::text(&comparison));
    Ok(Printed {
        text,
        json: json!({"dry_run": true, "changed": !same, "diff": comparison}),
    })
}

fn invalid(problems: Vec<Problem>) -> Failure {
    Failure::invalid("invalid", problems)
}

/// The newest table of the control plane; None: it has none yet.
async fn current(
    client: &mut Client,
    condition: &Condition,
) -> Result<Option<RoutingTable>, Failure> {
    let mut answer = match client.send(Ask::get("/document")).await {
        Ok(answer) => answer,
        Err(failure) if failure.is("no_document") => match condition.if_match {
            None => return Ok(None),
            Some(_) => {
                let message = "there is no generation yet";
                return Err(Failure::refused("precondition_failed", message));
            }
        },
        Err(failure) => return Err(failure),
    };
    let etag = answer.etag().unwrap_or_default();
    if let Some(wanted) = &condition.if_match
        && wanted != "*"
        && wanted.trim_matches('"') != etag
    {
        let message = format!("the newest generation is not the expected one (its etag: {etag})");
        return Err(Failure::refused("precondition_failed", message));
    }
    let mut document = Vec::new();
    copy(&mut answer, &mut document, "memory").await?;
    let table = compile(&document).map_err(|problems: Vec<Problem>| {
        let first = problems
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        Failure::unreachable(format!(
            "this version cannot read the control plane's document: {first}"
        ))
    })?;
    Ok(Some(table))
}
