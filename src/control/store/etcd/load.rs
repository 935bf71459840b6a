//! Reading generations from etcd.

use std::sync::Arc;

use etcd_client::{GetOptions, KeyValue, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse};

use super::Etcd;
use super::keys::Kind;
use super::value::{self, BaseValue, BlobName, CommitValue, Content};
use crate::control::store::{Generation, News, Record, Step, StoreError, memory_bytes};
use crate::table::{Delta, RoutingTable};

/// The largest answer, in bytes: a page of commits or of pieces.
const ANSWER_BYTES: usize = 64 << 20;

/// How many commits one request reads.
const PAGE: i64 = 100;

/// How many generations are returned as steps at most.
const MOST_STEPS: usize = 10_000;

/// How many keys these steps change together at most.
const MOST_KEYS: u64 = 1_000_000;

/// How often reading is started over because something was deleted meanwhile.
const ATTEMPTS: u32 = 10;

/// Why something was not read.
#[derive(Debug)]
pub(super) enum LoadError {
    /// It was deleted meanwhile; something newer exists.
    Gone,
    Store(StoreError),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Etcd {
    /// Reads one or more keys.
    pub(super) async fn get(
        &self,
        key: String,
        options: GetOptions,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let answer = self.members.ask(|client| {
            let (key, options) = (key.clone(), options.clone());
            let client = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
            async move { { client }.get(key, Some(options)).await }
        });
        Ok(answer.await?.take_kvs())
    }

    /// The newest record and the revision that wrote it.
    pub(super) async fn head(&self) -> Result<Option<(Record, i64)>, StoreError> {
        let found = self.get(self.keys.head(), GetOptions::new()).await?;
        self.read_head(&found)
    }

    fn read_head(&self, found: &[KeyValue]) -> Result<Option<(Record, i64)>, StoreError> {
        let Some(found) = found.first() else {
            return Ok(None);
        };
        let record: Record = value::read(found.key(), found.value())?;
        self.learn(record.mark(), found.mod_revision());
        Ok(Some((record, found.mod_revision())))
    }

    /// The last base at or below a generation.
    pub(super) async fn last_base(&self, upto: u64) -> Result<Option<BaseValue>, StoreError> {
        let range = self.keys.range(Kind::Base, 0..upto.saturating_add(1));
        let options = GetOptions::new()
            .with_range(range.end)
            .with_sort(SortTarget::Key, SortOrder::Descend)
            .with_limit(1);
        let found = self.get(range.start, options).await?;
        let base = found
            .first()
            .map(|base| value::read(base.key(), base.value()));
        base.transpose()
    }

    pub(super) async fn newest(&self) -> Result<Option<Generation>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some((record, _)) = self.head().await? else {
                return Ok(None);
            };
            match self.load(record.generation).await {
                Ok(Some(generation)) => return Ok(Some(generation)),
                Err(LoadError::Store(error)) => return Err(error),
                // Another process deleted it meanwhile.
                Ok(None) | Err(LoadError::Gone) => {}
            }
        }
        Err(StoreError(format!(
            "etcd: parts of the newest generation below {:?} are missing",
            self.keys.prefix()
        )))
    }

    pub(super) async fn generation(
        &self,
        generation: u64,
    ) -> Result<Option<Generation>, StoreError> {
        for _ in 0..ATTEMPTS {
            match self.load(generation).await {
                Ok(found) => return Ok(found),
                Err(LoadError::Gone) => {}
                Err(LoadError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError(format!(
            "etcd: parts of generation {generation} are missing"
        )))
    }

    /// Reads the last base at or below `generation`, and applies the commits after it.
    async fn load(&self, generation: u64) -> Result<Option<Generation>, LoadError> {
        let Some(mut found) = self.whole_base(generation).await? else {
            return Ok(None);
        };
        while found.record.generation < generation {
            let page = self.commits(found.record.generation, generation).await?;
            if page.is_empty() {
                // There is no such generation, or it was deleted.
                return Ok(None);
            }
            found = self.replay(found, page).await?;
        }
        Ok(Some(found))
    }

    /// The last base at or below a generation whose table exists.
    async fn whole_base(&self, generation: u64) -> Result<Option<Generation>, LoadError> {
        let (mut upto, mut gone) = (generation, None);
        loop {
            let base = match (self.last_base(upto).await?, gone) {
                (Some(base), _) => base,
                (None, None) => return Ok(None),
                (None, Some(_)) => return Err(LoadError::Gone),
            };
            let number = base.record.generation;
            match self.table(&base.table).await {
                Ok(table) => {
                    if let Some(gone) = gone {
                        log::warn!(
                            target: "cellgate::control",
                            "etcd: the table of the base of generation {gone} is missing; that of \
                             generation {number} is used instead"
                        );
                    }
                    let record = base.record;
                    return Ok(Some(Generation { record, table }));
                }
                // Deleted meanwhile together with all earlier ones; or it alone is missing, and
                // an earlier one serves.
                Err(LoadError::Gone) => {
                    gone = gone.or(Some(number));
                    upto = number.checked_sub(1).ok_or(LoadError::Gone)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn table(&self, blob: &BlobName) -> Result<Arc<RoutingTable>, LoadError> {
        let table = self.read_blob(blob, |from| value::read_table(from)).await?;
        Ok(Arc::new(table))
    }

    /// The next page of commits after one generation, up to another.
    async fn commits(&self, after: u64, upto: u64) -> Result<Vec<CommitValue>, StoreError> {
        let (from, to) = (after.saturating_add(1), upto.saturating_add(1));
        let range = self.keys.range(Kind::Commit, from..to);
        let options = GetOptions::new().with_range(range.end).with_limit(PAGE);
        let page = self.get(range.start, options).await?;
        let page = page
            .iter()
            .map(|found| value::read(found.key(), found.value()));
        page.collect()
    }

    async fn replay(
        &self,
        mut from: Generation,
        page: Vec<CommitValue>,
    ) -> Result<Generation, LoadError> {
        for CommitValue {
            record, content, ..
        } in page
        {
            if record.parent != from.record.generation {
                return Err(LoadError::Gone);
            }
            let delta = match content {
                Content::TableBlob(blob) => {
                    let table = self.table(&blob).await?;
                    from = Generation { record, table };
                    continue;
                }
                Content::Delta(delta) => delta,
                Content::DeltaBlob(blob) => self.delta(&blob).await?,
            };
            let small = value::is_small(&delta);
            let apply = move || step(&from, record, &delta);
            from = match small {
                true => apply(),
                false => tokio::task::spawn_blocking(apply)
                    .await
                    .unwrap_or_else(|error| Err(StoreError(format!("etcd: {error}")))),
            }?;
        }
        Ok(from)
    }

    async fn delta(&self, blob: &BlobName) -> Result<Delta, LoadError> {
        self.read_blob(blob, |from| value::read_delta(from)).await
    }

    pub(super) async fn since(&self, after: u64) -> Result<News, StoreError> {
        match self.steps(after).await {
            Ok(Some(news)) => Ok(news),
            Ok(None) | Err(LoadError::Gone) => Ok(match self.newest().await? {
                Some(newest) => News::Whole(newest),
                None => News::Nothing,
            }),
            Err(LoadError::Store(error)) => Err(error),
        }
    }

    /// The steps from `after` to the newest generation; none if they are too many or
    /// missing.
    async fn steps(&self, after: u64) -> Result<Option<News>, LoadError> {
        let (head, mut page) = self.head_and_commits(after).await?;
        let newest = head.as_ref().map_or(0, |head| head.generation);
        if newest < after {
            return Err(LoadError::Store(StoreError(format!(
                "etcd: the newest generation below {:?} is {newest}, and was {after} before; if a \
                 backup was restored on purpose, restart all control planes",
                self.keys.prefix()
            ))));
        }
        let mut steps: Vec<(Record, Arc<Delta>)> = Vec::new();
        let (mut last, mut keys) = (after, 0_u64);
        while last < newest {
            if page.is_empty() || steps.len() >= MOST_STEPS {
                return Ok(None);
            }
            for CommitValue {
                record, content, ..
            } in page
            {
                if record.parent != last {
                    return Ok(None);
                }
                keys = keys
                    .saturating_add(record.set)
                    .saturating_add(record.removed);
                if keys > MOST_KEYS && !steps.is_empty() {
                    return Ok(None);
                }
                let delta = match content {
                    Content::Delta(delta) => delta,
                    Content::DeltaBlob(blob) => self.delta(&blob).await?,
                    Content::TableBlob(_) => return Ok(None),
                };
                last = record.generation;
                steps.push((record, Arc::new(delta)));
            }
            page = match last < newest {
                true => self.commits(last, newest).await?,
                false => Vec::new(),
            };
        }
        Ok(Some(match steps.is_empty() {
            true => News::Nothing,
            false => News::Steps(steps),
        }))
    }

    /// The newest record and the first page of commits after a generation, from one
    /// revision.
    async fn head_and_commits(
        &self,
        after: u64,
    ) -> Result<(Option<Record>, Vec<CommitValue>), StoreError> {
        let range = self
            .keys
            .range(Kind::Commit, after.saturating_add(1)..u64::MAX);
        let options = GetOptions::new().with_range(range.end).with_limit(PAGE);
        let txn = Txn::new().and_then(vec![
            TxnOp::get(self.keys.head(), None),
            TxnOp::get(range.start, Some(options)),
        ]);
        let answer = self.members.ask(|client| {
            let txn = txn.clone();
            let client = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
            async move { { client }.txn(txn).await }
        });
        let mut found = answer.await?.op_responses().into_iter();
        let mut next = || match found.next() {
            Some(TxnOpResponse::Get(mut found)) => found.take_kvs(),
            _ => Vec::new(),
        };
        let (head, page) = (next(), next());
        let head = self.read_head(&head)?.map(|(record, _)| record);
        let page = page
            .iter()
            .map(|found| value::read(found.key(), found.value()));
        Ok((head, page.collect::<Result<_, _>>()?))
    }

    /// The last steps that lead to the newest generation.
    pub(super) async fn recent(
        &self,
        most: usize,
        most_bytes: usize,
    ) -> Result<Vec<Step>, StoreError> {
        let mut steps = Vec::new();
        // Becomes a step with the mark of the next older record.
        let mut later: Option<(Record, Arc<Delta>)> = None;
        let (mut before, mut bytes) = (u64::MAX, 0);
        'pages: loop {
            let page = self.commits_below(before, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for CommitValue {
                record, content, ..
            } in page
            {
                before = record.generation;
                if let Some((next, delta)) = later.take() {
                    if next.parent != record.generation {
                        break 'pages;
                    }
                    steps.push(Step {
                        from: record.mark(),
                        to: next.mark(),
                        delta,
                    });
                }
                if steps.len() >= most {
                    break 'pages;
                }
                let delta = match content {
                    Content::Delta(delta) => delta,
                    Content::DeltaBlob(blob) if blob.bytes < most_bytes as u64 => {
                        match self.delta(&blob).await {
                            Ok(delta) => delta,
                            Err(LoadError::Gone) => break 'pages,
                            Err(LoadError::Store(error)) => return Err(error),
                        }
                    }
                    Content::DeltaBlob(_) | Content::TableBlob(_) => break 'pages,
                };
                bytes += memory_bytes(&delta);
                if bytes > most_bytes {
                    break 'pages;
                }
                later = Some((record, Arc::new(delta)));
            }
        }
        steps.reverse();
        Ok(steps)
    }

    /// At most `most` commits below a generation, the newest first.
    async fn commits_below(&self, before: u64, most: i64) -> Result<Vec<CommitValue>, StoreError> {
        let range = self.keys.range(Kind::Commit, 0..before);
        let options = GetOptions::new()
            .with_range(range.end)
            .with_sort(SortTarget::Key, SortOrder::Descend)
            .with_limit(most);
        let page = self.get(range.start, options).await?;
        let page = page
            .iter()
            .map(|found| value::read(found.key(), found.value()));
        page.collect()
    }

    pub(super) async fn records(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        let mut before = before.unwrap_or(u64::MAX);
        while records.len() < limit {
            let left = i64::try_from(limit - records.len()).unwrap_or(PAGE);
            let page = self.commits_below(before, left.min(PAGE)).await?;
            if page.is_empty() {
                break;
            }
            for CommitValue { record, .. } in page {
                before = record.generation;
                records.push(record);
            }
        }
        Ok(records)
    }
}

/// Applies `delta` to `from`.
fn step(from: &Generation, record: Record, delta: &Delta) -> Result<Generation, StoreError> {
    let number = record.generation;
    let table = from.table.apply(delta).map_err(|problems| {
        let first = problems
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        StoreError(format!("etcd: generation {number} is damaged: {first}"))
    })?;
    if table.digest() != record.digest {
        return Err(StoreError(format!(
            "etcd: generation {number} is damaged: its digest is {}, not {}",
            table.digest(),
            record.digest
        )));
    }
    Ok(Generation {
        record,
        table: Arc::new(table),
    })
}
