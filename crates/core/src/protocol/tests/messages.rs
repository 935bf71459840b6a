use std::collections::BTreeMap;

use serde_json::json;

use super::table;
use crate::protocol::limits::{NUMBER_MAX, PROBLEMS, TO_CONTROL_BYTES, TO_EDGE_BYTES};
use crate::protocol::{
    Ack, Checkpoint, DeltaMessage, Hello, LastError, Load, Nack, Received, Resync, SnapshotBegin,
    SnapshotEnd, Status, ToControl, ToEdge, Welcome,
};
use crate::table::{Digest, Problem};

const MOST: usize = TO_EDGE_BYTES;

fn digest() -> Digest {
    table("1", [("acme", 1)]).digest()
}

/// One of each, with all fields.
pub(super) fn to_control() -> Vec<ToControl> {
    let digest = digest();
    let problem = Problem {
        pointer: "/set/acme".to_owned(),
        line: 1,
        column: 2,
        message: "unknown placement \"p9\"".to_owned(),
    };
    let load = Load {
        requests_per_second: 12.5,
        errors_per_second: 0.25,
        in_flight: 3,
    };
    vec![
        ToControl::Hello(Hello {
            edge_id: "edge-1".to_owned(),
            instance: "5f2c".to_owned(),
            version: "0.1.0".to_owned(),
            labels: BTreeMap::from([("zone".to_owned(), "eu 1".to_owned())]),
            generation: 0,
            digest: None,
            max_frame: MOST as u64,
        }),
        ToControl::Ack(Ack {
            generation: 5,
            digest,
        }),
        ToControl::Nack(Nack {
            generation: NUMBER_MAX,
            problems: vec![problem.clone(), Problem::without_place("older")],
        }),
        ToControl::Resync(Resync {
            reason: "it differs".to_owned(),
        }),
        ToControl::Status(Status {
            generation: 5,
            digest: Some(digest),
            serving_since: Some("2026-01-03T20:45:12Z".to_owned()),
            source: Some("control_plane".to_owned()),
            stale_seconds: 7,
            last_error: Some(LastError {
                at: "2026-01-03T20:45:12Z".to_owned(),
                problems: vec![problem],
            }),
            placements: Some(BTreeMap::from([("p1".to_owned(), load)])),
        }),
    ]
}

/// One of each, with all fields.
pub(super) fn to_edge() -> Vec<ToEdge> {
    let digest = digest();
    let pair = |key: &str, home: &str| (key.to_owned(), home.to_owned());
    vec![
        ToEdge::Welcome(Welcome {
            control_id: "control-1".to_owned(),
            generation: 6,
            digest: Some(digest),
            ping_seconds: 15,
        }),
        ToEdge::Delta(DeltaMessage {
            from: 5,
            generation: 6,
            digest,
            head: Some("{\"version\":\"2\"}".to_owned()),
            // Twice the same: for the table to refuse.
            set: vec![pair("b", "p1"), pair("a\"", "p2"), pair("b", "p2")],
            remove: vec!["c".to_owned()],
        }),
        ToEdge::SnapshotBegin(SnapshotBegin {
            id: 1,
            generation: 6,
            digest,
            head_bytes: 100,
            keys: 1,
            encoding: "zstd".to_owned(),
        }),
        ToEdge::SnapshotEnd(SnapshotEnd { id: 1, chunks: 2 }),
        ToEdge::Checkpoint(Checkpoint {
            generation: 6,
            digest,
        }),
    ]
}

#[test]
fn every_message_is_read_back() {
    for message in to_control() {
        let text = message.encode().unwrap();
        let read = ToControl::decode(text.as_bytes());
        assert_eq!(read, Ok(Received::Message(message)), "{text}");
    }
    for message in to_edge() {
        let text = message.encode(MOST).unwrap();
        let read = ToEdge::decode(text.as_bytes(), MOST);
        assert_eq!(read, Ok(Received::Message(message)), "{text}");
    }
}

