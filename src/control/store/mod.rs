//! Where a control plane keeps its generations.
//!
//! A store keeps a line of generations, each with a record of who made it, and
//! gives any of the last many back. It compares and swaps: a generation is added
//! only on top of the one that it was made of. It validates nothing: what comes
//! here has been. [`etcd`] is one that several control planes share.

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
    /// From 1; grows with every change, not always by one.
    #[schema(minimum = 1)]
    pub generation: u64,
    /// The generation that it was made of; 0: of nothing.
    pub parent: u64,
    /// Of its content.
    pub digest: Digest,
    /// The document's own version.
    pub version: String,
    /// How many keys it has.
    pub keys: u64,
    #[serde(with = "time")]
    #[schema(value_type = String, format = DateTime)]
    pub at: SystemTime,
    pub author: Author,
    /// How many keys were given a placement.
    pub set: u64,
    /// How many keys were taken out.
    pub removed: u64,
    /// Whether anything but keys changed.
    pub head: bool,
    /// Another for every attempt at a change, so that whoever made it can tell
    /// after a lost answer whether it was stored.
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

/// Who changed something, from where and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Author {
    /// The name of the token, `anonymous`, or `file`.
    pub who: String,
    /// The address of the peer, or the path of the file.
    pub from: String,
    /// What was asked for, such as `put document` or `restore 5`.
    pub what: String,
}

/// A generation that is to be added.
#[derive(Clone, Debug)]
pub struct Commit {
    pub record: Record,
    /// The generation that it is made of, which has to be the newest; none: there has
    /// to be none yet. Its number is `record.parent`.
    pub parent: Option<Mark>,
    /// What makes it of its parent. None: it has none, or has too little in common
    /// with it for a delta to be worth the while.
    pub delta: Option<Arc<Delta>>,
    /// What there is after it.
    pub table: Arc<RoutingTable>,
}

/// A generation and its content.
#[derive(Clone, Debug)]
pub struct Generation {
    pub record: Record,
    pub table: Arc<RoutingTable>,
}

/// What made a generation of the one before it.
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

/// What a store has that follows on a generation.
#[derive(Clone, Debug)]
pub enum News {
    Nothing,
    /// All generations since, oldest first, each of which is made of the one
    /// before it.
    Steps(Vec<(Record, Arc<Delta>)>),
    /// Too much has happened: the newest as a whole.
    Whole(Generation),
}

/// Why something was not stored, or cannot be read, in words for an operator.
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
    /// Another one is the newest; nothing has changed.
    Conflict,
    /// Nothing was stored. An implementation finds out when it is in doubt.
    Failed(StoreError),
    /// It may have been stored or not, and there was no finding out.
    Unknown(StoreError),
}

/// Keeps generations. All methods may be called at the same time, and none loses
/// anything when its future is dropped, but what an `append` did is then unknown.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What it is, for the log and `/api/v1`: `file …` or `etcd …`.
    fn name(&self) -> String;

    /// The newest generation; none before the first.
    async fn newest(&self) -> Result<Option<Generation>, StoreError>;

    /// Adds a generation, if its parent is the newest one. Durable when this
    /// returns.
    async fn append(&self, commit: &Commit) -> Result<(), AppendError>;

    /// What follows on generation `after`. Does not wait for anything to happen.
    async fn since(&self, after: u64) -> Result<News, StoreError>;

    /// The last steps that lead to the newest generation, oldest first, as far as they
    /// are at hand: at most `most`, of about `most_bytes` together. For edges that
    /// missed them while nobody was there.
    async fn recent(&self, most: usize, most_bytes: usize) -> Result<Vec<Step>, StoreError>;

    /// Waits until there may be something after generation `after` that was not
    /// added through this value. Never returns if nobody else can add.
    async fn changed(&self, after: u64);

    /// The records of at most `limit` generations below `before` (none: from the
    /// newest on), newest first.
    async fn records(&self, before: Option<u64>, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// A generation with its content; none if there is no such generation, or not
    /// any more.
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
