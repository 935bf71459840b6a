//! Every message in its encoded form, compared with the files in `crates/core/tests/golden`, so
//! that no change of the wire format goes unnoticed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{messages, table};
use crate::protocol::limits::TO_EDGE_BYTES;
use crate::protocol::m3::{ConfigSnapshot, Reply, encode_snapshot};
use crate::protocol::{
    ChunkHeader, Received, SnapshotLimits, SnapshotReceiver, SnapshotSender, ToControl, ToEdge,
};
use crate::table::{Problem, RoutingTable, compile};

/// Set to rewrite the files.
const UPDATE: &str = "UPDATE_GOLDEN";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares `encoded` with the file `name`, and returns the content of the file.
fn golden(name: &str, encoded: &str) -> String {
    let path = directory().join(name);
    if std::env::var_os(UPDATE).is_some() {
        fs::create_dir_all(directory()).unwrap();
        fs::write(&path, format!("{encoded}\n")).unwrap();
    }
    let file = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        encoded,
        file.trim_end(),
        "the wire format has changed: encoded on the left, {} on the right. Peers of other versions \
         must still understand it (docs/protocol.md, Versions). To accept the change, run \
         `{UPDATE}=1 cargo test -p cellgate-core golden` and review the difference.",
        path.display()
    );
    file.trim_end().to_owned()
}

/// The file for a message: `v1-` or `m3-`, and its type.
fn name(dialect: &str, message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap();
    format!("{dialect}-{}.json", message["type"].as_str().unwrap())
}

fn m3_replies() -> [Reply; 2] {
    let problem = Problem::without_place("unknown placement \"p9\"");
    [
        Reply::ack("2"),
        Reply::nack("3", &[problem.clone(), problem]),
    ]
}

/// A table with a key that needs an escape, and a placement with several endpoints.
fn m3_table() -> RoutingTable {
    compile(
        br#"{"version":"2","routingTable":{"a\"b":"x"},"defaults":{"tenancy":"shared"},
            "placements":{"x":{"endpoints":[{"url":"http://one:1"},{"url":"http://two:2"}]}},
            "cellEndpoints":{"y":"http://three:3"},"defaultPlacement":"y"}"#,
    )
    .unwrap()
}

#[test]
fn golden_messages() {
    for message in messages::to_control() {
        let encoded = message.encode().unwrap();
        let file = golden(&name("v1", &encoded), &encoded);
        let decoded = ToControl::decode(file.as_bytes());
        assert_eq!(decoded, Ok(Received::Message(message)));
    }
    for message in messages::to_edge() {
        let encoded = message.encode(TO_EDGE_BYTES).unwrap();
        let file = golden(&name("v1", &encoded), &encoded);
        let decoded = ToEdge::decode(file.as_bytes(), TO_EDGE_BYTES);
        assert_eq!(decoded, Ok(Received::Message(message)));
    }
}

#[test]
fn golden_m3_messages() {
    for reply in m3_replies() {
        let encoded = reply.encode();
        let file = golden(&name("m3", &encoded), &encoded);
        let decoded = Reply::decode(file.as_bytes());
        assert_eq!(decoded, Ok(Received::Message(reply)));
    }
    let table = m3_table();
    let encoded = encode_snapshot(&table);
    let file = golden(&name("m3", &encoded), &encoded);
    let decoded = ConfigSnapshot::decode(file.as_bytes(), TO_EDGE_BYTES);
    let Ok(Received::Message(ConfigSnapshot { document, .. })) = decoded else {
        panic!("{decoded:?}");
    };
    let decoded = compile(document.as_bytes()).unwrap();
    assert_eq!(decoded.digest(), table.digest());
}

/// The chunks of snapshots: the header and the decompressed payload of each, in hexadecimal. The
/// compressed bytes may differ between versions of zstd. One key a table, as keys are sent in no
/// particular order.
#[test]
fn golden_chunks() {
    for (file, key, placement) in KEYS {
        let table = table("1", [(&*key.repeat(100), placement)]);
        let mut sender = SnapshotSender::new(&table, 7, 6).unwrap();
        let begin = sender.begin();
        let mut lines = Vec::new();
        for frame in sender.by_ref() {
            let frame = frame.unwrap();
            let (_, payload) = ChunkHeader::split(&frame).unwrap();
            let header = &frame[..frame.len() - payload.len()];
            let payload = zstd::decode_all(payload).unwrap();
            lines.push(format!("{} {}", hex(header), hex(&payload)));
        }
        assert_eq!(lines.len(), 2, "the head, then the key");
        let file = golden(file, &lines.join("\n"));

        let mut receiver = SnapshotReceiver::new(begin, SnapshotLimits::default()).unwrap();
        for line in file.lines() {
            let (header, payload) = line.split_once(' ').unwrap();
            let mut frame = bytes(header);
            frame.extend(zstd::bulk::compress(&bytes(payload), 0).unwrap());
            receiver.chunk(&frame).unwrap();
        }
        let received = receiver.end(sender.end()).unwrap();
        assert_eq!(received.digest(), table.digest());
    }
}

/// A file for the chunks of a table, what its key is a hundred times, and its placement. Lengths
/// up to 127 take one byte, longer ones two.
const KEYS: [(&str, &str, usize); 2] = [
    ("v1-chunks-short.hex", "k", 1),
    ("v1-chunks-long.hex", "\u{e9}", 2),
];

#[test]
fn golden_files_are_all_in_use() {
    let control = messages::to_control().into_iter().map(|it| it.encode());
    let edge = messages::to_edge()
        .into_iter()
        .map(|it| it.encode(TO_EDGE_BYTES));
    let v1 = control.chain(edge).map(|it| name("v1", &it.unwrap()));
    let m3 = m3_replies().into_iter().map(|reply| reply.encode());
    let m3 = m3
        .chain([encode_snapshot(&m3_table())])
        .map(|it| name("m3", &it));
    let used: BTreeSet<_> = v1
        .chain(m3)
        .chain(KEYS.map(|(file, ..)| file.to_owned()))
        .collect();
    assert_eq!(used.len(), 15);
    let files = fs::read_dir(directory()).unwrap();
    let files: BTreeSet<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, used);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
