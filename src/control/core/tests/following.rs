//! What edges lack, and what other control planes add.

use std::sync::Arc;

use super::super::{Edit, Since, Truth};
use super::memory::Answers;
use super::{changed, document, empty, founded, home, open, set};
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

#[tokio::test]
async fn an_edge_that_is_ahead_is_overtaken() {
    let (truth, store) = founded().await;
    let ahead = Mark {
        generation: 700,
        ..mark(&truth)
    };
    assert!(matches!(truth.since(Some(ahead)), Since::Ahead));
    truth.heard_of(ahead.generation);
    truth.heard_of(20);
    let made = changed(&truth, set("acme", "two")).await;
    assert_eq!((made.record.generation, made.record.parent), (701, 1));
    changed(&truth, set("acme", "one")).await;
    assert_eq!(store.numbers(), [(1, 0), (701, 1), (702, 701)]);
    assert_eq!(steps(&truth, made.record.mark()), [702]);
}

/// There is room for generations whatever an edge says.
#[tokio::test]
async fn an_edge_that_claims_the_impossible_is_not_believed() {
    let (truth, _store) = founded().await;
    truth.heard_of(u64::MAX);
    truth.heard_of(NUMBER_MAX);
    let made = changed(&truth, set("acme", "two")).await;
    assert_eq!(made.record.generation, 2);
    truth.heard_of(NUMBER_MAX / 2);
    let made = changed(&truth, set("acme", "one")).await;
    assert_eq!(made.record.generation, NUMBER_MAX / 2 + 1);
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
    let mut watch = truth.watch();
    let following = tokio::spawn({
        let truth = Arc::clone(&truth);
        async move { truth.follow().await }
    });
    let arrives = |generation: u64| {
        move |newest: &Option<Arc<crate::control::store::Generation>>| {
            newest
                .as_ref()
                .is_some_and(|newest| newest.record.generation == generation)
        }
    };
    changed(&other, set("acme", "two")).await;
    watch.wait_for(arrives(2)).await.unwrap();

    store.answer(Answers::Fails);
    changed(&other, set("visa", "two")).await;
    assert!(truth.refresh().await.is_err());
    assert_eq!(mark(&truth).generation, 2);
    store.answer(Answers::Steps);
    watch.wait_for(arrives(3)).await.unwrap();
    following.abort();
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_not_opened() {
    let (_truth, store) = founded().await;
    store.answer(Answers::Fails);
    let opened = Truth::open(store).await;
    assert_eq!(opened.map(|_| ()).unwrap_err().to_string(), "it is gone");
}
