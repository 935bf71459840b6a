//! The file that remembers across restarts what was last in the routing file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::table::Delta;

/// The format of the file; the only one so far.
const FORMAT: u32 = 1;

/// A content of the routing file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The generation whose content it has, except for `edit`.
    pub generation: u64,
    /// The digest of that generation.
    pub digest: String,
    /// The difference from that generation to the content of the file; none: they are the
    /// same. It is set when the generation includes changes that were made by other means
    /// while the file was edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Delta>,
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    contents: Vec<Content>,
}

/// The path of the file.
#[derive(Debug)]
pub(super) struct StateFile(pub PathBuf);

impl StateFile {
    /// What the routing file contains if nobody edited it, the newest first: two contents
    /// while it is being replaced. Empty if unknown.
    pub fn read(&self) -> Vec<Content> {
        match self.try_read() {
            Ok(contents) => contents,
            Err(why) => {
                log::warn!(
                    target: "cellgate::control",
                    "{}: {why}; the routing file is compared with the history to find out whether \
                     it was edited",
                    self.0.display()
                );
                Vec::new()
            }
        }
    }

    fn try_read(&self) -> Result<Vec<Content>, String> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.to_string()),
        };
        let state: State = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        match state.format {
            FORMAT => Ok(state.contents),
            other => Err(format!("it has the format {other} (known: {FORMAT})")),
        }
    }

    /// Writes `contents` durably.
    pub fn write(&self, contents: &[Content]) -> io::Result<()> {
        let state = State {
            format: FORMAT,
            contents: contents.to_vec(),
        };
        let mut text = serde_json::to_vec(&state)?;
        text.push(b'\n');
        let new = self.0.with_extension("state.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        sync_directory_of(&self.0)
    }
}

/// Makes a renaming in the directory of `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}
