//! What a receiver refuses, and in what words.

use serde_json::{Value, json};

use super::messages::{to_control, to_edge};
use crate::protocol::limits::{DELTA_KEYS, KEY_BYTES, NUMBER_MAX, TO_CONTROL_BYTES, TO_EDGE_BYTES};
use crate::protocol::{ToControl, ToEdge};

const MOST: usize = TO_EDGE_BYTES;

/// The message called `name`, with `change` made to its fields.
fn changed(name: &str, change: &Value) -> String {
    let control = to_control().into_iter().map(|message| message.encode());
    let edge = to_edge().into_iter().map(|message| message.encode(MOST));
    let mut messages = control
        .chain(edge)
        .map(|text| serde_json::from_str::<Value>(&text.unwrap()).unwrap());
    let mut message = messages.find(|message| message["type"] == name).unwrap();
    for (field, value) in change.as_object().unwrap() {
        match value.as_str() {
            Some("absent") => drop(message.as_object_mut().unwrap().remove(field)),
            _ => message[field] = value.clone(),
        }
    }
    message.to_string()
}

fn outcome(name: &str, text: &str) -> (u16, String) {
    let control = ["hello", "ack", "nack", "resync", "status"].contains(&name);
    let refusal = match control {
        true => ToControl::decode(text.as_bytes()).err(),
        false => ToEdge::decode(text.as_bytes(), MOST).err(),
    };
    refusal.map_or((0, String::new()), |refusal| {
        (refusal.close.code(), refusal.reason().to_owned())
    })
}

