//! `cellgate-bench report`: tables and plots of what was measured.

mod data;
mod goals;
mod plots;
mod svg;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use self::data::Data;
use crate::record::read;

/// Tables and plots of what was measured
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Files of records
    #[arg(default_value = "target/bench/results.jsonl")]
    files: Vec<PathBuf>,

    /// The build that the goals are for
    #[arg(long, default_value = "cellgate")]
    ours: String,

    /// A Markdown file whose tables are replaced, between <!-- bench:NAME --> and <!-- /bench -->;
    /// without it, all tables go to standard output
    #[arg(long)]
    docs: Option<PathBuf>,

    /// Where the plots go
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// Reads, and writes what was asked for.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut records = Vec::new();
    for file in &args.files {
        records.extend(read(file)?);
    }
    if records.is_empty() {
        bail!("nothing was measured in {:?}", args.files);
    }
    let data = Data { records };
    let plots = plots::all(&data);
    let tables = [
        ("machine", tables::machine(&data)),
        ("goals", goals::goals(&data, &args.ours)),
        ("requests", tables::all_requests(&data)),
        ("connections", tables::connections(&data)),
        ("memory", tables::memory(&data)),
        ("change", tables::change(&data)),
        ("churn", tables::churn(&data)),
        ("idle", tables::idle(&data)),
        ("log", tables::log(&data)),
        ("instructions", tables::instructions(&data)),
        ("plots", shown(args.plots.as_deref(), &plots)),
    ];
    match &args.docs {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            fs::write(path, replace(&text, &tables)?)?;
        }
        None => tables
            .iter()
            .for_each(|(name, table)| println!("### {name}\n\n{table}")),
    }
    if let Some(dir) = &args.plots {
        fs::create_dir_all(dir)?;
        for (name, plot) in plots {
            fs::write(dir.join(name), plot)?;
        }
    }
    Ok(())
}

/// The plots as images, for a page beside whose folder they are.
fn shown(dir: Option<&Path>, plots: &[(&str, String)]) -> String {
    let Some(folder) = dir.and_then(Path::file_name) else {
        return String::new();
    };
    let folder = folder.to_string_lossy();
    let image = |(name, _): &(&str, String)| format!("![{name}]({folder}/{name})\n");
    plots.iter().map(image).collect()
}

/// The text with new tables between its marks.
fn replace(text: &str, tables: &[(&str, String)]) -> anyhow::Result<String> {
    const END: &str = "<!-- /bench -->";
    let mut text = text.to_owned();
    for (name, table) in tables {
        let begin = format!("<!-- bench:{name} -->");
        let Some(from) = text.find(&begin) else {
            continue;
        };
        let from = from + begin.len();
        let Some(length) = text[from..].find(END) else {
            bail!("{begin} has no {END} behind it");
        };
        text.replace_range(from..from + length, &format!("\n{}\n", table.trim_end()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_put_between_their_marks() {
        let text =
            "a\n<!-- bench:one -->\nold\n<!-- /bench -->\nb <!-- bench:two --><!-- /bench -->";
        let tables = [
            ("one", "1\n".to_owned()),
            ("two", "2".to_owned()),
            ("none", String::new()),
        ];
        let new =
            "a\n<!-- bench:one -->\n1\n<!-- /bench -->\nb <!-- bench:two -->\n2\n<!-- /bench -->";
        assert_eq!(replace(text, &tables).expect("marks"), new);
        assert_eq!(replace(new, &tables).expect("marks"), new);
        assert!(replace("<!-- bench:one -->", &tables).is_err());
    }
}
