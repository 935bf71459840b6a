//! A store in etcd v3, for several control planes that serve the same generations. All of
//! them accept changes; none is elected.
//!
//! Below the prefix of its [settings](EtcdSettings) there are
//!
//! - `head`: the [`Record`](super::Record) of the newest generation, as JSON;
//! - `commits/GENERATION`: each generation's record and its delta, see [`value`];
//! - `bases/GENERATION`: for some generations, the record and the name of the blob with
//!   the whole table. A table is read as a base and the deltas that follow it;
//! - `blobs/ID/N`: the pieces of a content that is too large for one value, see [`blob`];
//! - `upkeep`: held by the one process that writes a base or deletes old generations.
//!
//! A generation is added by one transaction, which compares `head` with the parent's and
//! writes `head` and the commit. Pieces are written before it, and are not read until a
//! commit or a base names them, so that a change is visible as a whole or not at all.
//! [`append`] adds, [`load`] reads, [`follow`] watches, [`upkeep`] writes bases and deletes
//! old generations, [`members`] sends requests to one endpoint after the other, and
//! [`connect`] makes connections.
//!
//! Generations in keys have 20 digits, so that keys sort by generation.

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

/// The state that the store shares with its background tasks.
struct Etcd {
    members: Members,
    keys: Keys,
    /// The newest generation seen so far.
    known: Mutex<Option<Known>>,
    /// The watch, kept from one call of `changed` to the next.
    watch: AsyncMutex<Option<Watch>>,
    upkeep: Upkeep,
}

/// The head, and where it is in etcd's own history.
#[derive(Clone, Copy, Debug)]
struct Known {
    mark: Mark,
    /// The revision that wrote it.
    revision: i64,
}

impl EtcdStore {
    /// Reads the files that `settings` name. Connections are made on first use, on the
    /// runtime that this is called in. At least `history` generations (1 or more) are
    /// kept, and up to about twice as many.
    ///
    /// # Errors
    /// A file cannot be read or is not valid, or there is no endpoint.
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
