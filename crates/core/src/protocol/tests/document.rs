//! `docs/protocol.md` says what is so: its examples are read, and its bounds
//! compared.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::protocol::m3::{ConfigSnapshot, Reply};
use crate::protocol::{
    Received, SUBPROTOCOL, SnapshotLimits, SnapshotReceiver, ToControl, ToEdge, limits,
};
use crate::table::{RoutingTable, compile};

const PAGE: &str = include_str!("../../../../../docs/protocol.md");
const MOST: usize = limits::TO_EDGE_BYTES;

/// The fenced blocks of the page: what stands after the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut parts = PAGE.split("```");
    parts.next();
    let mut blocks = Vec::new();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        blocks.push(block.split_once('\n').unwrap());
    }
    blocks
}

/// The texts of the blocks whose fence starts with `kind`.
fn of(kind: &str) -> Vec<&'static str> {
    let of_kind = blocks()
        .into_iter()
        .filter(|(fence, _)| fence.starts_with(kind));
    of_kind.map(|(_, text)| text).collect()
}

/// All values of `written` are in `said`, but for what is empty and may be absent.
fn assert_same(written: &str, said: &str) {
    let [written, said] = [written, said].map(|text| serde_json::from_str::<Value>(text).unwrap());
    let fields = |value: &Value| {
        let fields = value.as_object().unwrap().clone();
        let told =
            |value: &Value| *value != serde_json::json!({}) && *value != serde_json::json!([]);
        fields
            .into_iter()
            .filter(|(_, value)| told(value))
            .collect::<Vec<_>>()
    };
    assert_eq!(fields(&written), fields(&said));
}

fn document() -> RoutingTable {
    let [document] = of("json document")[..] else {
        panic!("one document");
    };
    compile(document.as_bytes()).unwrap()
}

#[test]
fn every_message_has_an_example_that_is_read_whole() {
    let mut seen = BTreeSet::new();
    for example in of("json to-control") {
        match ToControl::decode(example.as_bytes()) {
            Ok(Received::Message(message)) => {
                assert_same(example, &message.encode().unwrap());
                seen.insert(kind(example));
            }
            other => panic!("{example}: {other:?}"),
        }
    }
    for example in of("json to-edge") {
        match ToEdge::decode(example.as_bytes(), MOST) {
            Ok(Received::Message(message)) => {
                assert_same(example, &message.encode(MOST).unwrap());
                seen.insert(kind(example));
            }
            other => panic!("{example}: {other:?}"),
        }
    }
    let control = super::messages::to_control();
    let edge = super::messages::to_edge();
    let control = control.iter().map(|message| message.encode());
    let all = control.chain(edge.iter().map(|message| message.encode(MOST)));
    let all: BTreeSet<_> = all.map(|text| kind(&text.unwrap())).collect();
    assert_eq!(seen, all);
    assert!(PAGE.contains(&format!("`{SUBPROTOCOL}`")));
}

fn kind(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap();
    message["type"].as_str().unwrap().to_owned()
}

fn received(example: &str) -> ToEdge {
    match ToEdge::decode(example.as_bytes(), MOST) {
        Ok(Received::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_snapshot_is_the_document() {
    let texts = of("json to-edge snapshot");
    let messages = texts.into_iter().map(received).collect::<Vec<_>>();
    let [ToEdge::SnapshotBegin(begin), ToEdge::SnapshotEnd(end)] = &messages[..] else {
        panic!("{messages:?}");
    };
    let mut receiver = SnapshotReceiver::new(begin.clone(), SnapshotLimits::default()).unwrap();
    for chunk in of("hex snapshot")[0].split("\n\n") {
        let digits: Vec<u8> = chunk.bytes().filter(|byte| *byte != b'\n').collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let frame: Vec<u8> = digits.chunks(2).map(byte).collect();
        receiver.chunk(&frame).unwrap();
    }
    let table = receiver.end(*end).unwrap();
    assert_eq!(table.digest(), document().digest());
    assert!(PAGE.contains(&format!("above has the digest `{}`", table.digest())));
}

#[test]
fn the_first_delta_has_the_digest_that_it_says() {
    let deltas = of("json to-edge").into_iter().map(received);
    let deltas: Vec<_> = deltas
        .filter_map(|message| match message {
            ToEdge::Delta(delta) => Some(delta),
            _ => None,
        })
        .collect();
    let digest = deltas[0].digest;
    let next = document().apply(&deltas[0].clone().into_delta()).unwrap();
    assert_eq!(next.digest(), digest);
    let head = next.apply(&deltas[1].clone().into_delta()).unwrap();
    assert_eq!(head.version(), "3");
}

#[test]
fn the_examples_of_m3_are_read() {
    for example in of("json m3-reply") {
        match Reply::decode(example.as_bytes()) {
            Ok(Received::Message(reply)) => assert_same(example, &reply.encode()),
            other => panic!("{example}: {other:?}"),
        }
    }
    for example in of("json m3-snapshot") {
        match ConfigSnapshot::decode(example.as_bytes(), MOST) {
            Ok(Received::Message(snapshot)) => {
                let table = compile(snapshot.document.as_bytes()).unwrap();
                assert_eq!(table.digest(), document().digest());
            }
            other => panic!("{example}: {other:?}"),
        }
    }
    assert_eq!(of("json m3").len(), 3);
}

#[test]
fn the_bounds_are_those_that_are_kept() {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim);
        let name = cells.nth(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name, cells.next()?.parse::<u64>().ok()?))
    });
    let kept = [
        ("NUMBER_MAX", limits::NUMBER_MAX),
        ("TO_CONTROL_BYTES", limits::TO_CONTROL_BYTES as u64),
        ("TO_EDGE_BYTES", limits::TO_EDGE_BYTES as u64),
        ("CHUNK_BYTES", limits::CHUNK_BYTES as u64),
        ("CHUNK_FRAME_BYTES", limits::CHUNK_FRAME_BYTES as u64),
        ("MAX_FRAME_LEAST", limits::MAX_FRAME_LEAST as u64),
        ("KEY_BYTES", limits::KEY_BYTES as u64),
        ("DELTA_KEYS", limits::DELTA_KEYS as u64),
        ("NAME_BYTES", limits::NAME_BYTES as u64),
        ("LABELS", limits::LABELS as u64),
        ("VALUE_BYTES", limits::VALUE_BYTES as u64),
        ("REASON_BYTES", limits::REASON_BYTES as u64),
        ("PROBLEMS", limits::PROBLEMS as u64),
        ("PROBLEM_BYTES", limits::PROBLEM_BYTES as u64),
        ("STATUS_PLACEMENTS", limits::STATUS_PLACEMENTS as u64),
        ("CLOSE_REASON_BYTES", limits::CLOSE_REASON_BYTES as u64),
    ];
    assert_eq!(rows.collect::<Vec<_>>(), kept);
}
