//! What becomes of a change.

use std::sync::Arc;
use std::time::Duration;

use super::super::{CommitError, Committed, Edit, Etag, Expected};
use super::{author, changed, commit, document, empty, founded, home, open, remove, set};
use crate::control::store::{AppendError, StoreError};
use crate::protocol::limits::KEY_BYTES;
use crate::table::Delta;

#[tokio::test]
async fn the_first_document_is_generation_one() {
    let (truth, store) = empty().await;
    assert!(truth.newest().is_none());
    let edit = Edit::Document(document("v1", &[("acme", "one"), ("visa", "two")]));
    let made = changed(&truth, edit).await;
    let record = &made.record;
    assert_eq!((record.generation, record.parent), (1, 0));
    assert_eq!(record.digest, made.table.digest());
    assert_eq!((record.version.as_str(), record.keys), ("v1", 2));
    assert_eq!((record.set, record.removed, record.head), (2, 0, true));
    assert_eq!(record.author, author("edit"));
    assert_eq!(home(&made, "visa"), Some("two"));
    assert_eq!(truth.newest().unwrap().record, *record);
    assert_eq!(store.numbers(), [(1, 0)]);
}

#[tokio::test]
async fn what_changed_is_counted() {
    let (truth, _store) = founded().await;
    let made = changed(&truth, set("visa", "two")).await;
    let counts = (made.record.set, made.record.removed, made.record.head);
    assert_eq!((made.record.generation, counts), (2, (1, 0, false)));
    let made = changed(&truth, remove("acme")).await;
    let counts = (made.record.set, made.record.removed, made.record.head);
    assert_eq!((made.record.keys, counts), (1, (0, 1, false)));
    // The same keys but one, under another version.
    let edit = Edit::Document(document("2", &[("visa", "two"), ("new", "one")]));
    let made = changed(&truth, edit).await;
    let counts = (made.record.set, made.record.removed, made.record.head);
    assert_eq!((made.record.generation, counts), (4, (1, 0, true)));
}

#[tokio::test]
async fn an_earlier_table_comes_back_as_a_new_generation() {
    let (truth, _store) = founded().await;
    let first = truth.newest().unwrap();
    changed(&truth, set("acme", "two")).await;
    let made = changed(&truth, Edit::Table(Arc::clone(&first.table))).await;
    assert_eq!(made.record.generation, 3);
    assert_eq!(made.record.digest, first.record.digest);
    assert_eq!(home(&made, "acme"), Some("one"));
}

#[tokio::test]
async fn what_is_so_already_changes_nothing() {
    let (truth, store) = founded().await;
    let spaced = String::from_utf8(document("1", &[("acme", "one")]).to_vec()).unwrap();
    let spaced = spaced.replace(',', ",\n  ");
    for edit in [
        set("acme", "one"),
        remove("nobody"),
        Edit::Delta(Delta::default()),
        Edit::Document(spaced.into()),
        Edit::Table(Arc::clone(&truth.newest().unwrap().table)),
    ] {
        match commit(&truth, edit.clone()).await {
            Ok(Committed::Unchanged(same)) => assert_eq!(same.record.generation, 1),
            other => panic!("{edit:?}: {other:?}"),
        }
    }
    assert_eq!(store.numbers(), [(1, 0)]);
}

