//! Writing the newest generation to the file.

use super::*;

impl RoutingFile {
    /// Writes the newest generation to the file.
    pub(super) async fn write(&self, memory: &mut Memory) {
        memory.due = None;
        let Some(newest) = self.truth.newest() else {
            return;
        };
        let begun = Instant::now();
        match self.try_write(memory, &newest).await {
            Ok(()) => {
                memory.not_before = Some(Instant::now() + begun.elapsed() * (SHARE - 1));
                self.clear_error(&["write"]);
            }
            Err(why) => {
                memory.not_before = Some(Instant::now() + POLL);
                self.set_error("write", vec![Problem::without_place(why)]);
            }
        }
    }

    async fn try_write(&self, memory: &mut Memory, newest: &Generation) -> Result<(), String> {
        let max_bytes = self.file.max_bytes;
        let table = Arc::clone(&newest.table);
        let written = spawn_blocking(move || {
            let mut text = Vec::new();
            document::write(&table, &mut text).map(|()| (Sha256::of(&text), text))
        });
        let (sha256, text) = written
            .await
            .map_err(|error| broken(&error))?
            .map_err(|error| error.to_string())?;
        if text.len() as u64 > max_bytes {
            return Err(format!(
                "the document has {} bytes, more than document_bytes allows ({max_bytes})",
                text.len()
            ));
        }
        let next = Known {
            sha256,
            table: Arc::clone(&newest.table),
            content: Content {
                sha256: sha256.to_string(),
                generation: newest.record.generation,
                digest: newest.record.digest.to_string(),
                edit: None,
            },
        };
        let known = memory.known.as_ref().map(|known| known.content.clone());
        let known: Vec<Content> = known.into_iter().collect();
        // After a crash, either of them may be in the file.
        let both = [vec![next.content.clone()], known.clone()].concat();
        self.remember(&both);
        let path = self.file.path.clone();
        let there = match memory.seen {
            Seen::Missing => None,
            Seen::Known | Seen::Unsure => memory.known.as_ref().map(|known| known.sha256),
        };
        let swapped = spawn_blocking(move || {
            Prepared::write(&path, &text, max_bytes).and_then(|new| new.swap(there))
        });
        memory.stamp = None;
        let swapped = match swapped.await {
            Ok(swapped) => swapped.map_err(|error| error.to_string()),
            // Either may be in the file; both are remembered.
            Err(error) => return Err(broken(&error)),
        };
        match swapped {
            Ok(Swapped::Done) => {
                self.remember(std::slice::from_ref(&next.content));
                memory.known = Some(next);
                memory.seen = Seen::Known;
                Ok(())
            }
            // It is in the file; both stay remembered, as a crash may bring the other back.
            Ok(Swapped::Unsure(why)) => {
                memory.known = Some(next);
                memory.seen = Seen::Known;
                Err(format!("it is written, but may be lost in a crash: {why}"))
            }
            // The next check imports it, as an edit of the known content: the new content was
            // never in the file.
            Ok(Swapped::Edited) => {
                self.remember(&known);
                memory.seen = Seen::Unsure;
                Ok(())
            }
            Err(why) => {
                self.remember(&known);
                Err(why)
            }
        }
    }

    /// Remembers `contents` across restarts. If that fails, the next start compares the file
    /// with the history instead.
    pub(super) fn remember(&self, contents: &[Content]) {
        if let Err(error) = self.state.write(contents) {
            log::warn!(
                target: "cellgate::control",
                "{}: {error}",
                self.state.0.display()
            );
        }
    }
}
