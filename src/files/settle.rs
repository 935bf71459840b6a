//! Reads a file until two readings in a row are the same, so that a half-written file is not
//! taken for its content.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::notice::Notice;
use super::read::{ReadError, Snapshot, Stamp, read};
use crate::background;

/// The pause between two readings.
const SETTLE: Duration = Duration::from_millis(50);

/// The pause after a notification: more usually follow at once.
const DEBOUNCE: Duration = Duration::from_millis(2);

/// A file of more bytes than this is not read while its stamp is changing.
const LARGE: u64 = 1 << 20;

/// The longest time that is spent waiting for a file to settle.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// How long a file must stay the same if it looks cut off or is still open for writing: slow
/// writers pause for longer than [`SETTLE`].
const UNFINISHED: Duration = Duration::from_secs(2);

/// The file to read.
pub(crate) struct Target {
    pub path: PathBuf,
    /// A larger file is refused.
    pub max_bytes: u64,
}

impl Target {
    /// Reads until two readings in a row are the same.
    pub async fn settle(
        &self,
        first: Option<Snapshot>,
        notice: &Notice,
    ) -> Result<Snapshot, ReadError> {
        let start = Instant::now();
        let mut steady_since = start;
        let mut pause = SETTLE;
        let mut seen = first.as_ref().map(|first| first.stamp);
        let mut last = first
            .as_ref()
            .map(|first| (first.stamp.identity(), first.sha256));
        // Its content is not kept: only one is in memory at a time.
        forget(first).await;
        while start.elapsed() < SETTLE_LIMIT {
            tokio::select! {
                () = sleep(pause) => {}
                // Right after a write: a file that is replaced ten times a second stays the
                // same just long enough.
                () = notice.changed() => sleep(DEBOUNCE).await,
            }
            let stamp = self.stamp().await?;
            let moved = seen.replace(stamp) != Some(stamp);
            if moved && stamp.size() > LARGE {
                pause = SETTLE;
                continue;
            }
            let next = match self.read().await {
                Err(ReadError::Moving) => continue,
                next => next?,
            };
            // Times are not compared: a `touch` does not count as a change.
            let now = (next.stamp.identity(), next.sha256);
            if last.replace(now) != Some(now) {
                steady_since = Instant::now();
                pause = SETTLE;
                forget(Some(next)).await;
                continue;
            }
            let steady = steady_since.elapsed();
            let doubtful = notice.writing() || looks_unfinished(&next.content);
            if steady >= if doubtful { UNFINISHED } else { SETTLE } {
                return Ok(next);
            }
            if stamp.size() > LARGE {
                pause = (pause * 2).min(UNFINISHED / 4);
            }
            forget(Some(next)).await;
        }
        Err(ReadError::Moving)
    }

    /// The stamp of the file now.
    pub async fn stamp(&self) -> Result<Stamp, ReadError> {
        let path = self.path.clone();
        spawn_blocking(move || Stamp::of(&path))
            .await
            .map_err(broken)?
            .map_err(ReadError::from)
    }

    pub async fn read(&self) -> Result<Snapshot, ReadError> {
        let (path, max_bytes) = (self.path.clone(), self.max_bytes);
        background::run(move || read(&path, max_bytes))
            .await
            .map_err(broken)?
    }
}

/// Drops what was read. Large content is dropped in the background, which gives its memory
/// back before the next reading.
pub(crate) async fn forget(read: Option<Snapshot>) {
    if read.as_ref().is_some_and(|read| read.stamp.size() > LARGE) {
        // Dropping does not panic.
        let _ = background::run(move || drop(read)).await;
    }
}

/// The content of a file that does not change while it is read. Blocks: for the start, when
/// there is no runtime yet.
///
/// # Errors
///
/// It cannot be read, or keeps changing.
pub(crate) fn read_now(path: &Path, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
    let start = std::time::Instant::now();
    loop {
        match read(path, max_bytes) {
            Ok(snapshot) => return Ok(snapshot.content),
            Err(ReadError::Moving) if start.elapsed() < UNFINISHED => std::thread::sleep(SETTLE),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the end of a routing document is missing: it is a JSON object, so it ends with a
/// brace. A document that does may still be cut off.
fn looks_unfinished(content: &[u8]) -> bool {
    content.trim_ascii_end().last() != Some(&b'}')
}

fn broken(error: JoinError) -> ReadError {
    ReadError::Unreadable(format!("reading failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_tells_the_unfinished() {
        for unfinished in ["", " \n", "{", "{\"a\": 1", "{\"a\": {},", "\0"] {
            assert!(looks_unfinished(unfinished.as_bytes()), "{unfinished:?}");
        }
        for finished in ["{}", "{\"a\": {}}", "{}\n", "{} \r\n\t"] {
            assert!(!looks_unfinished(finished.as_bytes()), "{finished:?}");
        }
    }
}
