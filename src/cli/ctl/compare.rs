//! `diff`: the changes between two generations.

use serde::Deserialize;

use super::client::Client;
use crate::cli::failure::{Failure, Printed};
use crate::cli::output::escaped;
use crate::control::api::{ComparedPlacement, Comparison, FromTo, Listed};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Number of a generation; without TO, it is compared with its parent
    from: u64,

    /// Number of a second generation
    to: Option<u64>,

    /// The most changes of each kind to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// `diff`.
pub(super) async fn diff(client: &mut Client, args: &Args) -> Result<Printed, Failure> {
    let to = args.to.map(|to| format!("&to={to}")).unwrap_or_default();
    let path = format!("/generations/{}/diff?limit={}{to}", args.from, args.limit);
    let json = client.get(path).await?;
    let comparison = Comparison::deserialize(&json).map_err(|error| {
        Failure::unreachable(format!("not an answer of a control plane: {error}"))
    })?;
    let from = match json["from"].as_u64() {
        Some(from) => from.to_string(),
        None => "nothing".to_owned(),
    };
    let mut text = format!("from {from} to {}\n", json["to"]);
    text.push_str(&self::text(&comparison));
    Ok(Printed { text, json })
}

/// One line for each change: `+` added, `-` removed, `~` changed.
pub(super) fn text(comparison: &Comparison) -> String {
    let Comparison {
        version,
        default_placement,
        keys,
        placements,
        ..
    } = comparison;
    let mut lines = Vec::new();
    for (what, change) in [
        ("version", version),
        ("default placement", default_placement),
    ] {
        if let Some(change) = change {
            lines.push(format!("~ {what}  {}", arrow(change)));
        }
    }
    let name = |each: &ComparedPlacement| each.name.clone();
    list(&mut lines, "+ placement", &placements.added, name);
    list(&mut lines, "- placement", &placements.removed, name);
    list(&mut lines, "~ placement", &placements.changed, |each| {
        let what = match &each.endpoint {
            Some(endpoint) => arrow(endpoint),
            None => each.fields.join(", "),
        };
        format!("{}  {what}", each.name)
    });
    let side = |placement: &Option<String>| placement.clone().unwrap_or_default();
    list(&mut lines, "+ key", &keys.added, |each| {
        format!("{}  {}", each.key, side(&each.to))
    });
    list(&mut lines, "- key", &keys.removed, |each| {
        format!("{}  {}", each.key, side(&each.from))
    });
    list(&mut lines, "~ key", &keys.moved, |each| {
        format!("{}  {} -> {}", each.key, side(&each.from), side(&each.to))
    });
    if lines.is_empty() {
        return "no change\n".to_owned();
    }
    let lines = lines.iter().map(|line| escaped(line) + "\n");
    lines.collect()
}

fn list<T>(lines: &mut Vec<String>, what: &str, all: &Listed<T>, line: impl Fn(&T) -> String) {
    let listed = all.items.iter();
    lines.extend(listed.map(|each| format!("{what}  {}", line(each))));
    let more = all.count.saturating_sub(all.items.len());
    if more > 0 {
        lines.push(format!("{what}  … and {more} more"));
    }
}

fn arrow(change: &FromTo) -> String {
    format!("{} -> {}", change.from, change.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::compile;

    fn table(version: &str, keys: &str, two: &str) -> crate::table::RoutingTable {
        let document = format!(
            r#"{{"version": "{version}", "routingTable": {{{keys}}}, "defaultPlacement": "one",
                "cellEndpoints": {{"one": "http://127.0.0.1:1"{two}}}}}"#
        );
        compile(document.as_bytes()).unwrap()
    }

    #[test]
    fn every_change_is_a_line() {
        let old = table(
            "1",
            r#""acme": "two", "b": "one", "c": "one""#,
            r#", "two": "http://127.0.0.1:2", "three": "http://127.0.0.1:3""#,
        );
        let new = table(
            "2",
            r#""acme": "one", "d": "two", "e": "one""#,
            r#", "two": "http://127.0.0.1:9", "four": "http://127.0.0.1:4""#,
        );
        let compared = Comparison::of(Some(&old), &new, 1).unwrap();
        assert_eq!(
            text(&compared),
            "~ version  1 -> 2\n\
             + placement  four\n\
             - placement  three\n\
             ~ placement  two  http://127.0.0.1:2 -> http://127.0.0.1:9\n\
             + key  d  two\n\
             + key  … and 1 more\n\
             - key  b  one\n\
             - key  … and 1 more\n\
             ~ key  acme  two -> one\n"
        );
        let compared = Comparison::of(Some(&old), &old, 1).unwrap();
        assert_eq!(text(&compared), "no change\n");
        let compared = Comparison::of(None, &old, 0).unwrap();
        assert_eq!(
            text(&compared),
            "+ placement  … and 3 more\n+ key  … and 3 more\n"
        );
    }
}
