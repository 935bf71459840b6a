//! An edit of the file becomes a generation.

use super::*;

impl RoutingFile {
    /// Makes an edit a generation.
    pub(super) async fn take(&self, memory: &mut Memory, snapshot: Snapshot) -> Seen {
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
                let known = Known {
                    sha256,
                    table,
                    generation,
                };
                self.remember(&[known.content()]);
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
                let text = format!("the edit does not go together with generation {with}");
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

    /// Has the truth say what `table` says that `known` did not. Gives the generation
    /// that the table is in.
    async fn commit(
        &self,
        known: Option<&Known>,
        table: &Arc<RoutingTable>,
    ) -> Result<u64, CommitError> {
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
                        "{}: placements or defaults were edited, and changed otherwise between \
                         the generations {} and {} as well: those of the file are taken",
                        self.file.path.display(),
                        known.generation,
                        newest.record.generation
                    );
                }
                (Edit::Delta(delta), "edit")
            }
            (None, Some(newest)) => match self.find(&newest, table).await {
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
        Ok(committed.generation().record.generation)
    }

    /// The generation, from `newest` on back, that says what `table` does. Such a file
    /// is old and not edited.
    async fn find(&self, newest: &Generation, table: &RoutingTable) -> Option<u64> {
        if newest.record.digest == table.digest() {
            return Some(newest.record.generation);
        }
        let records = self.truth.store().records(None, LOOK_BACK).await.ok()?;
        let same = |record: &&crate::control::store::Record| record.digest == table.digest();
        let found = records.iter().find(same)?.generation;
        log::warn!(
            target: "cellgate::control",
            "{}: it is not known when it was written; it says what generation {found} does, and \
             is taken for old",
            self.file.path.display()
        );
        Some(found)
    }
}
