//! The store in etcd, over a real and healthy cluster.

use std::collections::HashSet;
use std::sync::Arc;

use cellgate::control::core::{Committed, Edit, Expected, Since, Truth};
use cellgate::control::settings::EtcdSettings;
use cellgate::control::store::etcd::EtcdStore;
use cellgate::control::store::{AppendError, Author, Commit, Generation, News, Record, Store};
use cellgate::table::{self, Delta, RoutingTable};
use serde_json::json;

use crate::harness::{Etcd, EtcdCluster, eventually, within};

pub fn store(settings: &EtcdSettings) -> Arc<EtcdStore> {
    Arc::new(EtcdStore::new(settings, 1_000).expect("a store"))
}

/// A truth over a store of its own, as in a control plane.
pub async fn truth(settings: &EtcdSettings) -> Arc<Truth> {
    truth_with(settings, 1_000).await
}

pub async fn truth_with(settings: &EtcdSettings, history: u64) -> Arc<Truth> {
    let store = EtcdStore::new(settings, history).expect("a store");
    let truth = within("a truth", Truth::open(Arc::new(store))).await;
    truth.expect("a truth")
}

pub fn document(keys: usize) -> Vec<u8> {
    let table: serde_json::Map<String, serde_json::Value> = (0..keys)
        .map(|key| (format!("tenant-{key:07}"), json!("one")))
        .collect();
    let document = json!({
        "version": "1",
        "routingTable": table,
        "cellEndpoints": {"one": "http://127.0.0.1:9001", "two": "http://127.0.0.1:9002"},
        "defaultPlacement": "one",
    });
    document.to_string().into_bytes()
}

pub fn set(keys: &[&str], placement: &str) -> Edit {
    let set = keys
        .iter()
        .map(|&key| (key.to_owned(), placement.to_owned()));
    Edit::Delta(Delta {
        set: set.collect(),
        ..Delta::default()
    })
}

pub fn author() -> Author {
    Author {
        who: "test".to_owned(),
        from: "127.0.0.1".to_owned(),
        what: "set".to_owned(),
    }
}

pub async fn commit(truth: &Arc<Truth>, edit: Edit) -> Arc<Generation> {
    let committed = truth.commit(edit, &Expected::Anything, author()).await;
    match committed.expect("a commit") {
        Committed::Changed(generation) => generation,
        Committed::Unchanged(generation) => panic!("unchanged: {:?}", generation.record),
    }
}

/// A commit of one key on top of `parent`, as a truth would make it.
pub fn change(parent: &Generation, key: &str) -> Commit {
    let delta = Delta {
        set: vec![(key.to_owned(), "two".to_owned())],
        ..Delta::default()
    };
    let table = Arc::new(parent.table.apply(&delta).expect("a table"));
    let record = Record {
        generation: parent.record.generation + 1,
        parent: parent.record.generation,
        digest: table.digest(),
        keys: table.key_count() as u64,
        set: 1,
        removed: 0,
        id: format!("{:032x}", rand::random::<u128>()),
        ..parent.record.clone()
    };
    Commit {
        record,
        parent: Some(parent.record.mark()),
        delta: Some(Arc::new(delta)),
        table,
    }
}

pub fn placement<'t>(table: &'t RoutingTable, key: &str) -> Option<&'t str> {
    let id = table.placement_of(key)?;
    Some(&table.placement(id).name)
}

