//! Making an edit of the file a generation.

use super::*;

impl RoutingFile {
    /// Makes an edit a generation.
    pub(super) async fn import(&self, memory: &mut Memory, snapshot: Snapshot) -> Seen {
        let sha256 = snapshot.sha256;
        let table = match compile(snapshot.content).await {
            Ok(Ok(table)) => Arc::new(table),
            Ok(Err(problems)) => {
                memory.rejected = Some(Rejected { sha256, with: None });
                self.set_error("take over", problems);
                return Seen::Unsure;
            }
            Err(error) => {
                self.set_error("take over", vec![Problem::without_place(broken(&error))]);
                return Seen::Unsure;
            }
        };
        match self.commit(memory.known.as_ref(), &table).await {
            Ok(generation) => {
                let known = match content_of(sha256, &table, generation).await {
                    Ok(content) => Known {
                        sha256,
                        table,
                        content,
                    },
                    Err(error) => {
                        let problem = Problem::without_place(broken(&error));
                        self.set_error("take over", vec![problem]);
                        return Seen::Unsure;
                    }
                };
                self.remember(std::slice::from_ref(&known.content));
                memory.known = Some(known);
                memory.rejected = None;
                Seen::Known
            }
            Err(CommitError::Invalid(problems)) => {
                let newest = self.truth.newest();
                let with = newest.map_or(0, |newest| newest.record.generation);
                memory.rejected = Some(Rejected {
                    sha256,
                    with: Some(with),
                });
                let text = format!("the edit conflicts with generation {with}");
                let problems = [vec![Problem::without_place(text)], problems].concat();
                self.set_error("take over", problems);
                Seen::Unsure
            }
            Err(error) => {
                self.set_error("take over", vec![Problem::without_place(error.to_string())]);
                Seen::Unsure
            }
        }
    }

    /// Commits the difference between `known` and `table`. Returns the generation that
    /// includes it.
    async fn commit(
        &self,
        known: Option<&Known>,
        table: &Arc<RoutingTable>,
    ) -> Result<Arc<Generation>, CommitError> {
        let newest = self.truth.newest();
        let (edit, what) = match (known, newest) {
            (_, None) => (Edit::Table(Arc::clone(table)), "load"),
            (Some(known), Some(newest)) => {
                let (base, table) = (Arc::clone(&known.table), Arc::clone(table));
                let same_head = base.head_json() == newest.table.head_json();
                let delta = spawn_blocking(move || base.delta_to(&table)).await;
                let delta = delta.map_err(|error| {
                    CommitError::Store(crate::control::store::StoreError(broken(&error)))
                })?;
                if delta.head.is_some() && !same_head {
                    log::warn!(
                        target: "cellgate::control",
                        "{}: placements or defaults were edited in the file, and also changed by \
                         other means between generations {} and {}: those of the file are used",
                        self.file.path.display(),
                        known.content.generation,
                        newest.record.generation
                    );
                }
                (Edit::Delta(delta), "edit")
            }
            (None, Some(newest)) => match self.find(newest, table).await {
                Some(generation) => return Ok(generation),
                None => (Edit::Table(Arc::clone(table)), "edit"),
            },
        };
        let author = Author {
            who: "file".to_owned(),
            from: self.file.path.display().to_string(),
            what: what.to_owned(),
        };
        let committed = self.truth.commit(edit, &Expected::Anything, author).await?;
        Ok(Arc::clone(committed.generation()))
    }

    /// The latest generation, `newest` or an earlier one, with the content of `table`. Such
    /// a file is outdated, not edited.
    async fn find(
        &self,
        newest: Arc<Generation>,
        table: &Arc<RoutingTable>,
    ) -> Option<Arc<Generation>> {
        if newest.record.digest == table.digest() {
            return Some(newest);
        }
        let records = self.truth.store().records(None, LOOK_BACK).await.ok()?;
        let same = |record: &&crate::control::store::Record| record.digest == table.digest();
        let record = records.iter().find(same)?.clone();
        log::warn!(
            target: "cellgate::control",
            "{}: nothing is remembered of this file; it has the content of generation {} and is \
             treated as outdated",
            self.file.path.display(),
            record.generation
        );
        let table = Arc::clone(table);
        Some(Arc::new(Generation { record, table }))
    }
}

/// The content of a file with `table`, which was merged into `generation`.
async fn content_of(
    sha256: Sha256,
    table: &Arc<RoutingTable>,
    generation: Arc<Generation>,
) -> Result<Content, JoinError> {
    let (number, digest) = (generation.record.generation, generation.record.digest);
    let edit = match table.digest() == digest {
        true => None,
        false => {
            let table = Arc::clone(table);
            let edit = spawn_blocking(move || generation.table.delta_to(&table));
            Some(edit.await?)
        }
    };
    Ok(Content {
        sha256: sha256.to_string(),
        generation: number,
        digest: digest.to_string(),
        edit,
    })
}
