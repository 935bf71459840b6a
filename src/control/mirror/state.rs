//! What was last in the routing file, remembered in a file of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::table::Delta;

/// The only format there is.
const FORMAT: u32 = 1;

/// A content of the routing file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// Of its bytes, in hexadecimal.
    pub sha256: String,
    /// A generation that says what it does, but for `edit`.
    pub generation: u64,
    /// Of that generation.
    pub digest: String,
    /// What makes what it says of that generation; none: they say the same. It is not
    /// none where the generation also has what was changed otherwise meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Delta>,
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    contents: Vec<Content>,
}

/// Where it is kept.
#[derive(Debug)]
pub(super) struct StateFile(pub PathBuf);

impl StateFile {
    /// What may be in the routing file without having been edited, the newest first:
    /// two while it is being replaced. Empty if that is not known.
    pub fn read(&self) -> Vec<Content> {
        match self.try_read() {
            Ok(contents) => contents,
            Err(why) => {
                log::warn!(
                    target: "cellgate::control",
                    "{}: {why}; whether the routing file was edited is found out from what is \
                     in it",
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

    /// Remembers `contents`, durably.
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
