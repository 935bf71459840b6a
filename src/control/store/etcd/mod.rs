//! A store in etcd v3, for several control planes at once that are all equal.
//!
//! Below the prefix of its [settings](EtcdSettings) there are
//!
//! - `head`: the [`Record`](super::Record) of the newest generation, as JSON;
//! - `commits/GENERATION`: each generation's record and what made it, see [`value`];
//! - `bases/GENERATION`: a record and the name of its whole table, now and then, so
//!   that a table is read as a base and what followed on it;
//! - `blobs/ID/N`: the pieces of what is too large for one value, see [`blob`];
//! - `upkeep`: held by the one process that writes a base or deletes what is old.
//!
//! A generation is added by one transaction, which asks whether `head` is still the
//! parent's and writes `head` and the commit. Pieces are written before it, and are
//! nothing to anybody until a commit or a base names them; so no half of a change
//! is ever seen. [`append`] has this, [`load`] what reads, [`follow`] the watch,
//! and [`upkeep`] the bases and the deleting. [`members`] asks one endpoint after
//! the other, and [`connect`] makes connections.
//!
//! Generations in keys have 20 digits, so that their order is that of the keys.

mod append;
mod blob;
mod connect;
mod follow;
mod keys;
mod load;
mod members;
mod upkeep;
mod value;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use self::follow::Watch;
use self::keys::Keys;
use self::members::Members;
use self::upkeep::Upkeep;
use super::{AppendError, Commit, Generation, News, Record, Step, Store, StoreError};
use crate::control::settings::EtcdSettings;
use crate::protocol::Mark;
use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;

/// See the [module](self).
pub struct EtcdStore(Arc<Etcd>);

/// What a store shares with what it does in the background.
struct Etcd {
    members: Members,
    keys: Keys,
    /// The newest generation that was seen.
    known: Mutex<Option<Known>>,
    /// The watch that the last call of `changed` left.
    watch: AsyncMutex<Option<Watch>>,
    upkeep: Upkeep,
}

/// A head by its place in etcd's own history.
#[derive(Clone, Copy, Debug)]
struct Known {
    mark: Mark,
    /// The revision that wrote it.
    revision: i64,
}

impl EtcdStore {
    /// Reads the files that `settings` name. Connections are made when they are
    /// needed, by the runtime that this is called in. `history` generations, at least
    /// 1, are kept for sure, and up to about twice as many.
    ///
    /// # Errors
    /// A file cannot be used, or there is no endpoint.
    pub fn new(settings: &EtcdSettings, history: u64) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Etcd {
            members: Members::new(settings)?,
            keys: Keys::new(&settings.prefix),
            known: Mutex::default(),
            watch: AsyncMutex::default(),
            upkeep: Upkeep::new(history),
        })))
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn name(&self) -> String {
        let of = &self.0;
        format!("etcd {} {}", of.members.names(), of.keys.prefix())
    }

    async fn newest(&self) -> Result<Option<Generation>, StoreError> {
        self.0.newest().await
    }

    async fn append(&self, commit: &Commit) -> Result<(), AppendError> {
        self.0.append(commit).await?;
        Etcd::after_append(&self.0, commit);
        Ok(())
    }

    async fn since(&self, after: u64) -> Result<News, StoreError> {
        self.0.since(after).await
    }

    async fn recent(&self, most: usize, most_bytes: usize) -> Result<Vec<Step>, StoreError> {
        self.0.recent(most, most_bytes).await
    }

    async fn changed(&self, after: u64) {
        self.0.changed(after).await;
    }

    async fn records(&self, before: Option<u64>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.0.records(before, limit).await
    }

    async fn generation(&self, generation: u64) -> Result<Option<Generation>, StoreError> {
        self.0.generation(generation).await
    }
}
