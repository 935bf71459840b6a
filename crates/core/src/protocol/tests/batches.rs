use proptest::prelude::*;

use super::{any_table, seen, table};
use crate::protocol::limits::{DELTA_KEYS, KEY_BYTES, TO_EDGE_BYTES};
use crate::protocol::{DeltaMessage, Mark, Received, Step, ToEdge, batch, fold};
use crate::table::{Delta, RoutingTable};

/// The deltas that lead through `tables`, and what there is after each. The first
/// table is generation 1.
fn history(tables: &[RoutingTable]) -> Vec<(Mark, Delta)> {
    let steps = tables.windows(2).zip(2..);
    let step = |(pair, generation): (&[RoutingTable], u64)| {
        let digest = pair[1].digest();
        (Mark { generation, digest }, pair[0].delta_to(&pair[1]))
    };
    steps.map(step).collect()
}

fn steps(history: &[(Mark, Delta)]) -> impl Iterator<Item = Step<'_>> {
    history.iter().map(|(to, delta)| Step { to: *to, delta })
}

/// As an edge does it: over the wire, and each with its digest.
fn follow(first: &RoutingTable, messages: Vec<DeltaMessage>, most: usize) -> (u64, RoutingTable) {
    let mut table = first.apply(&Delta::default()).unwrap();
    let mut at = 1;
    for message in messages {
        let text = ToEdge::Delta(message.clone()).encode(most).unwrap();
        let received = ToEdge::decode(text.as_bytes(), most).unwrap();
        assert_eq!(received, Received::Message(ToEdge::Delta(message.clone())));
        assert_eq!(message.from, at);
        at = message.generation;
        let digest = message.digest;
        table = table.apply(&message.into_delta()).unwrap();
        assert_eq!(table.digest(), digest);
    }
    (at, table)
}

proptest! {
    #[test]
    fn batches_lead_where_the_steps_do(tables in prop::collection::vec(any_table(), 1..8), most in 600..4000_usize) {
        let history = history(&tables);
        let last = tables.last().unwrap();
        let to = Mark { generation: 2, digest: last.digest() };
        let fits = |delta: &Delta, most| {
            let message = DeltaMessage::new(1, to, delta.clone());
            ToEdge::Delta(message).encode(most).is_ok()
        };
        match batch(1, steps(&history), most) {
            Some(messages) => {
                let (at, end) = follow(&tables[0], messages, most);
                prop_assert_eq!(at, tables.len() as u64);
                prop_assert_eq!(seen(&end), seen(last));
                prop_assert!(history.iter().all(|(_, delta)| fits(delta, most)));
            }
            // What is given up has a step that is about as large as the bound.
            None => {
                let large = history.iter().any(|(_, delta)| !fits(delta, most - 200));
                prop_assert!(large);
            }
        }
    }

    #[test]
    fn a_fold_does_what_its_deltas_do(tables in prop::collection::vec(any_table(), 1..8)) {
        let history = history(&tables);
        let folded = fold(history.iter().map(|(_, delta)| delta));
        let end = tables[0].apply(&folded).unwrap();
        prop_assert_eq!(seen(&end), seen(tables.last().unwrap()));
    }
}

#[test]
fn what_changes_often_is_sent_once() {
    let tables: Vec<_> = (0..1000)
        .map(|round| table("1", [("acme", round % 5)]))
        .collect();
    let history = history(&tables);
    let messages = batch(1, steps(&history), 1024).unwrap();
    let [message] = &messages[..] else {
        panic!("{} messages", messages.len());
    };
    assert_eq!((message.from, message.generation), (1, 1000));
    assert_eq!(message.set, [("acme".to_owned(), "p4".to_owned())]);
    let text = ToEdge::Delta(message.clone()).encode(1024).unwrap();
    assert!(text.len() < 200, "{text}");
    assert_eq!(batch(7, [], 1024), Some(Vec::new()));
}

#[test]
fn what_is_too_large_takes_a_snapshot() {
    let digest = table("1", []).digest();
    let one = |delta: &Delta| {
        let to = Mark {
            generation: 2,
            digest,
        };
        batch(1, [Step { to, delta }], TO_EDGE_BYTES).map(|messages| messages.len())
    };
    let keys = |count: usize, length: usize| Delta {
        remove: (0..count)
            .map(|index| format!("{index:0>8}{}", "k".repeat(length - 8)))
            .collect(),
        ..Delta::default()
    };
    assert_eq!(one(&keys(DELTA_KEYS, 8)), Some(1));
    assert_eq!(one(&keys(DELTA_KEYS + 1, 8)), None);
    assert_eq!(one(&keys(1, KEY_BYTES)), Some(1));
    assert_eq!(one(&keys(1, KEY_BYTES + 1)), None);
    assert_eq!(one(&keys(15, KEY_BYTES)), Some(1));
    assert_eq!(one(&keys(16, KEY_BYTES)), None);
    let head = |bytes: usize| Delta {
        head: Some("h".repeat(bytes)),
        ..Delta::default()
    };
    assert_eq!(one(&head(TO_EDGE_BYTES - 1024)), Some(1));
    assert_eq!(one(&head(TO_EDGE_BYTES)), None);
}