#[tokio::test]
async fn what_is_not_valid_changes_nothing() {
    let (truth, store) = founded().await;
    for (edit, pointer, message) in [
        (set("acme", "nowhere"), "/set/acme", "\"nowhere\""),
        (set("", "one"), "/set/", "empty"),
        (
            Edit::Document(document("2", &[("acme", "nowhere")])),
            "/routingTable/acme",
            "\"nowhere\"",
        ),
        (Edit::Document("nonsense".into()), "", "JSON"),
        (set(&"k".repeat(KEY_BYTES + 1), "one"), "/set", "bytes"),
        (
            Edit::Document(document("2", &[(&"k".repeat(KEY_BYTES + 1), "one")])),
            "/routingTable",
            "bytes",
        ),
    ] {
        let shown = format!("{edit:?}");
        let shown = shown.get(..60).unwrap_or(&shown).to_owned();
        match commit(&truth, edit).await {
            Err(CommitError::Invalid(problems)) => {
                assert_eq!(problems[0].pointer, pointer, "{shown}");
                let said = problems[0].to_string();
                assert!(said.contains(message), "{shown}: {said}");
            }
            other => panic!("{shown}: {other:?}"),
        }
    }
    assert_eq!(store.numbers(), [(1, 0)]);
}

#[tokio::test]
async fn keys_need_something_to_live_on() {
    let (truth, store) = empty().await;
    let refused = commit(&truth, set("acme", "one")).await;
    assert!(matches!(refused, Err(CommitError::Invalid(_))));
    let head = r#"{"version": "1", "cellEndpoints": {"one": "http://127.0.0.1:1"},
        "defaultPlacement": "one"}"#;
    let delta = Delta {
        head: Some(head.to_owned()),
        set: vec![("acme".to_owned(), "one".to_owned())],
        remove: Vec::new(),
    };
    let made = changed(&truth, Edit::Delta(delta)).await;
    assert_eq!(home(&made, "acme"), Some("one"));
    assert_eq!(store.numbers(), [(1, 0)]);
}

#[tokio::test]
async fn a_condition_is_held_against_the_newest() {
    let (truth, store) = founded().await;
    let first = truth.newest().unwrap();
    let old = Expected::OneOf(vec![Etag::of(first.record.mark())]);
    let second = truth.commit(set("acme", "two"), &old, author("edit")).await;
    assert!(matches!(second, Ok(Committed::Changed(_))), "{second:?}");
    for expected in [old, Expected::Nothing] {
        match truth
            .commit(set("acme", "one"), &expected, author("edit"))
            .await
        {
            Err(CommitError::Lost(Some(newest))) => assert_eq!(newest.record.generation, 2),
            other => panic!("{other:?}"),
        }
    }
    let (truth, _store) = empty().await;
    let edit = Edit::Document(document("1", &[]));
    let lost = truth
        .commit(edit, &Expected::Something, author("edit"))
        .await;
    assert!(matches!(lost, Err(CommitError::Lost(None))), "{lost:?}");
    assert_eq!(store.numbers(), [(1, 0), (2, 1)]);
}

/// Another control plane was first, which this one learns from the store.
/// What others added a moment ago counts, although nobody has told of it yet.
#[tokio::test]
async fn what_is_valid_for_the_newest_in_the_store_is_valid() {
    let (truth, store) = empty().await;
    let other = open(&store).await;
    changed(&other, Edit::Document(document("1", &[]))).await;
    let head = serde_json::json!({
        "version": "2",
        "cellEndpoints": {"one": "http://127.0.0.1:1", "three": "http://127.0.0.1:3"},
        "defaultPlacement": "one",
    });
    let head = Edit::Delta(Delta {
        head: Some(head.to_string()),
        ..Delta::default()
    });

    assert_eq!(
        changed(&truth, set("acme", "one")).await.record.generation,
        2
    );
    changed(&other, head).await;
    let made = changed(&truth, set("acme", "three")).await;
    assert_eq!(home(&made, "acme"), Some("three"));
    assert!(matches!(
        commit(&truth, set("acme", "four")).await,
        Err(CommitError::Invalid(_))
    ));
}

