//! Writing bases, so that a start does not read the whole history, and deleting old
//! generations.
//!
//! A process that commits does this in the background, one process at a time: it holds a
//! key with a lease, which it keeps alive. Each step is one transaction that compares that
//! the key is still its own and that its preconditions still hold. So a process that was
//! suspended for any time does no harm when it continues.
//!
//! A base is written when there are `history` commits since the last one, or when they
//! outweigh it. Generations below the last base that the history needs are deleted, so that
//! up to about twice `history` generations are kept.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::sleep;

use super::Etcd;
use super::blob::Written;
use super::keys::{BlobId, Kind};
use super::value::{self, BaseValue, CommitValue};
use crate::control::store::{Commit, Record, StoreError, json_bytes};
use crate::table::{Delta, RoutingTable};

/// How many commits there are after the last base at most, for any `history`.
const MOST_STEPS: usize = 1_000;

/// Commits with fewer bytes than this do not outweigh a base.
const LEAST_BYTES: u64 = 4 << 20;

/// How long the work stays reserved for a process that does not respond, in seconds.
const LEASE_SECONDS: i64 = 60;

/// How often the lease is renewed.
const KEEP: Duration = Duration::from_secs(15);

/// How many keys one request lists.
const PAGE: i64 = 1_000;

/// The right to do the upkeep.
pub(super) struct Claim {
    pub lease: i64,
    /// The value of the key; unique.
    name: String,
}

/// When there is something to do.
pub(super) struct Upkeep {
    /// How many generations are to be kept.
    history: usize,
    /// Held while it is done.
    running: AsyncMutex<()>,
    /// Commits of this process since it last looked.
    commits: AtomicUsize,
    /// About how many bytes this process has committed since it last wrote a base.
    bytes: AtomicU64,
}

impl Upkeep {
    pub fn new(history: u64) -> Self {
        Self {
            history: usize::try_from(history).unwrap_or(usize::MAX).max(1),
            running: AsyncMutex::default(),
            // The first one is a reason to look: processes may be short-lived.
            commits: AtomicUsize::new(usize::MAX / 2),
            bytes: AtomicU64::new(0),
        }
    }

    /// How many commits there may be after the last base.
    fn steps(&self) -> usize {
        self.history.clamp(10, MOST_STEPS)
    }

    /// Counts a commit. Returns whether to check for work now.
    fn is_due(&self, delta: Option<&Delta>) -> bool {
        let more = delta.map_or(0, |delta| json_bytes(delta) as u64);
        let before = self.bytes.fetch_add(more, Ordering::Relaxed);
        let commits = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        // Not at every commit.
        let heavy = before / LEAST_BYTES != (before + more) / LEAST_BYTES;
        heavy || commits >= (self.steps() / 10).max(1)
    }
}

impl Etcd {
    /// Starts the upkeep in the background if it is due.
    pub(super) fn after_append(of: &Arc<Self>, commit: &Commit) {
        if !of.upkeep.is_due(commit.delta.as_deref()) {
            return;
        }
        let (etcd, record, table) = (
            Arc::clone(of),
            commit.record.clone(),
            Arc::clone(&commit.table),
        );
        tokio::spawn(async move {
            let Ok(_running) = etcd.upkeep.running.try_lock() else {
                return;
            };
            etcd.upkeep.commits.store(0, Ordering::Relaxed);
            if let Err(error) = etcd.upkeep_with_lease(record, table).await {
                log::warn!(target: "cellgate::control", "upkeep of the history failed, retried later: {error}");
            }
        });
    }

    async fn upkeep_with_lease(
        &self,
        record: Record,
        table: Arc<RoutingTable>,
    ) -> Result<(), StoreError> {
        let needs_base = self.needs_base().await?;
        let cut = self.cut().await?;
        if !needs_base && cut.is_none() {
            return Ok(());
        }
        let Some(claim) = self.claim().await? else {
            return Ok(());
        };
        let done = tokio::select! {
            done = self.upkeep_now(&claim, needs_base, record, table) => done,
            never = self.keep(&claim) => match never {},
        };
        // If this fails, the lease expires.
        let _ = self
            .members
            .ask(|client| async move { client.lease_client().revoke(claim.lease).await })
            .await;
        done
    }

    /// Claims the upkeep for this process; none: another process has it.
    pub(super) async fn claim(&self) -> Result<Option<Claim>, StoreError> {
        let lease = self
            .members
            .ask(|client| async move { client.lease_client().grant(LEASE_SECONDS, None).await });
        let claim = Claim {
            lease: lease.await?.id(),
            name: format!("{:032x}", rand::random::<u128>()),
        };
        let key = self.keys.upkeep();
        let options = PutOptions::new().with_lease(claim.lease);
        let txn = Txn::new()
            .when(vec![Compare::create_revision(
                key.clone(),
                CompareOp::Equal,
                0,
            )])
            .and_then(vec![TxnOp::put(key, &*claim.name, Some(options))]);
        if self.try_txn(txn).await? {
            return Ok(Some(claim));
        }
        // The key is our own if the request was repeated because its answer was lost.
        let own = Txn::new().when(vec![self.is_held(&claim)]);
        if self.try_txn(own).await? {
            return Ok(Some(claim));
        }
        let lease = claim.lease;
        let _ = self
            .members
            .ask(|client| async move { client.lease_client().revoke(lease).await })
            .await;
        Ok(None)
    }

