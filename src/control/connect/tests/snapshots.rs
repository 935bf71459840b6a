//! Whole tables.

use std::time::Duration;

use super::{Client, Said, Setup, Site, digest};
use crate::control::connect::{Limits, Times};
use crate::control::core::Edit;
use crate::protocol::{ChunkHeader, Mark, Nack, Resync, ToControl, ToEdge};
use crate::table::Problem;

/// Makes two chunks besides the head.
const MANY: usize = 20_000;

fn resync() -> ToControl {
    let reason = "generation 1 has another digest here".to_owned();
    ToControl::Resync(Resync { reason })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_has_nothing_is_sent_everything() {
    let site = Site::with(Setup::default(), MANY).await;
    let (mut edge, _) = site.edge("edge-1", None).await;
    let (mark, table, id) = edge.snapshot().await;
    assert_eq!((mark, id), (site.mark(), 1));
    assert_eq!((table.key_count(), table.digest()), (MANY, mark.digest));
    edge.ack(mark).await;
    site.until("the ack", |site| site.edges.get("edge-1").unwrap().in_sync)
        .await;
    assert_eq!(site.edges.get("edge-1").unwrap().sent.snapshots, 1);
    let bytes = site.metric("cellgate_control_sent_bytes_total");
    assert!(bytes < 200e3, "{bytes} bytes");
    // What follows is a delta again.
    site.set("key-0", "two").await;
    assert_eq!(edge.delta().await.from, 1);
}

#[tokio::test]
async fn what_no_delta_leads_to_is_a_snapshot() {
    let site = Site::with(Setup::default(), 10).await;
    site.set("key-0", "two").await;
    for held in [
        // Of another line, of one that is not known any more, and of no digest.
        Mark {
            generation: 2,
            digest: digest(1),
        },
        Mark {
            generation: 1,
            digest: digest(1),
        },
    ] {
        let (mut edge, _) = site.edge("edge-1", Some(held)).await;
        assert_eq!(edge.snapshot().await.0, site.mark());
    }
}

#[tokio::test]
async fn a_bulk_change_larger_than_the_table_is_a_snapshot() {
    let site = Site::with(Setup::default(), 10).await;
    let mut edge = site.synced("edge-1").await;
    site.commit(Edit::Document(super::document("2", 1500)))
        .await;
    let delta = edge.delta().await;
    assert_eq!(delta.set.len(), 1490);
    edge.ack(delta.mark()).await;
    // 1490 keys go where 10 stay.
    site.commit(Edit::Document(super::document("3", 10))).await;
    assert_eq!(edge.snapshot().await.0, site.mark());
}

#[tokio::test]
async fn a_resync_is_answered_each_time_but_not_at_any_rate() {
    let setup = Setup {
        times: Times {
            snapshot_backoff: Duration::from_millis(100),
            ..Times::default()
        },
        ..Setup::default()
    };
    let site = Site::with(setup, 10).await;
    let mut edge = site.synced("edge-1").await;
    let start = std::time::Instant::now();
    for id in 1..=4 {
        edge.send(resync()).await;
        assert_eq!(edge.snapshot().await.2, id);
    }
    // 100, 200 and 400 ms in between, as none was of use.
    assert!(start.elapsed() >= Duration::from_millis(700));
    edge.ack(site.mark()).await;
    site.set("key-0", "two").await;
    edge.delta().await;
}

/// Chunks of ten megabytes.
const ALL: u32 = 51;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_before_the_end_saves_the_rest() {
    let site = Site::large(Setup::default(), 10).await;
    for refused in [false, true] {
        let mut edge = Client::narrow(&site).await;
        edge.hello("edge-1", None).await;
        edge.welcome().await;
        let begin = match edge.next().await {
            Said::Message(ToEdge::SnapshotBegin(begin)) => begin,
            other => panic!("{other:?}"),
        };
        if refused {
            let problems = vec![Problem::without_place("more keys than this edge takes")];
            let generation = begin.generation;
            edge.send(ToControl::Nack(Nack {
                generation,
                problems,
            }))
            .await;
        } else {
            edge.ack(begin.mark()).await;
        }
        let end = loop {
            match edge.next().await {
                Said::Chunk(_) => {}
                Said::Message(ToEdge::SnapshotEnd(end)) => break end,
                other => panic!("{other:?}"),
            }
        };
        assert!(end.chunks < ALL, "all {} chunks came", end.chunks);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resync_within_a_snapshot_begins_another() {
    let setup = Setup {
        times: Times {
            snapshot_backoff: Duration::from_millis(10),
            ..Times::default()
        },
        ..Setup::default()
    };
    let site = Site::large(setup, 10).await;
    let mut edge = Client::narrow(&site).await;
    edge.hello("edge-1", None).await;
    edge.welcome().await;
    assert!(matches!(
        edge.next().await,
        Said::Message(ToEdge::SnapshotBegin(_))
    ));
    edge.send(resync()).await;
    let begin = loop {
        match edge.next().await {
            Said::Chunk(chunk) => {
                assert_eq!(ChunkHeader::split(&chunk).unwrap().0.id, 1);
            }
            // Nothing says that the first is over: it would look as if it were whole.
            Said::Message(ToEdge::SnapshotBegin(begin)) => break begin,
            other => panic!("{other:?}"),
        }
    };
    let (mark, table, id) = edge.snapshot_of(begin).await;
    assert_eq!((id, mark), (2, site.mark()));
    assert_eq!(table.key_count(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_within_a_snapshot_follows_it() {
    let site = Site::large(Setup::default(), 10).await;
    let mut edge = Client::narrow(&site).await;
    edge.hello("edge-1", None).await;
    edge.welcome().await;
    site.until("it is being sent", |site| {
        site.metric("cellgate_control_snapshots{state=\"sending\"}") == 1.0
    })
    .await;
    let begun = site.mark();
    site.set("key-0", "two").await;
    let (mark, ..) = edge.snapshot().await;
    assert_eq!(mark, begun);
    edge.ack(mark).await;
    let delta = edge.delta().await;
    assert_eq!((delta.from, delta.mark()), (1, site.mark()));
}

/// With one turn at a time, an edge that reads nothing keeps it only until someone
/// else wants it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_gives_way_and_goes_on_later() {
    let setup = Setup {
        limits: Limits {
            max_snapshots: 1,
            ..Limits::default()
        },
        times: Times {
            turn: Duration::from_millis(100),
            ..Times::default()
        },
        ..Setup::default()
    };
    let site = Site::large(setup, 12).await;
    let mut slow = Client::narrow(&site).await;
    slow.hello("slow", None).await;
    slow.welcome().await;
    assert!(matches!(
        slow.next().await,
        Said::Message(ToEdge::SnapshotBegin(_))
    ));
    let (mut fast, _) = site.edge("fast", None).await;
    let (mark, table, _) = fast.snapshot().await;
    assert_eq!((mark, table.key_count()), (site.mark(), 600));
    assert_eq!(site.edges.get("slow").unwrap().sent.snapshots, 0);
    // All of it comes in the end, once each and in order.
    let mut next = 0;
    let chunks = loop {
        match slow.next().await {
            Said::Chunk(chunk) => {
                assert_eq!(ChunkHeader::split(&chunk).unwrap().0.index, next);
                next += 1;
            }
            Said::Message(ToEdge::SnapshotEnd(end)) => break end.chunks,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next, chunks);
}
