//! Who is here, who is gone, and how much of that is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Arrival, Counts, Dialect, Edges, GONE_FOR, MOST_GONE, MOST_GONE_BYTES, lock};
use crate::control::core::tests::memory::Memory;
use crate::control::core::tests::{author, document, set};
use crate::control::core::{Edit, Expected, Truth};
use crate::control::store::Store;
use crate::protocol::Mark;
use crate::table::Problem;

async fn founded() -> (Arc<Truth>, Arc<Edges>) {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let truth = Truth::open(store).await.unwrap();
    change(&truth, Edit::Document(document("1", &[("acme", "one")]))).await;
    let edges = Edges::new(Arc::clone(&truth));
    (truth, edges)
}

async fn change(truth: &Arc<Truth>, edit: Edit) -> Mark {
    let made = truth.commit(edit, &Expected::Anything, author("edit"));
    made.await.unwrap().generation().record.mark()
}

fn arrival(edge_id: &str, held: Option<Mark>) -> Arrival {
    Arrival {
        edge_id: edge_id.to_owned(),
        instance: format!("{edge_id}-process"),
        peer: "127.0.0.1:4711".to_owned(),
        dialect: Dialect::V1,
        version: "0.1.0".to_owned(),
        labels: BTreeMap::new(),
        generation: held.map_or(0, |held| held.generation),
        digest: held.map(|held| held.digest),
    }
}

#[tokio::test]
async fn an_edge_is_in_sync_when_it_has_the_newest() {
    let (truth, edges) = founded().await;
    let first = truth.newest().unwrap().record.mark();
    let session = edges.join(arrival("edge-1", Some(first)));
    let _other = edges.join(arrival("edge-2", None));
    let counts = |edges: &Edges| {
        let Counts { connected, in_sync } = edges.counts();
        (connected, in_sync)
    };
    assert_eq!(counts(&edges), (2, 1));
    let second = change(&truth, set("acme", "two")).await;
    assert_eq!(counts(&edges), (2, 0));
    session.behind();
    session.acked(second.generation, Some(second.digest));
    assert_eq!(counts(&edges), (2, 1));
    // The right generation with another content is not it.
    session.acked(second.generation, Some(first.digest));
    assert_eq!(counts(&edges), (2, 0));
    let names: Vec<_> = edges.list().into_iter().map(|view| view.edge_id).collect();
    assert_eq!(names, ["edge-1", "edge-2"]);
    assert_eq!(edges.get("edge-3"), None);
}

#[tokio::test]
async fn an_edge_that_left_is_shown_until_it_is_back() {
    let (truth, edges) = founded().await;
    let mark = truth.newest().unwrap().record.mark();
    let mut session = edges.join(arrival("edge-1", Some(mark)));
    session.nacked(7, vec![Problem::without_place("no")]);
    session.ended("the edge closed with 1001".to_owned());
    drop(session);
    let view = edges.get("edge-1").unwrap();
    assert!(!view.connected && view.disconnected_at.is_some());
    assert_eq!(view.why.as_deref(), Some("the edge closed with 1001"));
    assert_eq!(view.last_nack.unwrap().generation, 7);
    assert_eq!(edges.list().len(), 1);
    assert_eq!(edges.counts().connected, 0);
    let session = edges.join(arrival("edge-1", Some(mark)));
    let view = edges.get("edge-1").unwrap();
    assert!(view.connected && view.last_nack.is_none());
    assert_eq!(edges.list().len(), 1);
    drop(session);
    assert_eq!(edges.list().len(), 1);
}

#[tokio::test]
async fn one_of_two_processes_that_leaves_is_not_shown_as_gone() {
    let (_truth, edges) = founded().await;
    let old = edges.join(arrival("edge-1", None));
    let mut next = arrival("edge-1", None);
    next.instance = "next".to_owned();
    let next = edges.join(next);
    assert_eq!(edges.list().len(), 2);
    drop(old);
    let list = edges.list();
    assert_eq!((list.len(), &*list[0].instance), (1, "next"));
    drop(next);
    assert!(!edges.list()[0].connected);
}

#[tokio::test]
async fn those_that_left_are_forgotten_in_time_and_when_there_are_too_many() {
    let (_truth, edges) = founded().await;
    for index in 0..=MOST_GONE {
        drop(edges.join(arrival(&format!("edge-{index:05}"), None)));
    }
    let list = edges.list();
    assert_eq!(list.len(), MOST_GONE);
    assert_eq!(list[0].edge_id, "edge-00001");
    // One that comes and goes takes the place of one, not of all.
    for _ in 0..3 {
        drop(edges.join(arrival("edge-00005", None)));
    }
    assert!(edges.list().len() > MOST_GONE - 4);
    let mut inner = lock(&edges.inner);
    inner.forget(Instant::now() + GONE_FOR - Duration::from_secs(60));
    assert!(!inner.gone.is_empty());
    inner.forget(Instant::now() + GONE_FOR);
    assert!(inner.gone.is_empty() && inner.order.is_empty());
}

#[tokio::test]
async fn whoever_waits_for_the_last_one_is_told() {
    let (_truth, edges) = founded().await;
    let session = edges.join(arrival("edge-1", None));
    let waiting = tokio::spawn({
        let edges = Arc::clone(&edges);
        async move { edges.none_left().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(session);
    waiting.await.unwrap();
}

#[tokio::test]
async fn what_edges_said_that_left_is_kept_within_bounds() {
    let (_truth, edges) = founded().await;
    let problems: Vec<_> = (0..10)
        .map(|_| Problem {
            pointer: "p".repeat(1000),
            ..Problem::without_place("m".repeat(1000))
        })
        .collect();
    // 20 KB each, of which two thousand are more than there is room for.
    let count = 2_000;
    for index in 0..count {
        let session = edges.join(arrival(&format!("edge-{index:05}"), None));
        session.nacked(7, problems.clone());
    }
    let list = edges.list();
    assert_eq!(list.len(), count);
    let told = |view: &super::EdgeView| {
        let nack = view.last_nack.as_ref().unwrap();
        assert_eq!(nack.generation, 7);
        !nack.problems.is_empty()
    };
    assert!(!told(&list[0]) && told(&list[count - 1]));
    let kept = list.iter().filter(|view| told(view)).count();
    assert!((1_000..count).contains(&kept), "{kept}");
    assert!(lock(&edges.inner).gone_bytes <= MOST_GONE_BYTES);

    // Of those that say too much of themselves, the first are forgotten.
    for index in 0..6_000 {
        let mut arrival = arrival(&format!("wordy-{index:05}"), None);
        let label = |label| (format!("label-{label:0100}"), "v".repeat(200));
        arrival.labels = (0..30).map(label).collect();
        drop(edges.join(arrival));
    }
    let list = edges.list();
    assert!((1_000..6_000).contains(&list.len()), "{}", list.len());
    assert_eq!(list[list.len() - 1].edge_id, "wordy-05999");
    let mut inner = lock(&edges.inner);
    assert!(inner.gone_bytes <= MOST_GONE_BYTES);
    inner.forget(Instant::now() + GONE_FOR);
    assert_eq!(inner.gone_bytes, 0);
}