fn numbers(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.generation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_generation_follows_another_and_all_can_be_read() {
    let etcd = Etcd::shared().await;
    let settings = etcd.settings();
    let store = store(&settings);
    assert!(store.newest().await.expect("nothing").is_none());
    assert!(matches!(store.since(0).await, Ok(News::Nothing)));
    assert_eq!(store.records(None, 10).await, Ok(vec![]));
    assert!(store.generation(1).await.expect("nothing").is_none());

    let truth = truth(&settings).await;
    let first = commit(&truth, Edit::Document(document(3).into())).await;
    let second = commit(&truth, set(&["acme"], "two")).await;
    let mut third = Delta {
        remove: vec!["tenant-0000001".to_owned()],
        ..Delta::default()
    };
    let head = r#"{"version":"2","cellEndpoints":{"one":"http://127.0.0.1:9003","two":"http://127.0.0.1:9002"},"defaultPlacement":"two"}"#;
    third.head = Some(head.to_owned());
    let third = commit(&truth, Edit::Delta(third)).await;

    for expected in [&first, &second, &third] {
        let generation = expected.record.generation;
        let found = store.generation(generation).await.expect("a generation");
        let found = found.expect("a generation");
        // Times are stored to the millisecond.
        let mut record = expected.record.clone();
        record.at = found.record.at;
        assert_eq!(found.record, record);
        assert_eq!(found.table.digest(), expected.table.digest());
    }
    assert!(store.generation(4).await.expect("nothing").is_none());
    let newest = store
        .newest()
        .await
        .expect("the newest")
        .expect("the newest");
    assert_eq!(newest.record.mark(), third.record.mark());
    assert_eq!(newest.table.version(), "2");
    assert_eq!(placement(&newest.table, "acme"), Some("two"));
    assert_eq!(placement(&newest.table, "tenant-0000001"), None);

    let records = store.records(None, 10).await.expect("records");
    assert_eq!(numbers(&records), [3, 2, 1]);
    let records = store.records(Some(3), 1).await.expect("records");
    assert_eq!(numbers(&records), [2]);

    assert!(matches!(store.since(3).await, Ok(News::Nothing)));
    let Ok(News::Steps(steps)) = store.since(1).await else {
        panic!("no steps");
    };
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[1].0.mark(), third.record.mark());
    // The first generation has no parent.
    assert!(matches!(store.since(0).await, Ok(News::Whole(_))));
    assert!(store.since(9).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_made_of_the_newest_is_added() {
    let etcd = Etcd::shared().await;
    let truth = truth(&etcd.settings()).await;
    let first = commit(&truth, Edit::Document(document(1).into())).await;
    let (one, other) = (store(&etcd.settings()), store(&etcd.settings()));
    let (mine, theirs) = (change(&first, "acme"), change(&first, "visa"));
    assert_eq!(one.append(&mine).await, Ok(()));
    assert_eq!(other.append(&theirs).await, Err(AppendError::Conflict));
    // The first commit again, as if its response had been lost.
    assert_eq!(one.append(&mine).await, Err(AppendError::Conflict));
    let newest = other
        .newest()
        .await
        .expect("the newest")
        .expect("the newest");
    assert_eq!(newest.record.id, mine.record.id);
    assert_eq!(placement(&newest.table, "visa"), None);
}

/// Two control planes write as fast as they can.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_race_nothing_is_lost() {
    const EACH: usize = 100;
    let etcd = Etcd::shared().await;
    let (one, other) = (truth(&etcd.settings()).await, truth(&etcd.settings()).await);
    commit(&one, Edit::Document(document(1).into())).await;
    let write = |truth: Arc<Truth>, name: &'static str| async move {
        for change in 0..EACH {
            commit(&truth, set(&[&format!("{name}-{change}")], "two")).await;
        }
    };
    tokio::join!(
        write(Arc::clone(&one), "one"),
        write(Arc::clone(&other), "other")
    );

    let newest = store(&etcd.settings()).newest().await;
    let newest = newest.expect("the newest").expect("the newest");
    assert_eq!(newest.table.key_count(), 1 + 2 * EACH);
    assert_eq!(newest.record.generation, 1 + 2 * EACH as u64);
    for truth in [&one, &other] {
        truth.refresh().await.expect("a refresh");
        let seen = truth.newest().expect("the newest");
        assert_eq!(seen.record.mark(), newest.record.mark());
    }
    let records = one.store().records(None, 1_000).await.expect("records");
    let ids: HashSet<&str> = records.iter().map(|record| &*record.id).collect();
    assert_eq!(ids.len(), 1 + 2 * EACH);
    for pair in records.windows(2) {
        assert_eq!(pair[0].parent, pair[1].generation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_by_the_others_at_once() {
    let etcd = Etcd::shared().await;
    let one = truth(&etcd.settings()).await;
    commit(&one, Edit::Document(document(1).into())).await;
    let other = truth(&etcd.settings()).await;
    let follower = Arc::clone(&other);
    let follow = tokio::spawn(async move { follower.follow().await });
    let mut watch = other.watch();
    let mut latencies = Vec::new();
    for change in 0..20 {
        let mark = commit(&one, set(&[&format!("key-{change}")], "two")).await;
        let mark = mark.record.mark();
        let begun = std::time::Instant::now();
        let seen =
            watch.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.record.mark() == mark));
        within("the change", seen).await.expect("the truth");
        latencies.push(begun.elapsed());
        // The truth has it as a delta, so edges need no snapshot.
        let held = other.newest().expect("the newest").record.parent;
        let held = one.store().generation(held).await.expect("it").expect("it");
        assert!(matches!(
            other.since(Some(held.record.mark())),
            Since::Steps(_)
        ));
    }
    follow.abort();
    latencies.sort();
    println!("seen by the other after {:?} (median)", latencies[10]);
    // By the watch: without it, the store looks every 3 s, and half of the changes would wait 1.5 s or more.
    assert!(latencies[10].as_millis() < 1_000, "{latencies:?}");
}

/// 200,000 keys in one change: a reader sees all of them or none, however often it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_change_is_seen_whole_or_not_at_all() {
    const KEYS: usize = 200_000;
    let etcd = Etcd::shared().await;
    let one = truth(&etcd.settings()).await;
    commit(&one, Edit::Document(document(10).into())).await;
    let looking = {
        let store = store(&etcd.settings());
        tokio::spawn(async move {
            let mut looks = 0;
            loop {
                let newest = store
                    .newest()
                    .await
                    .expect("the newest")
                    .expect("the newest");
                looks += 1;
                match (newest.record.generation, newest.table.key_count()) {
                    (1, 10) => {}
                    (2, keys) if keys == 10 + KEYS => return looks,
                    other => panic!("half of a change: {other:?}"),
                }
            }
        })
    };
    let delta = Delta {
        set: (0..KEYS)
            .map(|key| {
                (
                    format!("bulk-{key:07}-{:016x}", rand::random::<u64>()),
                    "two".to_owned(),
                )
            })
            .collect(),
        ..Delta::default()
    };
    let changed = commit(&one, Edit::Delta(delta)).await;
    let looks = looking.await.expect("looks");
    println!("{looks} looks while it was written");
    let pieces = etcd.keys("blobs/").await;
    assert!(pieces.len() > 3, "{pieces:?}");

    // A follower gets it as a delta, and a new store reads it whole.
    let store = store(&etcd.settings());
    let Ok(News::Steps(steps)) = store.since(1).await else {
        panic!("no steps");
    };
    assert_eq!(steps[0].1.set.len(), KEYS);
    let newest = store
        .newest()
        .await
        .expect("the newest")
        .expect("the newest");
    assert_eq!(newest.table.digest(), changed.table.digest());
}

