//! What edges lack, and what other control planes add.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Edit, Since, Truth};
use super::memory::Answers;
use super::{changed, document, empty, founded, home, open, set};
use crate::control::store::{AppendError, Generation, StoreError};
use crate::protocol::Mark;
use crate::protocol::limits::NUMBER_MAX;

/// The generations that someone lacks who has `held`.
fn steps(truth: &Truth, held: Mark) -> Vec<u64> {
    match truth.since(Some(held)) {
        Since::Steps(steps) => {
            assert_eq!(steps[0].from, held);
            steps.iter().map(|step| step.to.generation).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn mark(truth: &Truth) -> Mark {
    truth.newest().unwrap().record.mark()
}

#[tokio::test]
async fn an_edge_gets_what_it_lacks() {
    let (truth, _store) = empty().await;
    assert!(matches!(truth.since(None), Since::Nothing));
    changed(&truth, Edit::Document(document("1", &[("acme", "one")]))).await;
    let first = mark(&truth);
    assert!(matches!(truth.since(Some(first)), Since::Same));
    assert!(matches!(truth.since(None), Since::Whole(_)));
    changed(&truth, set("acme", "two")).await;
    let second = mark(&truth);
    changed(&truth, set("visa", "two")).await;
    assert_eq!(steps(&truth, first), [2, 3]);
    assert_eq!(steps(&truth, second), [3]);

    // The number of a generation with another content is worth nothing.
    for wrong in [
        Mark {
            digest: second.digest,
            ..first
        },
        Mark {
            digest: second.digest,
            ..mark(&truth)
        },
        Mark {
            generation: 0,
            ..first
        },
    ] {
        let since = truth.since(Some(wrong));
        assert!(
            matches!(&since, Since::Whole(newest) if newest.record.generation == 3),
            "{wrong:?}: {since:?}"
        );
    }
}

/// The generation of this number, when it is the newest.
async fn arrives(truth: &Truth, number: u64) -> Arc<Generation> {
    let mut watch = truth.watch();
    let is = |newest: &Option<Arc<Generation>>| {
        let number_of = |newest: &Arc<Generation>| newest.record.generation;
        newest.as_ref().map(number_of) == Some(number)
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(is)).await;
    let found = waited.unwrap_or_else(|_| panic!("no generation {number}"));
    found.unwrap().clone().unwrap()
}

#[tokio::test]
async fn an_edge_that_is_ahead_is_overtaken() {
    let (truth, store) = founded().await;
    let first = mark(&truth);
    let ahead = Mark {
        generation: 700,
        ..first
    };
    assert!(matches!(truth.since(Some(ahead)), Since::Ahead));
    truth.heard_of("edge-1", ahead.generation);
    truth.heard_of("edge-2", 20);
    let made = arrives(&truth, 701).await;
    assert_eq!(made.record.digest, first.digest);
    let author = &made.record.author;
    assert_eq!(
        (author.who.as_str(), author.what.as_str()),
        ("control", "overtake edges")
    );
    // For the others, it is a step that changes nothing.
    assert_eq!(steps(&truth, first), [701]);
    changed(&truth, set("acme", "two")).await;
    truth.heard_of("edge-1", 702);
    truth.refresh().await.unwrap();
    assert_eq!(store.numbers(), [(1, 0), (701, 1), (702, 701)]);
}

/// What another control plane made is not lost.
#[tokio::test]
async fn an_edge_that_heard_it_from_another_is_not_overtaken() {
    let (truth, store) = founded().await;
    let other = open(&store).await;
    let made = changed(&other, set("acme", "two")).await;
    truth.heard_of("edge-1", made.record.generation);
    let seen = arrives(&truth, 2).await;
    assert_eq!(seen.record, made.record);
    // Whoever holds the writer's lock comes after that.
    truth.refresh().await.unwrap();
    assert_eq!(store.numbers(), [(1, 0), (2, 1)]);
}

#[tokio::test]
async fn an_edge_is_overtaken_when_the_store_is_there_again() {
    let (truth, store) = founded().await;
    let full = || StoreError("the disk is full".to_owned());
    store.fail(AppendError::Failed(full()));
    store.fail(AppendError::Unknown(full()));
    truth.heard_of("edge-1", 9);
    arrives(&truth, 10).await;
    assert_eq!(store.numbers(), [(1, 0), (10, 1)]);
}

/// Before there is anything, the first generation is above it.
#[tokio::test]
async fn what_is_begun_anew_begins_above_the_edges() {
    let (truth, store) = empty().await;
    truth.heard_of("edge-1", 9);
    changed(&truth, Edit::Document(document("1", &[]))).await;
    assert_eq!(store.numbers(), [(10, 0)]);
}

/// There is room for generations whatever an edge says.
#[tokio::test]
async fn an_edge_that_claims_the_impossible_is_not_believed() {
    let (truth, _store) = founded().await;
    for impossible in [u64::MAX, NUMBER_MAX, (1 << 32) + 2] {
        truth.heard_of("edge-1", impossible);
    }
    let made = changed(&truth, set("acme", "two")).await;
    assert_eq!(made.record.generation, 2);
    let possible = (1 << 32) + 2;
    truth.heard_of("edge-1", possible);
    arrives(&truth, possible + 1).await;
}

#[tokio::test]
async fn a_restart_knows_the_last_steps() {
    let (truth, store) = founded().await;
    let first = mark(&truth);
    changed(&truth, set("acme", "two")).await;
    let second = mark(&truth);
    changed(&truth, set("visa", "two")).await;
    let again = open(&store).await;
    assert_eq!(steps(&again, first), [2, 3]);
    assert_eq!(steps(&again, second), [3]);
    changed(&again, set("visa", "one")).await;
    assert_eq!(steps(&again, first), [2, 3, 4]);
}

/// The store was restored from a backup and has gone on from there, to the very number
/// that is the newest here.
#[tokio::test]
async fn another_content_of_the_same_number_is_taken() {
    let (truth, store) = founded().await;
    changed(&truth, set("acme", "two")).await;
    let lost = mark(&truth);
    store.put_back(1);
    let other = open(&store).await;
    changed(&other, set("theirs", "two")).await;
    assert_eq!(mark(&other).generation, lost.generation);
    let made = changed(&truth, set("ours", "two")).await;
    assert_eq!((made.record.generation, made.record.parent), (3, 2));
    assert_eq!(home(&made, "theirs"), Some("two"));
    assert_eq!(home(&made, "acme"), Some("one"));
    // An edge that has what was lost gets everything.
    assert!(matches!(truth.since(Some(lost)), Since::Whole(_)));
    assert_eq!(store.numbers(), [(1, 0), (2, 1), (3, 2)]);
}

#[tokio::test]
async fn steps_of_others_are_steps_here() {
    let (truth, store) = founded().await;
    let first = mark(&truth);
    let other = open(&store).await;
    changed(&other, set("acme", "two")).await;
    changed(&other, Edit::Document(document("2", &[("visa", "two")]))).await;
    truth.refresh().await.unwrap();
    let newest = truth.newest().unwrap();
    assert_eq!(newest.record, other.newest().unwrap().record);
    assert_eq!(newest.table.digest(), newest.record.digest);
    assert_eq!(home(&newest, "acme"), None);
    assert_eq!(steps(&truth, first), [2, 3]);
}

#[tokio::test]
async fn what_comes_as_a_whole_or_with_a_gap_is_no_step() {
    for answers in [Answers::Whole, Answers::Gap] {
        let (truth, store) = founded().await;
        let first = mark(&truth);
        let other = open(&store).await;
        changed(&other, set("acme", "two")).await;
        changed(&other, set("visa", "two")).await;
        store.answer(answers);
        truth.refresh().await.unwrap();
        assert_eq!(mark(&truth), mark(&other), "{answers:?}");
        assert!(matches!(truth.since(Some(first)), Since::Whole(_)));
        // From here on, there are steps again.
        let third = mark(&truth);
        changed(&truth, set("visa", "one")).await;
        assert_eq!(steps(&truth, third), [4]);
    }
}

#[tokio::test]
async fn others_are_followed_also_after_the_store_was_gone() {
    let (truth, store) = founded().await;
    let other = open(&store).await;
    let following = tokio::spawn({
        let truth = Arc::clone(&truth);
        async move { truth.follow().await }
    });
    changed(&other, set("acme", "two")).await;
    arrives(&truth, 2).await;

    store.answer(Answers::Fails);
    changed(&other, set("visa", "two")).await;
    assert!(truth.refresh().await.is_err());
    assert_eq!(mark(&truth).generation, 2);
    store.answer(Answers::Steps);
    arrives(&truth, 3).await;
    following.abort();
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_not_opened() {
    let (_truth, store) = founded().await;
    store.answer(Answers::Fails);
    let opened = Truth::open(store).await;
    assert_eq!(opened.map(|_| ()).unwrap_err().to_string(), "it is gone");
}
