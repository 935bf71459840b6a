//! Publishing generations: those committed here, and those that other control planes add
//! to the store.

use std::sync::Arc;

use super::Truth;
use super::truth::lock;
use crate::control::store::{Generation, News, Record, Step, StoreError};
use crate::protocol::Mark;
use crate::table::{Delta, RoutingTable};

impl Truth {
    /// Publishes what other control planes have added to the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _writer = self.writer.lock().await;
        self.catch_up().await
    }

    /// Follows the store for as long as the process lives.
    pub async fn follow(&self) {
        let mut failing = false;
        loop {
            let newest = self.newest().map_or(0, |newest| newest.record.generation);
            self.store.changed(newest).await;
            match self.refresh().await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        log::info!(target: "cellgate::control", "the store can be read again");
                    }
                }
                Err(error) => {
                    self.tally.count_unreadable();
                    if !std::mem::replace(&mut failing, true) {
                        log::error!(target: "cellgate::control", "store: {error}");
                    }
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Publishes the newest generation of the store after a conflict, where it is not
    /// `mark`. The caller holds the writer's lock.
    pub(super) async fn overtaken(&self, mark: Option<Mark>) -> Result<(), StoreError> {
        self.catch_up().await?;
        let ours = self.newest().map(|newest| newest.record.mark());
        if ours != mark {
            return Ok(());
        }
        // The same number with another content: an earlier state of the store was restored,
        // and generations were added to it.
        let Some(newest) = self.store.newest().await? else {
            return Ok(());
        };
        let there = newest.record.mark();
        if ours.is_some_and(|ours| ours != there && ours.generation == there.generation) {
            log::error!(
                target: "cellgate::control",
                generation = there.generation;
                "the store has another content for this generation, made by {}, which replaces it: \
                 was a backup restored?",
                newest.record.author.who
            );
            self.publish(newest.record, None, newest.table);
        }
        Ok(())
    }

    /// Publishes what the store has after the newest generation here. The caller holds
    /// the writer's lock.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let current = self.newest();
        let after = current.as_ref().map_or(0, |now| now.record.generation);
        match self.store.since(after).await? {
            News::Nothing => Ok(()),
            News::Steps(steps) => match self.replay(steps) {
                true => Ok(()),
                false => self.reload().await,
            },
            News::Whole(newest) => {
                self.replace(newest);
                Ok(())
            }
        }
    }

    /// Publishes `steps` in turn; false: one of them does not lead to its digest.
    fn replay(&self, steps: Vec<(Record, Arc<Delta>)>) -> bool {
        for (record, delta) in steps {
            let Some(current) = self.newest() else {
                return false;
            };
            if record.generation <= current.record.generation {
                continue;
            }
            if record.parent != current.record.generation {
                return false;
            }
            let table = match current.table.apply(&delta) {
                Ok(table) if table.digest() == record.digest => Arc::new(table),
                _ => return false,
            };
            self.advance(record, Some(delta), table);
        }
        true
    }

    async fn reload(&self) -> Result<(), StoreError> {
        if let Some(newest) = self.store.newest().await? {
            self.replace(newest);
        }
        Ok(())
    }

    fn replace(&self, newest: Generation) {
        self.advance(newest.record, None, newest.table);
    }

    /// Makes this the newest generation, unless a later one is. The caller holds the
    /// writer's lock.
    pub(super) fn advance(
        &self,
        record: Record,
        delta: Option<Arc<Delta>>,
        table: Arc<RoutingTable>,
    ) -> Arc<Generation> {
        let number = record.generation;
        match self.newest() {
            Some(current) if current.record.generation >= number => {
                Arc::new(Generation { record, table })
            }
            _ => self.publish(record, delta, table),
        }
    }

    fn publish(
        &self,
        record: Record,
        delta: Option<Arc<Delta>>,
        table: Arc<RoutingTable>,
    ) -> Arc<Generation> {
        let to = record.mark();
        let next = Arc::new(Generation { record, table });
        let mut ring = lock(&self.ring);
        let from = self.newest().map(|current| current.record.mark());
        let forgotten = match (from, delta) {
            (Some(from), Some(delta)) => ring.push(Step { from, to, delta }),
            _ => ring.clear(),
        };
        let before = self.newest.send_replace(Some(Arc::clone(&next)));
        drop(ring);
        // Freeing a large table takes a while. Not under the lock, which `since` takes.
        drop((before, forgotten));
        let author = &next.record.author;
        log::info!(
            target: "cellgate::control",
            generation = to.generation,
            version = next.record.version.as_str(),
            digest:% = to.digest,
            keys = next.record.keys,
            set = next.record.set,
            removed = next.record.removed,
            who = author.who.as_str(),
            from = author.from.as_str(),
            what = author.what.as_str();
            "new generation"
        );
        next
    }
}
