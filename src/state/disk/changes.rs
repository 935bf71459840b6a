//! The changes that followed a table, as a file beside it: lines, each the XXH3-64
//! of its JSON in 16 hexadecimal digits, a space, and the JSON.
//!
//! The first line is the [`Header`]: the format's number as `cellgate_changes`, and
//! which table the changes are of. Then comes one [`Change`] for each generation that
//! was kept. A line that is torn or damaged ends what is known of the file: no change
//! can be made without the one before.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::record::{Stored, parse_sha256};
use crate::state::generation::{Generation, Source};
use crate::table::{Delta, Digest, RoutingTable};
use crate::telemetry::time::rfc3339_millis;

/// The only format there is.
const FORMAT: u32 = 1;

/// Hexadecimal digits of a line's sum.
const SUM: usize = 16;

/// The table that the changes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub number: u64,
    pub digest: Digest,
}

/// What the first line says.
#[derive(Serialize, Deserialize)]
struct Header {
    cellgate_changes: u32,
    generation: u64,
    digest: Digest,
}

/// One generation: how it is made of the one before it in the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub generation: u64,
    /// The one before.
    from: u64,
    /// Of the content that comes of it.
    pub digest: Digest,
    source: Source,
    /// As the header of a whole table has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control_generation: Option<u64>,
    applied_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    set: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    remove: Vec<String>,
}

/// What is known of a file.
#[derive(Debug)]
pub(super) struct Changes {
    pub base: Base,
    /// In the order of their numbers.
    pub changes: Vec<Change>,
    /// Why what comes after them is not read; none: nothing does.
    pub broken: Option<String>,
}

/// The first line of the changes of `base`.
pub(super) fn header(base: Base) -> Vec<u8> {
    line(&Header {
        cellgate_changes: FORMAT,
        generation: base.number,
        digest: base.digest,
    })
}

/// The line that makes `generation` of the generation `from`, by `delta`.
pub(super) fn change(generation: &Generation, from: u64, delta: Delta) -> Vec<u8> {
    line(&Change {
        generation: generation.number,
        from,
        digest: generation.table.digest(),
        source: generation.source,
        sha256: generation.sha256.map(|sha256| sha256.to_string()),
        control_generation: generation.control_generation,
        applied_at: rfc3339_millis(generation.applied_at),
        head: delta.head,
        set: delta.set,
        remove: delta.remove,
    })
}

fn line(of: &impl Serialize) -> Vec<u8> {
    // Texts and numbers can always be written.
    let json = serde_json::to_vec(of).unwrap_or_default();
    let mut line = format!("{:0SUM$x} ", xxh3_64(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    line
}

/// Reads as much as is whole.
///
/// # Errors
///
/// Why nothing is known of it.
pub(super) fn read(bytes: &[u8]) -> Result<Changes, String> {
    let mut lines = Lines(bytes);
    let header = lines.next().ok_or("it has no header")?;
    let header: Header = json(header?)?;
    if header.cellgate_changes != FORMAT {
        return Err(format!(
            "it has the format {} (known: {FORMAT})",
            header.cellgate_changes
        ));
    }
    let base = Base {
        number: header.generation,
        digest: header.digest,
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut broken = None;
    for line in lines {
        let last = changes.last().map_or(base.number, |last| last.generation);
        match line.and_then(json::<Change>) {
            Ok(change) if change.from == last && change.generation > last => changes.push(change),
            Ok(change) => {
                broken = Some(format!(
                    "its next line makes generation {} of {}",
                    change.generation, change.from
                ));
                break;
            }
            Err(why) => {
                broken = Some(why);
                break;
            }
        }
    }
    Ok(Changes {
        base,
        changes,
        broken,
    })
}

fn json<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("a line cannot be read: {error}"))
}

/// The JSON of each line, or why there is none.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((line, rest)) =
            memchr::memchr(b'\n', self.0).and_then(|end| self.0.split_at_checked(end))
        else {
            return Some(Err("the end of its last line is missing".to_owned()));
        };
        self.0 = rest.get(1..).unwrap_or_default();
        let parts = line.split_at_checked(SUM);
        let whole = parts.and_then(|(sum, json)| {
            let json = json.strip_prefix(b" ")?;
            let expected = format!("{:0SUM$x}", xxh3_64(json));
            (sum == expected.as_bytes()).then_some(json)
        });
        Some(
            whole.ok_or_else(|| "a line is damaged: its sum is not that of its content".to_owned()),
        )
    }
}

impl Change {
    /// What becomes of `table`.
    ///
    /// # Errors
    ///
    /// Why it does not lead where it should.
    pub fn apply(&self, table: &RoutingTable) -> Result<RoutingTable, String> {
        let delta = Delta {
            head: self.head.clone(),
            set: self.set.clone(),
            remove: self.remove.clone(),
        };
        let next = table.apply(&delta).map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            format!("it is not valid: {}", first.unwrap_or_default())
        })?;
        match next.digest() {
            digest if digest == self.digest => Ok(next),
            digest => Err(format!(
                "it leads to the digest {digest}, not {}",
                self.digest
            )),
        }
    }

    /// The generation, which has this table.
    ///
    /// # Errors
    ///
    /// What is wrong with what there is to know of it.
    pub fn stored(&self, table: RoutingTable) -> Result<Stored, String> {
        let sha256 = self.sha256.as_deref().map(parse_sha256);
        if sha256 == Some(None) {
            return Err("it has a sha256 that is none".to_owned());
        }
        Ok(Stored {
            number: self.generation,
            sha256: sha256.flatten(),
            source: self.source,
            control_generation: self.control_generation,
            applied_at: time(&self.applied_at)?,
            table,
        })
    }
}

fn time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text).map_err(|_| "it has a time that is none".to_owned())
}