/// A history of 20: bases are written, and older generations are deleted with all their keys.
#[tokio::test(flavor = "multi_thread")]
async fn history_is_bounded_and_all_of_it_can_be_read() {
    const HISTORY: usize = 20;
    let etcd = Etcd::shared().await;
    let settings = etcd.settings();
    let one = truth_with(&settings, HISTORY as u64).await;
    commit(&one, Edit::Document(document(2_000).into())).await;
    let mut marks = vec![one.newest().expect("the first").record.mark()];
    for change in 0..100 {
        // Large changes are stored in blobs.
        let keys = if change % 7 == 0 { 1_500 } else { 1 };
        let keys: Vec<String> = (0..keys)
            .map(|key| format!("key-{key:040}-{change}"))
            .collect();
        let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
        marks.push(commit(&one, set(&keys, "two")).await.record.mark());
    }
    let newest = marks.last().expect("marks").generation;
    let kept = eventually("an end of history", async || {
        let kept = etcd.keys("commits/").await;
        (kept.len() <= 2 * HISTORY + 5).then_some(kept)
    })
    .await;
    assert!(kept.len() >= HISTORY, "{kept:?}");
    assert!(etcd.keys("bases/").await.len() <= 4);

    let fresh = store(&settings);
    for mark in marks.iter().rev().take(HISTORY) {
        let found = fresh.generation(mark.generation).await.expect("it");
        assert_eq!(found.expect("in history").table.digest(), mark.digest);
    }
    assert!(fresh.generation(1).await.expect("nothing").is_none());
    let records = fresh.records(None, 1_000).await.expect("records");
    assert_eq!(
        records.first().map(|record| record.generation),
        Some(newest)
    );
    assert!(matches!(fresh.since(1).await, Ok(News::Whole(_))));
    let seen = truth(&settings).await.newest().expect("the newest");
    assert_eq!(seen.record.mark(), *marks.last().expect("marks"));

    // No blob is left without a generation that refers to it.
    let oldest = records.last().expect("a record").generation;
    for blob in etcd.keys("blobs/").await {
        let generation: u64 = blob["blobs/".len()..][..20].parse().expect("a generation");
        assert!(generation >= oldest, "{blob}");
    }
}

