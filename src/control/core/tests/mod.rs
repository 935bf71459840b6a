//! The truth on a store in memory.

mod commits;
mod expectations;
mod following;
pub(crate) mod memory;
mod rings;

use std::sync::Arc;

use bytes::Bytes;

use self::memory::Memory;
use super::{CommitError, Committed, Edit, Expected, Truth};
use crate::control::store::{Author, Generation, Store};
use crate::table::Delta;

/// A routing document of these keys and the placements `one` and `two`.
pub(crate) fn document(version: &str, keys: &[(&str, &str)]) -> Bytes {
    let keys: serde_json::Map<String, serde_json::Value> = keys
        .iter()
        .map(|(key, placement)| ((*key).to_owned(), (*placement).into()))
        .collect();
    let document = serde_json::json!({
        "version": version,
        "routingTable": keys,
        "cellEndpoints": {"one": "http://127.0.0.1:1", "two": "http://127.0.0.1:2"},
        "defaultPlacement": "one",
    });
    document.to_string().into()
}

/// A delta that sets a key.
pub(crate) fn set(key: &str, placement: &str) -> Edit {
    Edit::Delta(Delta {
        set: vec![(key.to_owned(), placement.to_owned())],
        ..Delta::default()
    })
}

pub(crate) fn remove(key: &str) -> Edit {
    Edit::Delta(Delta {
        remove: vec![key.to_owned()],
        ..Delta::default()
    })
}

pub(crate) fn author(what: &str) -> Author {
    Author {
        who: "test".to_owned(),
        from: "127.0.0.1:1".to_owned(),
        what: what.to_owned(),
    }
}

/// A truth on an empty store, and the store.
async fn empty() -> (Arc<Truth>, Arc<Memory>) {
    let store = Arc::new(Memory::default());
    (open(&store).await, store)
}

async fn open(store: &Arc<Memory>) -> Arc<Truth> {
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    Truth::open(store).await.unwrap()
}

/// A truth whose generation 1 has the key `acme` on `one`.
async fn founded() -> (Arc<Truth>, Arc<Memory>) {
    let (truth, store) = empty().await;
    changed(&truth, Edit::Document(document("1", &[("acme", "one")]))).await;
    (truth, store)
}

async fn commit(truth: &Arc<Truth>, edit: Edit) -> Result<Committed, CommitError> {
    let author = author("edit");
    truth.commit(edit, &Expected::Anything, author).await
}

/// Makes a change that has to succeed.
async fn changed(truth: &Arc<Truth>, edit: Edit) -> Arc<Generation> {
    match commit(truth, edit).await {
        Ok(Committed::Changed(generation)) => generation,
        other => panic!("{other:?}"),
    }
}

fn home<'g>(generation: &'g Generation, key: &str) -> Option<&'g str> {
    let table = &generation.table;
    let placement = table.placement_of(key)?;
    Some(&table.placement(placement).name)
}