#[tokio::test]
async fn a_race_that_another_won() {
    let (truth, store) = founded().await;
    let mark = truth.newest().unwrap().record.mark();
    let other = open(&store).await;
    changed(&other, set("theirs", "two")).await;
    assert_eq!(truth.newest().unwrap().record.generation, 1);

    // A change that does not mind is made on top.
    let made = changed(&truth, set("ours", "one")).await;
    assert_eq!((made.record.generation, made.record.parent), (3, 2));
    assert_eq!(home(&made, "theirs"), Some("two"));
    // One that does is not made.
    let expected = Expected::OneOf(vec![Etag::of(mark)]);
    changed(&other, set("more", "two")).await;
    let lost = truth
        .commit(set("ours", "two"), &expected, author("edit"))
        .await;
    assert!(matches!(lost, Err(CommitError::Lost(Some(_)))), "{lost:?}");
    assert_eq!(store.numbers(), [(1, 0), (2, 1), (3, 2), (4, 3)]);
}

/// What was lost only because the other was first in the store, after the
/// condition held here.
#[tokio::test]
async fn a_race_that_is_lost_in_the_store() {
    let (truth, store) = founded().await;
    let expected = Expected::OneOf(vec![Etag::of(truth.newest().unwrap().record.mark())]);
    changed(&open(&store).await, set("theirs", "two")).await;
    let edit = set("acme", "two");
    match truth.commit(edit, &expected, author("edit")).await {
        Err(CommitError::Lost(Some(newest))) => assert_eq!(newest.record.generation, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.numbers(), [(1, 0), (2, 1)]);
}

#[tokio::test]
async fn many_writers_lose_no_update() {
    const EACH: usize = 50;
    let (truth, store) = founded().await;
    let other = open(&store).await;
    let mut writers = tokio::task::JoinSet::new();
    for (name, truth) in [("a", &truth), ("b", &other), ("c", &truth)] {
        let truth = Arc::clone(truth);
        writers.spawn(async move {
            for number in 0..EACH {
                changed(&truth, set(&format!("{name}-{number}"), "two")).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    truth.refresh().await.unwrap();
    let newest = truth.newest().unwrap();
    assert_eq!(newest.record.keys, 1 + 3 * EACH as u64);
    let expected: Vec<(u64, u64)> = (1..=1 + 3 * EACH as u64).map(|n| (n, n - 1)).collect();
    assert_eq!(store.numbers(), expected);
}

#[tokio::test]
async fn what_the_store_does_not_take_is_not_there() {
    let (truth, store) = founded().await;
    let full = StoreError("the disk is full".to_owned());
    store.fail(AppendError::Failed(full.clone()));
    match commit(&truth, set("acme", "two")).await {
        Err(CommitError::Store(error)) => assert_eq!(error, full),
        other => panic!("{other:?}"),
    }
    assert_eq!(truth.newest().unwrap().record.generation, 1);
    store.fail(AppendError::Unknown(full));
    let unknown = commit(&truth, set("acme", "two")).await;
    assert!(matches!(unknown, Err(CommitError::Unknown(_))));
    let made = changed(&truth, set("acme", "two")).await;
    assert_eq!(made.record.generation, 2);
}

#[tokio::test]
async fn being_overtaken_for_ever_ends() {
    let (truth, store) = founded().await;
    for _ in 0..50 {
        store.fail(AppendError::Conflict);
    }
    match commit(&truth, set("acme", "two")).await {
        Err(CommitError::Store(error)) => {
            assert!(error.0.contains("50 times"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    changed(&truth, set("acme", "two")).await;
}

#[tokio::test]
async fn a_change_is_carried_through_when_nobody_waits_for_it() {
    let (truth, store) = founded().await;
    let mut watch = truth.watch();
    watch.mark_unchanged();
    store.hold();
    let asked = commit(&truth, set("acme", "two"));
    let waited = tokio::time::timeout(Duration::from_millis(20), asked).await;
    assert!(waited.is_err(), "the store was to hold it");
    assert!(!watch.has_changed().unwrap());
    store.go();
    watch.changed().await.unwrap();
    let newest = truth.newest().unwrap();
    assert_eq!(home(&newest, "acme"), Some("two"));
    assert_eq!(store.numbers(), [(1, 0), (2, 1)]);
}