#[test]
fn what_a_later_version_says_is_no_error() {
    let more = |text: String| text.replacen('{', r#"{"later":{"deep":[1,{}]},"#, 1);
    for message in to_control() {
        let text = more(message.encode().unwrap());
        let read = ToControl::decode(text.as_bytes());
        assert_eq!(read, Ok(Received::Message(message)), "{text}");
    }
    for message in to_edge() {
        let text = more(message.encode(MOST).unwrap());
        let read = ToEdge::decode(text.as_bytes(), MOST);
        assert_eq!(read, Ok(Received::Message(message)), "{text}");
    }
    for (kind, kept) in [("drain", "drain"), (&*"é".repeat(1000), &*"é".repeat(64))] {
        let text = json!({"generation": -1, "type": kind}).to_string();
        let unknown = kept.to_owned();
        assert_eq!(
            ToControl::decode(text.as_bytes()),
            Ok(Received::Unknown(unknown.clone()))
        );
        assert_eq!(
            ToEdge::decode(text.as_bytes(), MOST),
            Ok(Received::Unknown(unknown))
        );
    }
}

#[test]
fn an_edge_may_take_less() {
    let delta = &to_edge()[1];
    let text = delta.encode(MOST).unwrap();
    assert!(delta.encode(text.len()).is_ok());
    let error = delta.encode(text.len() - 1).unwrap_err();
    assert_eq!((error.bytes, error.most), (text.len(), text.len() - 1));
    let refusal = ToEdge::decode(text.as_bytes(), text.len() - 1).unwrap_err();
    assert_eq!(refusal.close.code(), 1009);
}

fn sent(message: &ToControl) -> ToControl {
    let text = message.encode().unwrap();
    assert!(text.len() <= TO_CONTROL_BYTES);
    match ToControl::decode(text.as_bytes()) {
        Ok(Received::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_too_much_is_cut_by_the_sender() {
    for bytes in [10, 3000, 20_000] {
        let problems: Vec<_> = (0..1000)
            .map(|index| Problem {
                pointer: "\u{1}".repeat(bytes),
                message: format!("{index}\n{}", "é".repeat(bytes)),
                ..Problem::without_place("")
            })
            .collect();
        let nack = Nack {
            generation: 1,
            problems,
        };
        let ToControl::Nack(nack) = sent(&ToControl::Nack(nack)) else {
            panic!("no nack");
        };
        let (last, others) = nack.problems.split_last().unwrap();
        assert_eq!(last.message, "and more problems");
        assert!(!others.is_empty() && others.len() < PROBLEMS);
        assert!(others[0].message.starts_with("0 é"));
    }

    let load = |index: u32| Load {
        requests_per_second: if index == 0 {
            f64::NAN
        } else {
            f64::from(index)
        },
        errors_per_second: -1.0,
        in_flight: 1,
    };
    for name in ["p", &"\"".repeat(120)] {
        let status = Status {
            generation: 1,
            digest: None,
            serving_since: None,
            source: None,
            stale_seconds: 0,
            last_error: None,
            placements: Some(
                (0..3000)
                    .map(|index| (format!("{name}{index:04}"), load(index)))
                    .collect(),
            ),
        };
        let ToControl::Status(status) = sent(&ToControl::Status(status)) else {
            panic!("no status");
        };
        let placements = status.placements.expect("placements");
        assert!(
            (400..=1000).contains(&placements.len()),
            "{}",
            placements.len()
        );
        let least = placements.values().map(|load| load.requests_per_second);
        assert_eq!(
            least.fold(f64::MAX, f64::min),
            3000.0 - placements.len() as f64
        );
        assert!(
            placements
                .values()
                .all(|load| load.errors_per_second == 0.0)
        );
    }
    let idle = Status {
        generation: 1,
        digest: None,
        serving_since: None,
        source: None,
        stale_seconds: 0,
        last_error: None,
        placements: Some(BTreeMap::from([("p".to_owned(), load(0))])),
    };
    sent(&ToControl::Status(idle));

    let reason = "line\n".repeat(1000);
    sent(&ToControl::Resync(Resync { reason }));
    let ToControl::Hello(mut hello) = to_control().remove(0) else {
        panic!("no hello");
    };
    hello.edge_id = "e".repeat(TO_CONTROL_BYTES);
    assert!(ToControl::Hello(hello).encode().is_err());
}
