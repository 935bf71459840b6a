//! Adding a generation.

use std::sync::Arc;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::blob::Written;
use super::keys::{BlobId, Kind};
use super::value::{self, BaseValue, CommitValue, Content};
use super::{Etcd, Known};
use crate::control::store::{AppendError, Commit, Record, StoreError};
use crate::protocol::Mark;

impl Etcd {
    pub(super) async fn append(&self, commit: &Commit) -> Result<(), AppendError> {
        let head = self.revision_of(commit.parent).await?;
        let (content, blob) = self.content_of(commit).await.map_err(AppendError::Failed)?;
        let appended = self.transact(commit, content, blob.as_ref(), head).await;
        // If the outcome is unknown, the upkeep deletes the blob if nothing names it.
        if let (Some(blob), Err(AppendError::Conflict | AppendError::Failed(_))) =
            (&blob, &appended)
        {
            self.delete_blob(&blob.name.id).await;
        }
        if let Err(AppendError::Conflict) = appended {
            // An earlier state of etcd may have been restored.
            self.forget(head);
        }
        appended
    }

    /// The revision that made `parent` the newest generation; 0 without a parent.
    async fn revision_of(&self, parent: Option<Mark>) -> Result<i64, AppendError> {
        if let (Some(known), Some(parent)) = (self.known(), parent)
            && known.mark == parent
        {
            return Ok(known.revision);
        }
        let head = self.head().await.map_err(AppendError::Failed)?;
        match (head, parent) {
            (None, None) => Ok(0),
            (Some((record, revision)), Some(parent)) if record.mark() == parent => Ok(revision),
            _ => Err(AppendError::Conflict),
        }
    }

    /// The content of a commit; writes a blob if it does not fit into the commit.
    async fn content_of(&self, commit: &Commit) -> Result<(Content, Option<Written>), StoreError> {
        let generation = commit.record.generation;
        let id = BlobId::new(generation, Kind::Commit);
        match &commit.delta {
            Some(delta) if value::is_small(delta) => Ok((Content::Delta((**delta).clone()), None)),
            Some(delta) => {
                let delta = Arc::clone(delta);
                let produce = move |out: &mut dyn std::io::Write| value::write_delta(&delta, out);
                let blob = self.write_blob(&id, produce).await?;
                Ok((Content::DeltaBlob(blob.name.clone()), Some(blob)))
            }
            None => {
                let table = Arc::clone(&commit.table);
                let produce =
                    move |out: &mut dyn std::io::Write| value::write_table(&table, generation, out);
                let blob = self.write_blob(&id, produce).await?;
                Ok((Content::TableBlob(blob.name.clone()), Some(blob)))
            }
        }
    }

    async fn transact(
        &self,
        commit: &Commit,
        content: Content,
        blob: Option<&Written>,
        head: i64,
    ) -> Result<(), AppendError> {
        let record = &commit.record;
        let (head_key, commit_key) = (
            self.keys.head(),
            self.keys.of(Kind::Commit, record.generation),
        );
        let mut compares = vec![Compare::mod_revision(
            head_key.clone(),
            CompareOp::Equal,
            head,
        )];
        if let Some(blob) = blob {
            compares.push(self.is_whole(blob));
        }
        let mut puts = Vec::new();
        let json = value::write(record).map_err(AppendError::Failed)?;
        puts.push(TxnOp::put(head_key.clone(), json, None));
        if let Content::TableBlob(name) = &content {
            let base = BaseValue::new(record.clone(), name.clone());
            let base = value::write(&base).map_err(AppendError::Failed)?;
            let key = self.keys.of(Kind::Base, record.generation);
            puts.push(TxnOp::put(key, base, None));
        }
        let value = CommitValue::new(record.clone(), content);
        let value = value::write(&value).map_err(AppendError::Failed)?;
        puts.push(TxnOp::put(commit_key.clone(), value, None));
        // If the transaction is sent again because its answer was lost, these show whether it
        // was made.
        let gets = vec![
            TxnOp::get(head_key, None),
            TxnOp::get(commit_key.clone(), None),
        ];
        let txn = Txn::new().when(compares).and_then(puts).or_else(gets);
        let answer = self.members.ask(|client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        });
        let answer = answer.await.map_err(|trouble| match trouble.doubtful {
            true => AppendError::Unknown(trouble.into()),
            false => AppendError::Failed(trouble.into()),
        })?;
        if answer.succeeded() {
            if let Some(header) = answer.header() {
                self.learn(record.mark(), header.revision());
            }
            return Ok(());
        }
        match self.found(answer.op_responses(), record)? {
            Some(revision) => {
                self.learn(record.mark(), revision);
                Ok(())
            }
            None => Err(AppendError::Conflict),
        }
    }

    /// The revision that stored `record`, if the commit found is that of `record` itself: the
    /// transaction was made by an earlier attempt.
    fn found(
        &self,
        responses: Vec<TxnOpResponse>,
        record: &Record,
    ) -> Result<Option<i64>, AppendError> {
        for response in responses {
            let TxnOpResponse::Get(mut response) = response else {
                continue;
            };
            for found in response.take_kvs() {
                if self.keys.generation(Kind::Commit, found.key()) != Some(record.generation) {
                    continue;
                }
                let value: CommitValue =
                    value::read(found.key(), found.value()).map_err(AppendError::Unknown)?;
                if value.record.id == record.id {
                    return Ok(Some(found.mod_revision()));
                }
            }
        }
        Ok(None)
    }

    /// Compares that the blob was not deleted as an old one meanwhile, nor its first piece
    /// written again by a delayed request after that.
    pub(super) fn is_whole(&self, blob: &Written) -> Compare {
        let first = self.keys.piece(&blob.name.id, 0);
        Compare::create_revision(first, CompareOp::Equal, blob.made)
    }

    pub(super) fn known(&self) -> Option<Known> {
        *self.lock_known()
    }

    /// Remembers the newest generation.
    pub(super) fn learn(&self, mark: Mark, revision: i64) {
        let mut known = self.lock_known();
        if known.is_none_or(|known| known.revision < revision) {
            *known = Some(Known { mark, revision });
        }
    }

    /// Forgets that this revision made the newest generation.
    fn forget(&self, revision: i64) {
        self.lock_known()
            .take_if(|known| known.revision == revision);
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