/// Blobs of a change that was never committed, such as those of a killed process, are deleted once the change
/// can no longer be committed, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_deleted() {
    let etcd = Etcd::shared().await;
    let settings = etcd.settings();
    let one = truth_with(&settings, 10).await;
    commit(&one, Edit::Document(document(1).into())).await;
    let mut client = etcd.client().await;
    let ids = [
        "00000000000000000012-c-0123456789abcdef0123456789abcdef",
        "00000000000000000012-b-0123456789abcdef0123456789abcdef",
        "00000000000000001000-c-0123456789abcdef0123456789abcdef",
    ];
    for id in ids {
        for piece in 0..2 {
            let key = etcd.key(&format!("blobs/{id}/{piece:010}"));
            client.put(key, "piece", None).await.expect("put");
        }
    }
    let mut change = 0;
    eventually("orphans are deleted", async || {
        change += 1;
        commit(&one, set(&[&format!("key-{change}")], "two")).await;
        let left = etcd.keys("blobs/").await;
        let has = |id: &str| left.iter().any(|key| key.contains(id));
        assert!(has(ids[2]), "{left:?}");
        (!has(ids[0]) && !has(ids[1])).then_some(())
    })
    .await;
    truth(&settings).await;
}

/// The store does not depend on etcd's own history.
#[tokio::test(flavor = "multi_thread")]
async fn compaction_is_survived() {
    let cluster = EtcdCluster::start_one().await;
    let one = truth(&cluster.settings()).await;
    commit(&one, Edit::Document(document(1).into())).await;
    let other = truth(&cluster.settings()).await;
    let follower = Arc::clone(&other);
    let follow = tokio::spawn(async move { follower.follow().await });
    let mut client = cluster.client().await;
    for change in 0..20 {
        let mark = commit(&one, set(&[&format!("key-{change}")], "two")).await;
        let mark = mark.record.mark();
        let status = client.get("/cellgate/head", None).await.expect("the head");
        let revision = status.header().expect("a header").revision();
        client.compact(revision, None).await.expect("a compaction");
        let mut watch = other.watch();
        let seen =
            watch.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.record.mark() == mark));
        within("the change", seen).await.expect("the truth");
    }
    follow.abort();
    let newest = truth(&cluster.settings()).await.newest();
    assert_eq!(newest.expect("the newest").table.key_count(), 21);
}