#[test]
fn bounds_are_kept() {
    let long = |bytes: usize| "x".repeat(bytes);
    let problem = |pointer: &str, message: &str| json!({"pointer": pointer, "line": 0, "column": 0, "message": message});
    let many = |count: usize| -> Value {
        let entry = |index: usize| (index.to_string(), Value::from("p1"));
        Value::Object((0..count).map(entry).collect())
    };
    let loads = |count: usize| -> Value {
        let load = json!({"requests_per_second": 1, "errors_per_second": 0, "in_flight": 0});
        let entry = |index: usize| (index.to_string(), load.clone());
        Value::Object((0..count).map(entry).collect())
    };
    let over = NUMBER_MAX + 1;
    for (name, change, code, reason) in [
        ("hello", json!({"edge_id": long(128)}), 0, ""),
        (
            "hello",
            json!({"edge_id": long(129)}),
            1008,
            "edge_id: 129 bytes (at most 128)",
        ),
        ("hello", json!({"edge_id": ""}), 1008, "edge_id: empty"),
        ("hello", json!({"edge_id": "a b"}), 1008, "printable ascii"),
        ("hello", json!({"instance": "é"}), 1008, "instance: \"é\""),
        (
            "hello",
            json!({"edge_id": "absent"}),
            1007,
            "missing field `edge_id`",
        ),
        (
            "hello",
            json!({"labels": "absent", "digest": "absent"}),
            0,
            "",
        ),
        ("hello", json!({"labels": many(32)}), 0, ""),
        (
            "hello",
            json!({"labels": many(33)}),
            1008,
            "33 labels (at most 32)",
        ),
        (
            "hello",
            json!({"labels": {"a": long(257)}}),
            1008,
            "labels: 257 bytes",
        ),
        (
            "hello",
            json!({"labels": {"a": "\u{1b}[2J"}}),
            1008,
            "U+001B",
        ),
        (
            "hello",
            json!({"version": "1\n"}),
            1008,
            "version: control character U+000A",
        ),
        (
            "hello",
            json!({"max_frame": 524_287}),
            1008,
            "(at least 524288)",
        ),
        (
            "hello",
            json!({"generation": over}),
            1008,
            "(at most 9007199254740991)",
        ),
        ("hello", json!({"generation": -1}), 1007, "invalid value"),
        ("hello", json!({"digest": "ab"}), 1007, "not a digest"),
        (
            "ack",
            json!({"generation": 0}),
            1008,
            "the first generation is 1",
        ),
        ("ack", json!({"digest": null}), 1007, "message ack"),
        ("nack", json!({"problems": []}), 1008, "problems: empty"),
        (
            "nack",
            json!({"problems": vec![problem("", "odd"); 101]}),
            0,
            "",
        ),
        (
            "nack",
            json!({"problems": vec![problem("", "odd"); 102]}),
            1008,
            "102 problems",
        ),
        (
            "nack",
            json!({"problems": [problem("", "a\nb")]}),
            1008,
            "message: control",
        ),
        (
            "nack",
            json!({"problems": [problem(&long(4097), "")]}),
            1008,
            "pointer: 4097",
        ),
        (
            "resync",
            json!({"reason": long(1025)}),
            1008,
            "reason: 1025 bytes",
        ),
        ("status", json!({"placements": loads(1000)}), 0, ""),
        (
            "status",
            json!({"placements": loads(1001)}),
            1008,
            "1001 placements",
        ),
        (
            "status",
            json!({"placements": {"a b": loads(1)["0"]}}),
            1008,
            "placements: \"a b\"",
        ),
        (
            "status",
            json!({"stale_seconds": over}),
            1008,
            "stale_seconds",
        ),
        (
            "status",
            json!({"source": long(65)}),
            1008,
            "source: 65 bytes",
        ),
        (
            "status",
            json!({"serving_since": long(65)}),
            1008,
            "serving_since: 65",
        ),
        (
            "welcome",
            json!({"generation": 0}),
            1008,
            "of generation 0 (must be null",
        ),
        (
            "welcome",
            json!({"ping_seconds": 0}),
            1008,
            "(valid: 1 to 300)",
        ),
        (
            "welcome",
            json!({"ping_seconds": 301}),
            1008,
            "(valid: 1 to 300)",
        ),
        ("welcome", json!({"generation": 0, "digest": null}), 0, ""),
        (
            "welcome",
            json!({"control_id": ""}),
            1008,
            "control_id: empty",
        ),
        (
            "delta",
            json!({"head": "absent", "set": "absent", "remove": "absent"}),
            0,
            "",
        ),
        ("delta", json!({"from": 0}), 1008, "from: 0"),
        (
            "delta",
            json!({"from": 6}),
            1008,
            "must be above from, which is 6",
        ),
        ("delta", json!({"generation": over}), 1008, "generation"),
        ("delta", json!({"set": many(DELTA_KEYS - 1)}), 0, ""),
        (
            "delta",
            json!({"set": many(DELTA_KEYS)}),
            1008,
            "65537 keys (at most 65536)",
        ),
        (
            "delta",
            json!({"set": many(DELTA_KEYS + 1)}),
            1007,
            "more than 65536 keys",
        ),
        ("delta", json!({"remove": [long(KEY_BYTES)]}), 0, ""),
        (
            "delta",
            json!({"remove": [long(KEY_BYTES + 1)]}),
            1008,
            "65537 bytes",
        ),
        (
            "delta",
            json!({"head": long(TO_EDGE_BYTES)}),
            1009,
            "(at most 1048576)",
        ),
        ("snapshot_begin", json!({"id": over}), 1008, "id: "),
        ("snapshot_begin", json!({"keys": over}), 1008, "keys: "),
        (
            "snapshot_begin",
            json!({"encoding": long(129)}),
            1008,
            "encoding: 129",
        ),
        ("snapshot_begin", json!({"encoding": "br"}), 0, ""),
        (
            "snapshot_end",
            json!({"chunks": 1_u64 << 32}),
            1007,
            "invalid value",
        ),
        (
            "checkpoint",
            json!({"generation": 0}),
            1008,
            "generation: 0",
        ),
    ] {
        let (found, why) = outcome(name, &changed(name, &change));
        assert_eq!(found, code, "{name} {why} instead of {reason}");
        assert!(why.contains(reason), "{name}: {why} instead of {reason}");
    }
    let (code, why) = outcome("status", &long(TO_CONTROL_BYTES + 1));
    assert_eq!(
        (code, &*why),
        (1009, "message of 262145 bytes (at most 262144)")
    );
}
