//! One more generation.

use std::sync::Arc;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::keys::{BlobId, Kind};
use super::value::{self, BaseValue, CommitValue, Content};
use super::{Etcd, Known};
use crate::control::store::{AppendError, Commit, Record, StoreError};

impl Etcd {
    pub(super) async fn append(&self, commit: &Commit) -> Result<(), AppendError> {
        let head = self.revision_of(commit.record.parent).await?;
        let (content, blob) = self.content_of(commit).await.map_err(AppendError::Failed)?;
        let appended = self.transact(commit, content, blob.as_ref(), head).await;
        // In doubt, it is left to the upkeep, which knows more by then.
        if let (Some(blob), Err(AppendError::Conflict | AppendError::Failed(_))) =
            (&blob, &appended)
        {
            self.delete_blob(blob).await;
        }
        appended
    }

    /// The revision that made `generation` the newest one, which it is; 0 for none
    /// before the first.
    async fn revision_of(&self, generation: u64) -> Result<i64, AppendError> {
        if let Some(known) = self.known()
            && known.generation == generation
        {
            return Ok(known.revision);
        }
        let head = self.head().await.map_err(AppendError::Failed)?;
        match head {
            None if generation == 0 => Ok(0),
            Some((record, revision)) if record.generation == generation => Ok(revision),
            _ => Err(AppendError::Conflict),
        }
    }

    /// Writes down what does not fit the commit itself.
    async fn content_of(&self, commit: &Commit) -> Result<(Content, Option<BlobId>), StoreError> {
        let generation = commit.record.generation;
        let id = BlobId::new(generation, Kind::Commit);
        match &commit.delta {
            Some(delta) if value::is_small(delta) => Ok((Content::Delta((**delta).clone()), None)),
            Some(delta) => {
                let delta = Arc::clone(delta);
                let produce = move |out: &mut dyn std::io::Write| value::write_delta(&delta, out);
                let name = self.write_blob(&id, produce).await?;
                Ok((Content::DeltaBlob(name), Some(id)))
            }
            None => {
                let table = Arc::clone(&commit.table);
                let produce =
                    move |out: &mut dyn std::io::Write| value::write_table(&table, generation, out);
                let name = self.write_blob(&id, produce).await?;
                Ok((Content::TableBlob(name), Some(id)))
            }
        }
    }

    async fn transact(
        &self,
        commit: &Commit,
        content: Content,
        blob: Option<&BlobId>,
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
        // If it is asked again because of an answer that was lost, this tells what
        // became of it.
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
                self.learn(record.generation, header.revision());
            }
            return Ok(());
        }
        match self.found(answer.op_responses(), record)? {
            Some(revision) => {
                self.learn(record.generation, revision);
                Ok(())
            }
            None => Err(AppendError::Conflict),
        }
    }

    /// Whether what was found instead of the parent is `record` itself, or follows on
    /// it: the revision that stored it.
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

    /// That nobody has deleted the blob meanwhile, taking it for an old one.
    pub(super) fn is_whole(&self, blob: &BlobId) -> Compare {
        Compare::create_revision(self.keys.piece(&blob.text, 0), CompareOp::Greater, 0)
    }

    pub(super) fn known(&self) -> Option<Known> {
        *self.lock_known()
    }

    /// Remembers the newest generation.
    pub(super) fn learn(&self, generation: u64, revision: i64) {
        let mut known = self.lock_known();
        if known.is_none_or(|known| known.revision < revision) {
            *known = Some(Known {
                generation,
                revision,
            });
        }
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
