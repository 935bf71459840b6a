//! What an edge is sent when it comes, and when something changes.

use std::time::Duration;

use super::{Said, Setup, Site, digest};
use crate::control::connect::Times;
use crate::control::core::Edit;
use crate::protocol::{LastError, Load, Mark, Nack, Status, ToControl, ToEdge};
use crate::table::Problem;

fn nack(generation: u64, message: &str) -> ToControl {
    ToControl::Nack(Nack {
        generation,
        problems: vec![Problem::without_place(message)],
    })
}

#[tokio::test]
async fn a_change_reaches_an_edge_that_has_the_rest() {
    let site = Site::with(Setup::default(), 3).await;
    let first = site.mark();
    let (mut edge, welcome) = site.edge("edge-1", Some(first)).await;
    assert_eq!((&*welcome.control_id, welcome.generation), ("control-1", 1));
    assert_eq!(
        (welcome.digest, welcome.ping_seconds),
        (Some(first.digest), 15)
    );
    let made = site.set("key-0", "two").await;
    let delta = edge.delta().await;
    assert_eq!((delta.from, delta.mark()), (1, made.record.mark()));
    assert_eq!(delta.set, [("key-0".to_owned(), "two".to_owned())]);
    let view = site.edges.get("edge-1").unwrap();
    assert_eq!(
        (view.generation, view.in_sync, view.last_ack_at),
        (1, false, None)
    );
    edge.ack(delta.mark()).await;
    site.until("the ack", |site| site.edges.get("edge-1").unwrap().in_sync)
        .await;
    let view = site.edges.get("edge-1").unwrap();
    assert_eq!(
        (view.generation, view.digest),
        (2, Some(made.record.digest))
    );
    assert_eq!((view.sent.deltas, view.sent.snapshots), (1, 0));
    assert!(
        view.last_ack_at.is_some() && view.sent.bytes > 100,
        "{view:?}"
    );
    assert_eq!(site.metric("cellgate_control_push_seconds_count"), 1.0);
    assert_eq!(site.metric("cellgate_control_edges_in_sync"), 1.0);
    assert_eq!(
        site.metric("cellgate_control_edges{dialect=\"cellgate.v1\"}"),
        1.0
    );
}

#[tokio::test]
async fn what_happens_while_an_answer_is_awaited_is_folded() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edge = site.synced("edge-1").await;
    site.set("key-0", "two").await;
    let second = edge.delta().await.mark();
    for (key, placement) in [("new", "one"), ("key-0", "one"), ("new", "two")] {
        site.set(key, placement).await;
    }
    edge.ack(second).await;
    let delta = edge.delta().await;
    assert_eq!((delta.from, delta.mark()), (2, site.mark()));
    let mut set = delta.set.clone();
    set.sort();
    let expected = [("key-0", "one"), ("new", "two")];
    assert_eq!(
        set,
        expected.map(|(key, home)| (key.to_owned(), home.to_owned()))
    );
    edge.ack(delta.mark()).await;
    edge.nothing().await;
}

#[tokio::test]
async fn what_an_edge_missed_comes_when_it_is_back() {
    let site = Site::with(Setup::default(), 3).await;
    let first = site.mark();
    site.set("key-0", "two").await;
    site.set("key-1", "one").await;
    let (mut edge, welcome) = site.edge("edge-1", Some(first)).await;
    assert_eq!(welcome.generation, 3);
    let delta = edge.delta().await;
    assert_eq!((delta.from, delta.mark()), (1, site.mark()));
    assert_eq!(delta.set.len(), 2);
}

