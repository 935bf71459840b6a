//! The store in etcd while members die, stop and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cellgate::control::core::{CommitError, Committed, Edit, Expected, Truth};
use cellgate::control::store::{AppendError, Store};

use crate::etcd_store::{author, change, commit, document, set, store, truth};
use crate::harness::{EtcdCluster, eventually, within};

/// How many keys each writer sets in turn.
const KEYS: usize = 5;

/// The key that a writer's change sets, and its placement, which alternates from round to round. A change
/// that was made twice would show as one more generation, or as the wrong placement.
fn nth(name: &str, change: usize) -> (String, &'static str) {
    let key = format!("{name}-{}", change % KEYS);
    (key, ["two", "one"][change / KEYS % 2])
}

/// Sets one key after another until `stop`, and counts acknowledged changes. A change whose outcome is
/// unknown is repeated, which has no effect if it was made.
async fn write(
    truth: Arc<Truth>,
    name: &'static str,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> usize {
    for change in 0.. {
        if stop.load(Ordering::Relaxed) {
            return change;
        }
        let (key, placement) = nth(name, change);
        loop {
            let edit = set(&[&key], placement);
            match truth.commit(edit, &Expected::Anything, author()).await {
                Ok(Committed::Changed(_) | Committed::Unchanged(_)) => break,
                Err(CommitError::Store(error) | CommitError::Unknown(error)) => {
                    println!("{name}: {error}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    0
}

/// Two control planes write while `fault` happens. Afterwards nothing is lost, and both have the same
/// generation.
async fn under_writes(
    mut cluster: EtcdCluster,
    mut fault: impl AsyncFnMut(&mut EtcdCluster, usize),
) {
    let one = truth(&cluster.settings()).await;
    commit(&one, Edit::Document(document(1).into())).await;
    let other = truth(&cluster.settings()).await;
    let follows = [&one, &other].map(|truth| {
        let truth = Arc::clone(truth);
        tokio::spawn(async move { truth.follow().await })
    });
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let writers = [(&one, "one"), (&other, "other")].map(|(truth, name)| {
        tokio::spawn(write(
            Arc::clone(truth),
            name,
            Arc::clone(&stop),
            Arc::clone(&done),
        ))
    });
    let more = async |what: &str| {
        let before = done.load(Ordering::Relaxed);
        eventually(what, async || {
            (done.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    };
    more("writes before").await;
    let leader = cluster.leader().await;
    fault(&mut cluster, leader).await;
    more("writes after").await;
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.push(within("the last write", writer).await.expect("a writer"));
    }
    let newest = store(&cluster.settings()).newest().await;
    let newest = newest.expect("the newest").expect("the newest");
    for (name, written) in ["one", "other"].into_iter().zip(&written) {
        for change in written.saturating_sub(KEYS)..*written {
            let (key, placement) = nth(name, change);
            let found = crate::etcd_store::placement(&newest.table, &key);
            assert_eq!(found, Some(placement), "{key} after {written}");
        }
    }
    // One generation for each change: none was made twice.
    let all = written.iter().sum::<usize>() as u64;
    assert_eq!(newest.record.generation, 1 + all);
    for truth in [&one, &other] {
        eventually("the same", async || {
            let seen = truth.newest().expect("the newest");
            (seen.record.mark() == newest.record.mark()).then_some(())
        })
        .await;
    }
    follows.iter().for_each(|follow| follow.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_while_two_write() {
    let cluster = EtcdCluster::start().await;
    under_writes(cluster, async |cluster, leader| cluster.kill(leader)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_is_restarted_in_turn_while_two_write() {
    let cluster = EtcdCluster::start().await;
    under_writes(cluster, async |cluster, _| {
        for index in 0..3 {
            cluster.kill(index);
            cluster.restart(index);
            cluster.leader().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_stops_while_two_write_and_goes_on_later() {
    let cluster = EtcdCluster::start().await;
    under_writes(cluster, async |cluster, leader| {
        cluster.pause(leader);
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        cluster.leader_among(&others).await;
        cluster.resume(leader);
    })
    .await;
}

/// The watch is at the member that stops: changes of others are still seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_falls_silent_is_noticed() {
    let cluster = EtcdCluster::start().await;
    let one = truth(&cluster.settings()).await;
    commit(&one, Edit::Document(document(1).into())).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let mut settings = cluster.settings();
    // This member first, and one to fall back to.
    settings.endpoints = vec![
        settings.endpoints[follower].clone(),
        settings.endpoints[leader].clone(),
    ];
    let other = truth(&settings).await;
    let following = Arc::clone(&other);
    let follow = tokio::spawn(async move { following.follow().await });
    let mut watch = other.watch();
    for change in 0..2 {
        if change == 1 {
            cluster.pause(follower);
        }
        let mark = loop {
            let edit = set(&[&format!("key-{change}")], "two");
            // Its own member may be the one that stopped.
            if let Ok(committed) = one.commit(edit, &Expected::Anything, author()).await {
                break committed.generation().record.mark();
            }
        };
        let seen =
            watch.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.record.mark() == mark));
        within("the change", seen).await.expect("the truth");
    }
    follow.abort();
    cluster.resume(follower);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_cluster_goes_and_comes_back() {
    let mut cluster = EtcdCluster::start().await;
    let one = truth(&cluster.settings()).await;
    commit(&one, Edit::Document(document(5).into())).await;
    let last = commit(&one, set(&["acme"], "two")).await;
    let follower = Arc::clone(&one);
    let follow = tokio::spawn(async move { follower.follow().await });
    for index in 0..3 {
        cluster.kill(index);
    }
    let store = store(&cluster.settings());
    let lost = change(&last, "lost");
    // No member received the change, so its failure is certain.
    let result = within("a refusal", one.store().append(&lost)).await;
    assert!(matches!(result, Err(AppendError::Failed(_))), "{result:?}");
    let error = within("an error", store.newest())
        .await
        .expect_err("nobody answers");
    assert!(error.0.contains("onnection refused"), "{error}");
    // The newest generation is still served.
    assert_eq!(
        one.newest().expect("the newest").record.mark(),
        last.record.mark()
    );

    for index in 0..3 {
        cluster.restart(index);
    }
    cluster.leader().await;
    let next = commit(&one, set(&["visa"], "two")).await;
    assert_eq!(next.record.generation, 3);
    let newest = store
        .newest()
        .await
        .expect("the newest")
        .expect("the newest");
    assert_eq!(newest.record.mark(), next.record.mark());
    assert_eq!(newest.table.key_count(), 7);
    assert!(newest.table.placement_of("lost").is_none());
    follow.abort();
}

/// With two of three members gone, the outcome of a change is unknown, and reported as such.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_added() {
    let mut cluster = EtcdCluster::start().await;
    let one = truth(&cluster.settings()).await;
    commit(&one, Edit::Document(document(1).into())).await;
    let leader = cluster.leader().await;
    let gone = [(leader + 1) % 3, (leader + 2) % 3];
    gone.iter().for_each(|&index| cluster.kill(index));
    let refused = within(
        "a refusal",
        one.commit(set(&["acme"], "two"), &Expected::Anything, author()),
    );
    let refused = refused.await.expect_err("no majority");
    assert!(
        matches!(refused, CommitError::Store(_) | CommitError::Unknown(_)),
        "{refused:?}"
    );

    gone.iter().for_each(|&index| cluster.restart(index));
    cluster.leader().await;
    // Whatever its outcome was, repeating the change leads to one generation.
    let asked = one.commit(set(&["acme"], "two"), &Expected::Anything, author());
    let generation = within("a commit", asked).await.expect("a commit");
    assert_eq!(generation.generation().record.generation, 2);
    let newest = store(&cluster.settings()).newest().await;
    assert_eq!(newest.expect("it").expect("it").table.key_count(), 2);
}