    /// Compares that the claim is still held.
    fn is_held(&self, claim: &Claim) -> Compare {
        Compare::value(self.keys.upkeep(), CompareOp::Equal, &*claim.name)
    }

    /// Keeps a claim alive. If that fails for too long, the claim expires, and its
    /// transactions fail.
    async fn keep(&self, claim: &Claim) -> Infallible {
        let lease = claim.lease;
        loop {
            sleep(KEEP).await;
            let kept = self.members.ask(|client| async move {
                let (mut keeper, mut answers) = client.lease_client().keep_alive(lease).await?;
                keeper.keep_alive().await?;
                answers.message().await
            });
            if let Err(trouble) = kept.await {
                log::debug!(target: "cellgate::control", "{trouble}");
            }
        }
    }

    async fn upkeep_now(
        &self,
        claim: &Claim,
        needs_base: bool,
        record: Record,
        table: Arc<RoutingTable>,
    ) -> Result<(), StoreError> {
        if needs_base {
            self.write_base(claim, record, table).await?;
        }
        if let Some(cut) = self.cut().await? {
            self.delete_below(claim, &cut).await?;
        }
        self.delete_orphans(claim).await
    }

    /// Whether there are many or large commits after the last base.
    async fn needs_base(&self) -> Result<bool, StoreError> {
        let Some(base) = self.last_base(u64::MAX - 1).await? else {
            return Ok(true);
        };
        // Should not happen.
        if !self.has_table(&base).await? {
            return Ok(true);
        }
        let after = base.record.generation.saturating_add(1);
        let steps = self.count(after).await?;
        let bytes = self.upkeep.bytes.load(Ordering::Relaxed);
        let heavy = bytes >= LEAST_BYTES.max(base.table.bytes / 2);
        Ok(steps >= self.upkeep.steps() || (steps > 0 && heavy))
    }

    async fn has_table(&self, base: &BaseValue) -> Result<bool, StoreError> {
        let txn = Txn::new().when(vec![self.is_there(base)]);
        self.try_txn(txn).await
    }

    /// Compares that the table of a base exists.
    fn is_there(&self, base: &BaseValue) -> Compare {
        let first = self.keys.piece(&base.table.id, 0);
        Compare::create_revision(first, CompareOp::Greater, 0)
    }

    /// How many commits there are from `generation` on.
    async fn count(&self, generation: u64) -> Result<usize, StoreError> {
        let range = self.keys.range(Kind::Commit, generation..u64::MAX);
        let options = GetOptions::new().with_range(range.end).with_count_only();
        let answer = self.members.ask(|client| {
            let (from, options) = (range.start.clone(), options.clone());
            async move { client.kv_client().get(from, Some(options)).await }
        });
        Ok(usize::try_from(answer.await?.count()).unwrap_or(0))
    }

    async fn write_base(
        &self,
        claim: &Claim,
        record: Record,
        table: Arc<RoutingTable>,
    ) -> Result<(), StoreError> {
        let generation = record.generation;
        let id = BlobId::new(generation, Kind::Base);
        let bytes = self.upkeep.bytes.load(Ordering::Relaxed);
        let blob = self
            .write_blob(&id, move |out| value::write_table(&table, generation, out))
            .await?;
        if self.name_base(claim, record, &blob).await? {
            self.upkeep.bytes.fetch_sub(bytes, Ordering::Relaxed);
            log::info!(target: "cellgate::control", generation; "wrote a base to etcd");
        } else if let Some(delete) = self.unnamed(claim, &id).await? {
            // It is named nevertheless if an answer was lost.
            self.try_txn(delete).await?;
        }
        Ok(())
    }

    /// Names a table that was written as a base, if it is still useful.
    pub(super) async fn name_base(
        &self,
        claim: &Claim,
        record: Record,
        blob: &Written,
    ) -> Result<bool, StoreError> {
        let key = self.keys.of(Kind::Base, record.generation);
        let commit = self.keys.of(Kind::Commit, record.generation);
        let base = value::write(&BaseValue::new(record, blob.name.clone()))?;
        let txn = Txn::new()
            .when(vec![
                self.is_held(claim),
                self.is_whole(blob),
                Compare::create_revision(key.clone(), CompareOp::Equal, 0),
                // Otherwise it is older than the whole history by now.
                Compare::create_revision(commit, CompareOp::Greater, 0),
            ])
            .and_then(vec![TxnOp::put(key, base, None)]);
        self.try_txn(txn).await
    }