/// Foreign values are reported and left in place.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_an_error() {
    let etcd = Etcd::shared().await;
    let mut client = etcd.client().await;
    client
        .put(etcd.key("head"), "hello", None)
        .await
        .expect("put");
    let error = store(&etcd.settings())
        .newest()
        .await
        .expect_err("an error");
    assert!(
        error
            .0
            .contains(&format!("{:?} is not one of cellgate's", etcd.key("head"))),
        "{error}"
    );

    // A later format is named in the error, and a damaged generation is not served.
    let mut settings = etcd.settings();
    settings.prefix = etcd.key("b/");
    let one = truth(&settings).await;
    commit(&one, Edit::Document(document(1).into())).await;
    commit(&one, set(&["acme"], "two")).await;
    let key = etcd.key(&format!("b/commits/{:020}", 2));
    let found = client.get(&*key, None).await.expect("it");
    let value = found.kvs()[0].value_str().expect("JSON").to_owned();
    client
        .put(&*key, value.replace("acme", "acne"), None)
        .await
        .expect("put");
    let error = store(&settings).newest().await.expect_err("an error");
    assert!(
        error.0.contains("generation 2 is damaged: its digest is"),
        "{error}"
    );
    let later = value.replace("\"format\":1", "\"format\":2");
    client.put(&*key, later, None).await.expect("put");
    let error = store(&settings).newest().await.expect_err("an error");
    assert!(error.0.contains("has the format 2 (known: 1)"), "{error}");
    client.put(&*key, value, None).await.expect("put");
    let newest = store(&settings).newest().await.expect("it").expect("it");
    assert_eq!(
        table::compile(&document(1)).expect("a table").key_count() + 1,
        newest.table.key_count()
    );
}

/// etcd is restored to an earlier state and continues up to the generation number that was the newest.
#[tokio::test(flavor = "multi_thread")]
async fn another_content_of_the_same_number_is_noticed() {
    let etcd = Etcd::shared().await;
    let one = truth(&etcd.settings()).await;
    commit(&one, Edit::Document(document(1).into())).await;
    commit(&one, set(&["lost"], "two")).await;
    let mut client = etcd.client().await;
    let all = etcd_client::DeleteOptions::new().with_prefix();
    client
        .delete(etcd.key(""), Some(all))
        .await
        .expect("delete");
    let other = truth(&etcd.settings()).await;
    commit(&other, Edit::Document(document(1).into())).await;
    commit(&other, set(&["theirs"], "two")).await;

    let made = commit(&one, set(&["ours"], "two")).await;
    assert_eq!((made.record.generation, made.record.parent), (3, 2));
    let newest = store(&etcd.settings()).newest().await;
    let newest = newest.expect("the newest").expect("the newest");
    assert_eq!(newest.record.mark(), made.record.mark());
    for (key, expected) in [
        ("ours", Some("two")),
        ("theirs", Some("two")),
        ("lost", None),
    ] {
        assert_eq!(placement(&newest.table, key), expected, "{key}");
    }
}

/// A new truth knows the last deltas, so that edges that missed them need no snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_knows_the_last_steps() {
    let etcd = Etcd::shared().await;
    let one = truth(&etcd.settings()).await;
    let mut marks = vec![
        commit(&one, Edit::Document(document(1).into()))
            .await
            .record
            .mark(),
    ];
    for change in 0..5 {
        // One of them is stored in a blob.
        let keys = if change == 2 { 2_000 } else { 1 };
        let keys: Vec<String> = (0..keys)
            .map(|key| format!("key-{key:040}-{change}"))
            .collect();
        let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
        marks.push(commit(&one, set(&keys, "two")).await.record.mark());
    }
    let again = truth(&etcd.settings()).await;
    for (index, mark) in marks.iter().enumerate().take(5) {
        match again.since(Some(*mark)) {
            Since::Steps(steps) => assert_eq!(steps.len(), 5 - index),
            other => panic!("{other:?}"),
        }
    }
    let few = one.store().recent(2, usize::MAX).await.expect("steps");
    assert_eq!(few.len(), 2);
    assert_eq!((few[0].from, few[1].to), (marks[3], marks[5]));
    let small = one.store().recent(9, 1_000).await.expect("steps");
    assert!(small.len() < 3, "{}", small.len());
}
