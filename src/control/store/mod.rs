//! Where a control plane keeps its generations.
//!
//! A store keeps a sequence of generations, each with a record of who made it, and
//! returns any of those that it still has. Adding one is a compare-and-swap: it
//! succeeds only if the newest generation is the parent of the new one. A store
//! validates no tables; they are valid before they get here. [`file`] is for one
//! control plane, [`etcd`] for several.

pub mod etcd;
pub mod file;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::protocol::Mark;
use crate::table::{Delta, Digest, RoutingTable};

/// What is known of a generation, apart from its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// Its number: from 1, growing with every change, not always by one.
    #[schema(minimum = 1)]
    pub generation: u64,
    /// The generation that it was made from; 0: none.
    pub parent: u64,
    /// The digest of its table.
    pub digest: Digest,
    /// The version that the routing document states.
    pub version: String,
    /// How many keys it has.
    pub keys: u64,
    #[serde(with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub at: SystemTime,
    pub author: Author,
    /// How many keys were assigned to a placement.
    pub set: u64,
    /// How many keys were removed.
    pub removed: u64,
    /// Whether anything other than keys changed.
    pub head: bool,
    /// Unique for each attempt to make a change: tells after a lost answer whether
    /// this attempt was stored.
    pub id: String,
}

impl Record {
    pub fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            digest: self.digest,
        }
    }
}

/// Who made a change, from where, and by which request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Author {
    /// The name of the token, `anonymous`, or `file`.
    pub who: String,
    /// The address of the peer, or the path of the file.
    pub from: String,
    /// The request, such as `put document` or `restore 5`.
    pub what: String,
}

/// A generation to be added.
#[derive(Clone, Debug)]
pub struct Commit {
    pub record: Record,
    /// The generation that it is made from, which must be the newest one; its number is
    /// `record.parent`. None: the store must be empty.
    pub parent: Option<Mark>,
    /// The difference between the parent's table and `table`. None: there is no parent,
    /// or the two have too little in common for a delta to be smaller.
    pub delta: Option<Arc<Delta>>,
    /// The table of the new generation.
    pub table: Arc<RoutingTable>,
}

/// A generation with its table.
#[derive(Clone, Debug)]
pub struct Generation {
    pub record: Record,
    pub table: Arc<RoutingTable>,
}

/// The delta that leads from one generation to the next.
#[derive(Clone, Debug)]
pub struct Step {
    pub from: Mark,
    pub to: Mark,
    pub delta: Arc<Delta>,
}

/// About how many bytes a delta has as JSON.
pub fn json_bytes(delta: &Delta) -> usize {
    /// Quotes, comma and brackets.
    const AROUND: usize = 7;
    let head = delta.head.as_deref().map_or(0, str::len);
    let set = delta.set.iter();
    let set = set.map(|(key, name)| key.len() + name.len() + AROUND);
    let remove = delta.remove.iter().map(|key| key.len() + AROUND);
    head + set.chain(remove).sum::<usize>()
}

/// About how many bytes of memory a delta takes.
pub fn memory_bytes(delta: &Delta) -> usize {
    /// What each key, name or text takes besides its characters, less what
    /// [`json_bytes`] counts for it.
    const STRING: usize = 35;
    let strings = 1 + 2 * delta.set.len() + delta.remove.len();
    json_bytes(delta) + STRING * strings
}

/// What a store has after a given generation.
#[derive(Clone, Debug)]
pub enum News {
    Nothing,
    /// All later generations, oldest first, each with the delta from the one before it.
    Steps(Vec<(Record, Arc<Delta>)>),
    /// The newest generation, where the steps are too many or not known.
    Whole(Generation),
}

/// Why something was not stored or cannot be read, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Why a generation was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Another generation is the newest one; nothing was stored.
    Conflict,
    /// Nothing was stored.
    Failed(StoreError),
    /// Whether it was stored is unknown, and could not be found out.
    Unknown(StoreError),
}

/// Keeps generations. All methods may be called concurrently, and their futures may be
/// dropped; the outcome of an `append` is then unknown.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The kind of store and where it is, for the log and `/api/v1`: `file …` or
    /// `etcd …`.
    fn name(&self) -> String;

    /// The newest generation; none before the first.
    async fn newest(&self) -> Result<Option<Generation>, StoreError>;

    /// Adds a generation, if its parent is the newest one. It is durable when this
    /// returns.
    async fn append(&self, commit: &Commit) -> Result<(), AppendError>;

    /// What there is after generation `after`. Does not wait for a change.
    async fn since(&self, after: u64) -> Result<News, StoreError>;

    /// The last steps that lead to the newest generation, oldest first, as far as they
    /// can be read cheaply: at most `most`, of about `most_bytes` of memory. They serve
    /// edges that missed changes while the control plane was down.
    async fn recent(&self, most: usize, most_bytes: usize) -> Result<Vec<Step>, StoreError>;

    /// Waits until another process may have added a generation after `after`. Never
    /// returns if no other process can.
    async fn changed(&self, after: u64);

    /// The records of at most `limit` generations below `before`, newest first; without
    /// `before`, from the newest one on.
    async fn records(&self, before: Option<u64>, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// A generation with its table; none if there is no such generation, or it was
    /// removed.
    async fn generation(&self, generation: u64) -> Result<Option<Generation>, StoreError>;
}

mod time {
    use std::time::SystemTime;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::telemetry::time::rfc3339_millis;

    pub fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&rfc3339_millis(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}