    pub(super) async fn try_txn(&self, txn: Txn) -> Result<bool, StoreError> {
        let answer = self.members.ask(|client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        });
        Ok(answer.await?.succeeded())
    }

    /// The base that the oldest generation of history is read from, if there is
    /// anything below it.
    async fn cut(&self) -> Result<Option<BaseValue>, StoreError> {
        let surplus = self.count(0).await?.saturating_sub(self.upkeep.history);
        if surplus == 0 {
            return Ok(None);
        }
        let Some(oldest) = self.nth_commit(surplus).await? else {
            return Ok(None);
        };
        let Some(base) = self.last_base(oldest).await? else {
            return Ok(None);
        };
        let cut = base.record.generation;
        let first = self.nth_commit(0).await?;
        Ok(first.filter(|first| *first < cut).map(|_| base))
    }

    /// The generation of the n-th commit, counted from the oldest.
    async fn nth_commit(&self, nth: usize) -> Result<Option<u64>, StoreError> {
        let mut from = 0;
        let mut left = nth;
        loop {
            let range = self.keys.range(Kind::Commit, from..u64::MAX);
            let limit = i64::try_from(left).unwrap_or(PAGE).saturating_add(1);
            let options = GetOptions::new()
                .with_range(range.end)
                .with_keys_only()
                .with_limit(limit.min(PAGE));
            let page = self.get(range.start, options).await?;
            let of = |key: &[u8]| self.keys.generation(Kind::Commit, key);
            if let Some(found) = page.get(left) {
                return Ok(of(found.key()));
            }
            match page.last().and_then(|last| of(last.key())) {
                Some(last) => from = last + 1,
                None => return Ok(None),
            }
            left -= page.len();
        }
    }

    /// Deletes everything that only generations below `base` need. Readers notice that it
    /// is gone and start over.
    pub(super) async fn delete_below(
        &self,
        claim: &Claim,
        base: &BaseValue,
    ) -> Result<(), StoreError> {
        let cut = base.record.generation;
        let delete = |range: std::ops::Range<String>| {
            let options = DeleteOptions::new().with_range(range.end);
            TxnOp::delete(range.start, Some(options))
        };
        let txn = Txn::new()
            .when(vec![
                self.is_held(claim),
                self.is_there(base),
                Compare::create_revision(self.keys.of(Kind::Base, cut), CompareOp::Greater, 0),
            ])
            .and_then(vec![
                delete(self.keys.range(Kind::Commit, 0..cut)),
                delete(self.keys.range(Kind::Base, 0..cut)),
                delete(self.keys.blobs_below(cut)),
            ]);
        if self.try_txn(txn).await? {
            log::info!(target: "cellgate::control", below = cut; "deleted old generations from etcd");
        }
        Ok(())
    }

    /// Deletes blobs that nothing names or can name any more: those of changes that were not
    /// committed, and of bases whose writer was interrupted.
    async fn delete_orphans(&self, claim: &Claim) -> Result<(), StoreError> {
        let Some((head, _)) = self.head().await? else {
            return Ok(());
        };
        let mut from = self.keys.blobs_below(0).start;
        loop {
            let options = GetOptions::new()
                .with_range(self.keys.blobs_end())
                .with_keys_only()
                .with_sort(SortTarget::Key, SortOrder::Ascend)
                .with_limit(PAGE);
            let page = self.get(from, options).await?;
            let mut ids: Vec<BlobId> = page
                .iter()
                .filter_map(|found| self.keys.blob_of(found.key()))
                .collect();
            ids.dedup();
            let Some(last) = ids.last() else {
                return Ok(());
            };
            from = self.keys.after_blob(&last.text);
            for id in &ids {
                // A change in progress has a later generation, and only this process writes
                // bases now.
                if id.generation <= head.generation
                    && let Some(delete) = self.unnamed(claim, id).await?
                {
                    self.try_txn(delete).await?;
                }
            }
        }
    }

    /// A transaction that deletes a blob if nothing names it by then; none: something names
    /// it.
    pub(super) async fn unnamed(
        &self,
        claim: &Claim,
        id: &BlobId,
    ) -> Result<Option<Txn>, StoreError> {
        let key = self.keys.of(id.kind, id.generation);
        let found = self.get(key.clone(), GetOptions::new()).await?;
        let named = match (id.kind, found.first()) {
            (_, None) => None,
            (Kind::Commit, Some(found)) => {
                let commit: CommitValue = value::read(found.key(), found.value())?;
                commit.content.blob().cloned()
            }
            (Kind::Base, Some(found)) => {
                let base: BaseValue = value::read(found.key(), found.value())?;
                Some(base.table)
            }
        };
        if named.is_some_and(|named| named.id == id.text) {
            return Ok(None);
        }
        // 0: there is none.
        let revision = found.first().map_or(0, |found| found.mod_revision());
        let pieces = self.keys.pieces(&id.text, 0);
        let options = DeleteOptions::new().with_range(pieces.end);
        let txn = Txn::new()
            .when(vec![
                self.is_held(claim),
                Compare::mod_revision(key, CompareOp::Equal, revision),
            ])
            .and_then(vec![TxnOp::delete(pieces.start, Some(options))]);
        Ok(Some(txn))
    }
}
