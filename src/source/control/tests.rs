//! What an edge applies and answers, message by message, without a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::link::{Ended, Frame};
use super::m3;
use super::session::{MAX_FRAME, Session};
use super::status::{Loads, status};
use crate::protocol::m3::Reply;
use crate::protocol::{
    Ack, Checkpoint, Close, DeltaMessage, Mark, Nack, Resync, SnapshotEnd, SnapshotLimits,
    SnapshotSender, ToControl, ToEdge, Welcome,
};
use crate::state::{EdgeOptions, EdgeState, Source};
use crate::table::{Delta, RouteReason, RoutingTable, compile};
use crate::telemetry::metrics::Metrics;

struct Edge {
    state: Arc<EdgeState>,
    session: Session,
}

fn document(version: &str, keys: &[(&str, &str)]) -> Vec<u8> {
    let keys: BTreeMap<_, _> = keys.iter().copied().collect();
    let document = json!({
        "version": version, "routingTable": keys, "defaultPlacement": "one",
        "cellEndpoints": {"one": "http://10.0.0.1", "two": "http://10.0.0.2"},
    });
    document.to_string().into_bytes()
}

fn table(version: &str, keys: &[(&str, &str)]) -> RoutingTable {
    compile(&document(version, keys)).unwrap()
}

/// `table` as the control plane's generation.
fn mark(generation: u64, table: &RoutingTable) -> Mark {
    Mark {
        generation,
        digest: table.digest(),
    }
}

/// The message that makes `new` of `old`.
fn delta(from: u64, old: &RoutingTable, to: u64, new: &RoutingTable) -> ToEdge {
    ToEdge::Delta(DeltaMessage::new(from, mark(to, new), old.delta_to(new)))
}

fn welcome(generation: u64, table: &RoutingTable) -> Welcome {
    Welcome {
        control_id: "control-1".to_owned(),
        generation,
        digest: Some(table.digest()),
        ping_seconds: 15,
    }
}

impl Edge {
    /// One that serves its bootstrap file.
    fn new() -> Self {
        let state = EdgeState::new(EdgeOptions::default(), Arc::new(Metrics::new()));
        state.apply(
            &document("file", &[("acme", "one")]),
            Source::File,
            SystemTime::now(),
        );
        Self {
            session: Session::new(Arc::clone(&state), SnapshotLimits::default()),
            state,
        }
    }

    /// One that serves this as the control plane's generation `generation`.
    async fn at(generation: u64, table: &RoutingTable) -> Self {
        let mut edge = Self::new();
        let answer = edge.snapshot(1, generation, table).await;
        assert_eq!(answer, Some(acked(generation, table)));
        edge
    }

    async fn receive(&mut self, message: ToEdge) -> Result<Option<ToControl>, Ended> {
        let text = message.encode(MAX_FRAME).unwrap();
        let frame = Frame::Text(text.into());
        Ok(self.session.receive(frame).await?.answer)
    }

    async fn hear(&mut self, message: ToEdge) -> Option<ToControl> {
        self.receive(message).await.unwrap()
    }

    async fn chunk(&mut self, chunk: Vec<u8>) -> Option<ToControl> {
        let outcome = self.session.receive(Frame::Chunk(chunk.into())).await;
        outcome.unwrap().answer
    }

    /// The first answer to a whole snapshot.
    async fn snapshot(
        &mut self,
        id: u64,
        generation: u64,
        table: &RoutingTable,
    ) -> Option<ToControl> {
        let mut sender = SnapshotSender::new(table, id, generation).unwrap();
        let mut answer = self.hear(ToEdge::SnapshotBegin(sender.begin())).await;
        for chunk in sender.by_ref() {
            answer = answer.or(self.chunk(chunk.unwrap()).await);
        }
        answer.or(self.hear(ToEdge::SnapshotEnd(sender.end())).await)
    }

    fn serves(&self) -> Option<(u64, String)> {
        let current = self.state.current()?;
        Some((
            current.control_generation?,
            current.table.version().to_owned(),
        ))
    }
}

fn acked(generation: u64, table: &RoutingTable) -> ToControl {
    ToControl::Ack(Ack {
        generation,
        digest: table.digest(),
    })
}