#[tokio::test]
async fn the_same_content_is_not_sent_again() {
    let site = Site::with(Setup::default(), 3).await;
    let mark = site.mark();
    // Read from a file, and from another control plane.
    for generation in [0, 1] {
        let held = Mark { generation, ..mark };
        let (mut edge, _) = site.edge("edge-1", Some(held)).await;
        edge.ack(mark).await;
        site.set("key-0", "two").await;
        let delta = edge.delta().await;
        assert_eq!(delta.from, mark.generation);
        site.commit(Edit::Document(super::document("1", 3))).await;
        // The edge has not answered: nothing more comes.
        edge.ack(delta.mark()).await;
        edge.delta().await;
        // Back to the first content, in a later generation.
        assert_eq!(site.mark().digest, mark.digest);
        if generation == 0 {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_refused_comes_again_only_when_asked_for() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edge = site.synced("edge-1").await;
    site.set("key-0", "two").await;
    let refused = edge.delta().await.generation;
    edge.send(nack(refused, "no such cell here")).await;
    site.until("the nack", |site| {
        site.edges.get("edge-1").unwrap().last_nack.is_some()
    })
    .await;
    let view = site.edges.get("edge-1").unwrap();
    let nack = view.last_nack.unwrap();
    assert_eq!(
        (nack.generation, view.generation, view.in_sync),
        (refused, 1, false)
    );
    assert_eq!(nack.problems[0].message, "no such cell here");
    assert_eq!(site.metric("cellgate_control_nacks_total"), 1.0);
    // The next generation is made of what the edge kept.
    let third = site.set("key-1", "one").await;
    let delta = edge.delta().await;
    assert_eq!((delta.from, delta.mark()), (1, third.record.mark()));
    assert_eq!(delta.set.len(), 2);
    edge.send(self::nack(3, "still not")).await;
    // The answer to a resync, and nothing before it.
    edge.nothing().await;
}

#[tokio::test]
async fn an_edge_with_more_than_there_is_gets_what_there_is_above_that() {
    let site = Site::with(Setup::default(), 3).await;
    let ahead = Mark {
        generation: 41,
        digest: digest(7),
    };
    let (mut edge, welcome) = site.edge("edge-1", Some(ahead)).await;
    assert_eq!(welcome.generation, 1);
    // The same content, under a number that it takes.
    let (mark, table, _) = edge.snapshot().await;
    assert_eq!(mark.generation, 42);
    assert_eq!(mark, site.mark());
    assert_eq!(table.digest(), mark.digest);
}

#[tokio::test]
async fn before_there_is_anything_edges_wait() {
    let site = Site::empty(Setup::default()).await;
    let (mut edge, welcome) = site.edge("edge-1", None).await;
    assert_eq!((welcome.generation, welcome.digest), (0, None));
    site.commit(Edit::Document(super::document("1", 2))).await;
    assert_eq!(edge.snapshot().await.0, site.mark());
}

#[tokio::test]
async fn checkpoints_say_what_an_edge_should_have() {
    let setup = Setup {
        times: Times {
            checkpoint: Duration::from_millis(100),
            ..Times::default()
        },
        ..Setup::default()
    };
    let site = Site::with(setup, 3).await;
    let mut edge = site.synced("edge-1").await;
    for _ in 0..3 {
        match edge.next().await {
            Said::Message(ToEdge::Checkpoint(checkpoint)) => {
                assert_eq!(checkpoint.mark(), site.mark());
            }
            other => panic!("{other:?} where a checkpoint was due"),
        }
    }
    // None while something is on its way: it would be taken for a loss.
    site.set("key-0", "two").await;
    let delta = loop {
        match edge.next().await {
            Said::Message(ToEdge::Checkpoint(_)) => {}
            Said::Message(ToEdge::Delta(delta)) => break delta,
            other => panic!("{other:?} where a delta was due"),
        }
    };
    let quiet = tokio::time::timeout(Duration::from_millis(500), edge.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    edge.ack(delta.mark()).await;
    assert!(matches!(
        edge.next().await,
        Said::Message(ToEdge::Checkpoint(_))
    ));
}

#[tokio::test]
async fn an_edge_that_does_not_answer_is_not_waited_for_forever() {
    let setup = Setup {
        times: Times {
            answer: Duration::from_millis(200),
            ..Times::default()
        },
        ..Setup::default()
    };
    let site = Site::with(setup, 3).await;
    let mut edge = site.synced("edge-1").await;
    site.set("key-0", "two").await;
    edge.delta().await;
    site.set("key-1", "one").await;
    let delta = edge.delta().await;
    assert_eq!((delta.from, delta.generation), (1, 3));
}

#[tokio::test]
async fn a_change_of_everything_but_keys_is_a_delta_with_a_head() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edge = site.synced("edge-1").await;
    site.commit(Edit::Document(super::document("2", 3))).await;
    let delta = edge.delta().await;
    assert!(delta.head.as_deref().unwrap().contains("\"version\":\"2\""));
    assert!(delta.set.is_empty() && delta.remove.is_empty());
}

#[tokio::test]
async fn a_status_is_shown_within_bounds() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edge = site.synced("edge-1").await;
    let load = |rate| Load {
        requests_per_second: rate,
        errors_per_second: 0.0,
        in_flight: 1,
    };
    let problems = (0..100).map(|index| Problem {
        pointer: format!("/{}", "p".repeat(4000)),
        line: 0,
        column: index,
        message: "é".repeat(2000),
    });
    let status = Status {
        generation: 1,
        digest: Some(site.mark().digest),
        serving_since: Some("2026-01-03T20:45:12Z".to_owned()),
        source: Some("control_plane".to_owned()),
        stale_seconds: 7,
        last_error: Some(LastError {
            at: "2026-01-03T20:46:00Z".to_owned(),
            problems: problems.take(20).collect(),
        }),
        placements: Some(
            (0..150)
                .map(|index| (format!("cell-{index}"), load(f64::from(index))))
                .collect(),
        ),
    };
    edge.send(ToControl::Status(status.clone())).await;
    // One that says nothing of the placements leaves them as they were.
    let later = Status {
        stale_seconds: 8,
        placements: None,
        ..status
    };
    edge.send(ToControl::Status(later)).await;
    site.until("the second status", |site| {
        let status = site.edges.get("edge-1").unwrap().status;
        status.is_some_and(|status| status.stale_seconds == 8)
    })
    .await;
    let status = site.edges.get("edge-1").unwrap().status.unwrap();
    assert_eq!((status.stale_seconds, status.placements_left_out), (8, 50));
    assert_eq!(status.placements.len(), 100);
    assert!(status.placements.contains_key("cell-149"));
    let problems = status.last_error.unwrap().problems;
    assert_eq!(problems.len(), 11);
    assert!(
        problems
            .iter()
            .all(|one| one.pointer.len() + one.message.len() < 2100)
    );
}