#[track_caller]
fn refused(answer: Option<ToControl>, expected: u64, words: &str) {
    match answer {
        Some(ToControl::Nack(Nack {
            generation,
            problems,
        })) => {
            assert_eq!(generation, expected);
            assert!(problems[0].message.contains(words), "{problems:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn resync(answer: Option<ToControl>, words: &str) {
    match answer {
        Some(ToControl::Resync(Resync { reason })) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_snapshot_and_then_deltas() {
    let tables = [
        table("1", &[("acme", "one")]),
        table("1", &[("acme", "two"), ("globex", "one")]),
        table("2", &[("globex", "one")]),
    ];
    let mut edge = Edge::at(4, &tables[0]).await;
    assert_eq!(edge.serves(), Some((4, "1".to_owned())));
    let answer = edge.hear(delta(4, &tables[0], 7, &tables[1])).await;
    assert_eq!(answer, Some(acked(7, &tables[1])));
    let answer = edge.hear(delta(7, &tables[1], 8, &tables[2])).await;
    assert_eq!(answer, Some(acked(8, &tables[2])));
    assert_eq!(edge.serves(), Some((8, "2".to_owned())));
    assert_eq!(edge.session.newest(), 8);
    // What is here already is acked again, and changes nothing.
    let number = edge.state.current().unwrap().number;
    let answer = edge.hear(delta(7, &tables[1], 8, &tables[2])).await;
    assert_eq!(answer, Some(acked(8, &tables[2])));
    let answer = edge.snapshot(2, 8, &tables[2]).await;
    assert_eq!(answer, Some(acked(8, &tables[2])));
    assert_eq!(edge.state.current().unwrap().number, number);
}

#[tokio::test]
async fn an_older_generation_is_refused_and_shown_until_all_is_well() {
    let (old, new) = (table("old", &[]), table("new", &[]));
    let mut edge = Edge::at(9, &new).await;
    let answer = edge.hear(delta(3, &new, 4, &old)).await;
    refused(
        answer,
        4,
        "older generation 4 (this edge has 9; generations only grow)",
    );
    refused(edge.snapshot(2, 8, &old).await, 8, "older generation 8");
    assert_eq!(edge.serves(), Some((9, "new".to_owned())));
    let shown = edge.state.status().last_error.expect("it is shown");
    assert!(shown.problems[0].message.contains("older generation 8"));

    let here = mark(9, &new);
    let checkpoint = ToEdge::Checkpoint(Checkpoint {
        generation: 9,
        digest: here.digest,
    });
    assert_eq!(edge.hear(checkpoint).await, None);
    assert_eq!(edge.state.status().last_error, None);
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_all_problems() {
    let here = table("1", &[]);
    let mut edge = Edge::at(1, &here).await;
    let delta = Delta {
        set: vec![("acme".to_owned(), "three".to_owned())],
        remove: vec!["acme".to_owned()],
        ..Delta::default()
    };
    let to = Mark {
        generation: 2,
        ..mark(1, &here)
    };
    let answer = edge
        .hear(ToEdge::Delta(DeltaMessage::new(1, to, delta)))
        .await;
    let Some(ToControl::Nack(Nack { problems, .. })) = answer else {
        panic!("{answer:?}");
    };
    let pointers: Vec<_> = problems.iter().map(|problem| &*problem.pointer).collect();
    assert_eq!(pointers, ["/set/acme", "/remove/0"]);

    // To be told of it again changes nothing, so nothing is asked for.
    let checkpoint = |generation| {
        ToEdge::Checkpoint(Checkpoint {
            generation,
            digest: here.digest(),
        })
    };
    assert_eq!(edge.hear(checkpoint(2)).await, None);
    resync(
        edge.hear(checkpoint(3)).await,
        "this edge has generation 1, but should have 3",
    );
    assert_eq!(edge.serves(), Some((1, "1".to_owned())));
}

#[tokio::test]
async fn an_older_generation_does_not_hide_what_was_refused() {
    let here = table("1", &[]);
    let mut edge = Edge::at(5, &here).await;
    let delta = Delta {
        set: vec![("acme".to_owned(), "three".to_owned())],
        ..Delta::default()
    };
    let message = DeltaMessage::new(5, mark(6, &here), delta);
    let answer = edge.hear(ToEdge::Delta(message)).await;
    refused(answer, 6, "three");
    refused(edge.snapshot(2, 3, &here).await, 3, "older generation 3");
    let checkpoint = ToEdge::Checkpoint(Checkpoint {
        generation: 6,
        digest: here.digest(),
    });
    assert_eq!(edge.hear(checkpoint).await, None, "6 was refused");
}

#[tokio::test]
async fn a_wrong_digest_is_not_served_and_a_snapshot_mends_it() {
    let (here, next) = (table("1", &[]), table("1", &[("acme", "two")]));
    let mut edge = Edge::at(1, &here).await;
    let wrong = Mark {
        generation: 2,
        digest: here.digest(),
    };
    let message = DeltaMessage::new(1, wrong, here.delta_to(&next));
    resync(
        edge.hear(ToEdge::Delta(message)).await,
        "generation 2 would have the digest",
    );
    assert_eq!(edge.serves(), Some((1, "1".to_owned())));
    let answer = edge.snapshot(2, 2, &next).await;
    assert_eq!(answer, Some(acked(2, &next)));
}

#[tokio::test]
async fn a_snapshot_is_asked_for_once() {
    let here = table("1", &[]);
    let mut edge = Edge::at(1, &here).await;
    let gap = |to| delta(5, &here, to, &here);
    resync(edge.hear(gap(6)).await, "a delta from generation 5");
    for to in 7..20 {
        assert_eq!(edge.hear(gap(to)).await, None, "the answer is under way");
    }
    assert!(edge.session.resync_due().is_some(), "it may be lost");
    let answer = edge.snapshot(2, 20, &here).await;
    assert_eq!(answer, Some(acked(20, &here)));
    assert_eq!(edge.session.resync_due(), None);
}

#[tokio::test]
async fn asking_in_vain_is_shown_until_it_helps() {
    let (here, next) = (table("1", &[]), table("2", &[("acme", "two")]));
    let mut edge = Edge::at(1, &here).await;
    let broken = |id| {
        let begin = SnapshotSender::new(&next, id, 2).unwrap().begin();
        let end = SnapshotEnd { id, chunks: 0 };
        [ToEdge::SnapshotBegin(begin), ToEdge::SnapshotEnd(end)]
    };
    let start = Instant::now();
    let mut asked = 0;
    for id in 2..6 {
        let mut answer = None;
        for message in broken(id) {
            answer = answer.or(edge.hear(message).await);
        }
        // More than any pause.
        let later = start + Duration::from_secs(1000 * id);
        resync(
            answer.or(edge.session.resync(later)),
            "it ends before the end of the head",
        );
        asked += 1;
        let shown = edge.state.status().last_error;
        let message = shown.map(|shown| shown.problems[0].message.clone());
        match asked {
            1 | 2 => assert_eq!(message, None),
            _ => {
                let words = format!("requested a snapshot {} times", asked - 1);
                assert!(
                    message.as_deref().unwrap_or_default().starts_with(&words),
                    "{message:?}"
                );
            }
        }
    }
    let answer = edge.snapshot(9, 2, &next).await;
    assert_eq!(answer, Some(acked(2, &next)));
    assert_eq!(edge.state.status().last_error, None);
}

#[tokio::test]
async fn a_snapshot_that_stalls_is_given_up_and_asked_for_again() {
    let (here, next) = (table("1", &[]), table("2", &[("acme", "two")]));
    let mut edge = Edge::at(1, &here).await;
    let mut sender = SnapshotSender::new(&next, 7, 2).unwrap();
    let chunks: Vec<_> = {
        edge.hear(ToEdge::SnapshotBegin(sender.begin())).await;
        sender.by_ref().map(Result::unwrap).collect()
    };
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    assert_eq!(edge.session.resync(after(59)), None);
    // What comes is a reason to wait on.
    assert_eq!(edge.chunk(chunks[0].clone()).await, None);
    let due = edge.session.resync_due().expect("it may stall");
    assert!(due >= after(59), "{due:?}");
    resync(
        edge.session.resync(due),
        "no part of the snapshot of generation 2 came for 60 s",
    );
    // The rest comes too late, and is nobody's.
    assert_eq!(edge.chunk(chunks[1].clone()).await, None);
    assert_eq!(edge.hear(ToEdge::SnapshotEnd(sender.end())).await, None);
    assert_eq!(edge.session.resync(due), None, "it was asked for");
    let answer = edge.snapshot(8, 2, &next).await;
    assert_eq!(answer, Some(acked(2, &next)));
    assert_eq!(edge.session.resync_due(), None);
}

#[tokio::test]
async fn an_edge_from_a_file_knows_what_it_has_by_its_content() {
    let file = table("file", &[("acme", "one")]);
    let mut edge = Edge::new();
    resync(
        edge.hear(delta(8, &file, 9, &file)).await,
        "this edge has no generation",
    );
    let mut edge = Edge::new();
    let answer = edge.session.welcome(&welcome(9, &file)).await.unwrap();
    assert_eq!(answer, Some(acked(9, &file)));
    let next = table("next", &[]);
    let answer = edge.hear(delta(9, &file, 10, &next)).await;
    assert_eq!(answer, Some(acked(10, &next)));
    // Generations only grow, whatever their content.
    let answer = edge.session.welcome(&welcome(3, &next)).await.unwrap();
    assert_eq!(answer, None);
    assert_eq!(edge.serves(), Some((10, "next".to_owned())));
    // It may have been another, in between.
    let answer = edge.session.welcome(&welcome(12, &next)).await.unwrap();
    assert_eq!(answer, Some(acked(12, &next)));
}

#[tokio::test]
async fn a_broken_snapshot_is_asked_for_again_and_a_bad_one_is_not() {
    let (here, next) = (table("1", &[]), table("2", &[("acme", "two")]));
    let mut edge = Edge::at(1, &here).await;
    let mut sender = SnapshotSender::new(&next, 7, 2).unwrap();
    let begin = sender.begin();
    let chunks: Vec<_> = sender.by_ref().map(Result::unwrap).collect();
    let end = ToEdge::SnapshotEnd(sender.end());

    // Chunks of nobody are left alone, and so is their end.
    assert_eq!(edge.chunk(chunks[0].clone()).await, None);
    assert_eq!(edge.hear(end.clone()).await, None);
    edge.hear(ToEdge::SnapshotBegin(begin.clone())).await;
    let mut other = chunks[0].clone();
    other[7] = 8;
    assert_eq!(edge.chunk(other).await, None, "of another snapshot");
    let mut torn = chunks[0].clone();
    torn.truncate(torn.len() - 1);
    resync(edge.chunk(torn).await, "broken snapshot of generation 2");
    assert_eq!(edge.chunk(chunks[1].clone()).await, None);
    assert_eq!(edge.hear(end.clone()).await, None);

    // The same again, and now in vain: asked again, but not at once.
    edge.hear(ToEdge::SnapshotBegin(begin.clone())).await;
    assert_eq!(edge.hear(end.clone()).await, None);
    assert!(
        edge.session
            .resync_due()
            .is_some_and(|due| due > Instant::now())
    );

    let mut bad = begin.clone();
    bad.encoding = "brotli".to_owned();
    refused(
        edge.hear(ToEdge::SnapshotBegin(bad)).await,
        2,
        "snapshot with the encoding \"brotli\" (known: zstd)",
    );
    let answer = edge.snapshot(9, 2, &next).await;
    assert_eq!(answer, Some(acked(2, &next)));
}

#[tokio::test]
async fn what_may_not_come_ends_the_connection() {
    let here = table("1", &[]);
    let within = {
        let mut edge = Edge::at(1, &here).await;
        let begin = SnapshotSender::new(&here, 2, 3).unwrap().begin();
        edge.hear(ToEdge::SnapshotBegin(begin)).await;
        edge.receive(delta(1, &here, 2, &here)).await.err()
    };
    let mut edge = Edge::at(1, &here).await;
    let second = edge.receive(ToEdge::Welcome(welcome(1, &here))).await.err();
    let mut raw = async |text: &str| {
        let frame = Frame::Text(text.to_owned().into());
        edge.session.receive(frame).await.err()
    };
    let json = raw("{").await;
    let fields = raw("{\"type\":\"checkpoint\"}").await;
    let zero = raw(&format!(
        "{{\"type\":\"checkpoint\",\"generation\":0,\"digest\":\"{}\"}}",
        here.digest()
    ))
    .await;
    let chunk = Frame::Chunk(vec![0; MAX_FRAME].into());
    let chunk = edge.session.receive(chunk).await.err();
    for (what, ended, close) in [
        ("a delta within a snapshot", within, Close::Protocol),
        ("a second welcome", second, Close::Protocol),
        ("no JSON", json, Close::Malformed),
        ("no fields", fields, Close::Malformed),
        ("a generation that is none", zero, Close::Policy),
        ("a large chunk", chunk, Close::TooLarge),
    ] {
        match ended {
            Some(Ended::Refused(refusal)) => assert_eq!(refusal.close, close, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(edge.serves(), Some((1, "1".to_owned())));
}

#[tokio::test]
async fn what_a_later_version_says_is_left_alone() {
    let mut edge = Edge::new();
    let frame = Frame::Text("{\"type\":\"weather\",\"rain\":true}".into());
    let outcome = edge.session.receive(frame).await.unwrap();
    assert_eq!(outcome.unknown.as_deref(), Some("weather"));
    assert_eq!((outcome.kind, outcome.answer), ("unknown", None));
}

#[tokio::test]
async fn a_document_of_m3_is_judged_as_a_file_is() {
    let Edge { state, .. } = Edge::new();
    let say = async |document: &[u8]| {
        let mut message: serde_json::Value = serde_json::from_slice(document).unwrap();
        message["type"] = "config_snapshot".into();
        let frame = Frame::Text(message.to_string().into());
        match m3::receive(&state, frame, MAX_FRAME).await.unwrap() {
            m3::Outcome::Answer(reply) => reply,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(say(&document("2", &[])).await, Reply::ack("2"));
    let current = state.current().unwrap();
    assert_eq!(current.source, Source::ControlPlane);
    assert_eq!(current.control_generation, None);
    assert_eq!(say(&document("2", &[])).await, Reply::ack("2"));
    assert_eq!(state.current().unwrap().number, current.number);
    let Reply::Nack(nack) = say(&document("3", &[("a", "x"), ("b", "y")])).await else {
        panic!("it was not refused");
    };
    assert_eq!(nack.version, "3");
    assert!(nack.error.contains("\"x\"") && nack.error.contains("\"y\""));
    assert_eq!(state.current().unwrap().number, current.number);
    let binary = m3::receive(&state, Frame::Chunk(vec![1].into()), MAX_FRAME).await;
    assert!(matches!(binary, Err(Ended::Refused(_))), "{binary:?}");
}

#[tokio::test]
async fn a_status_has_rates_since_the_last_one_with_rates() {
    let here = table("1", &[("acme", "two")]);
    let edge = Edge::at(6, &here).await;
    let start = Instant::now();
    let mut loads = Loads::new(&edge.state, start);
    let current = edge.state.current().unwrap();
    let metrics = &current.placements[1].state.metrics;
    for answered in [200, 200, 503, 404] {
        metrics.request_done(RouteReason::Dedicated, answered, 0.1);
    }
    let stale = Duration::from_secs(42);
    let status_after = |seconds, loads: Option<&mut Loads>| {
        let now = start + Duration::from_secs(seconds);
        status(&edge.state, loads, stale, now)
    };
    // Without them, and the next one's are not affected.
    let change = status_after(4, None);
    assert_eq!(change.placements, None);
    let first = status_after(8, Some(&mut loads));
    assert_eq!((first.generation, first.stale_seconds), (6, 42));
    assert_eq!(first.digest, Some(here.digest()));
    assert_eq!(first.source.as_deref(), Some("control_plane"));
    assert_eq!(first.last_error, None);
    let placements = first.placements.as_ref().expect("placements");
    assert_eq!(placements.len(), 1, "the idle one is left out");
    let load = placements["two"];
    assert_eq!(
        (
            load.requests_per_second,
            load.errors_per_second,
            load.in_flight
        ),
        (0.5, 0.125, 0)
    );
    let second = status_after(9, Some(&mut loads));
    assert_eq!(second.placements, Some(BTreeMap::new()), "all are idle");
    ToControl::Status(first).encode().unwrap();
}
