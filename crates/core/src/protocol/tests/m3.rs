use proptest::prelude::*;

use super::{any_table, seen};
use crate::protocol::Received;
use crate::protocol::m3::{ConfigSnapshot, Reply, encode_snapshot};
use crate::table::{Problem, compile};

const MOST: usize = 1 << 20;

fn decode(text: &str) -> ConfigSnapshot {
    match ConfigSnapshot::decode(text.as_bytes(), MOST) {
        Ok(Received::Message(snapshot)) => snapshot,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_table_passes_whole(table in any_table()) {
        let snapshot = decode(&encode_snapshot(&table));
        prop_assert_eq!(&snapshot.version, table.version());
        let received = compile(snapshot.document.as_bytes()).unwrap();
        prop_assert_eq!(seen(&received), seen(&table));
        prop_assert_eq!(received.digest(), table.digest());
    }

    #[test]
    fn any_bytes_are_answered(frame in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = ConfigSnapshot::decode(&frame, MOST);
        let _ = Reply::decode(&frame);
    }

    #[test]
    fn a_damaged_document_is_a_document_or_none(
        table in any_table(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut frame = encode_snapshot(&table).into_bytes();
        for (at, byte) in edits {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Ok(Received::Message(snapshot)) = ConfigSnapshot::decode(&frame, MOST) {
            let _ = compile(snapshot.document.as_bytes());
        }
    }
}

#[test]
fn the_message_is_one_that_m3_edges_read() {
    let table = compile(
        br#"{"version":"2","routingTable":{"a\"b":"x","c":"y"},"defaults":{"tenancy":"shared"},
            "placements":{"x":{"endpoints":[{"url":"http://one:1"},{"url":"http://two:2"}]}},
            "cellEndpoints":{"y":"http://three:3"},"defaultPlacement":"y"}"#,
    )
    .unwrap();
    let message: serde_json::Value = serde_json::from_str(&encode_snapshot(&table)).unwrap();
    let expected = serde_json::json!({
        "type": "config_snapshot", "version": "2",
        "routingTable": {"a\"b": "x", "c": "y"},
        "defaults": {"tenancy": "shared"},
        "placements": {"x": {"endpoints": [{"url": "http://one:1"}, {"url": "http://two:2"}]}},
        "cellEndpoints": {"x": "http://one:1", "y": "http://three:3"},
        "defaultPlacement": "y",
    });
    assert_eq!(message, expected);
    let received = compile(decode(&message.to_string()).document.as_bytes()).unwrap();
    assert_eq!(received.digest(), table.digest());
}

#[test]
fn what_is_not_a_documents_is_left_out_and_what_is_wrong_stays() {
    for (message, version, document) in [
        (
            r#"{"type":"config_snapshot","version":"1","placements":null,"later":[1],"routingTable":{}}"#,
            "1",
            r#"{"version":"1","routingTable":{}}"#,
        ),
        // Said twice stays twice, which is refused.
        (
            r#"{"version":"1","version":"2","type":"config_snapshot"}"#,
            "1",
            r#"{"version":"1","version":"2"}"#,
        ),
        (
            r#"{"type":"config_snapshot","version":7,"placements":[],"cellEndpoints":{"a":1}}"#,
            "",
            r#"{"version":7,"placements":[],"cellEndpoints":{"a":1}}"#,
        ),
        (
            r#"{"type":"config_snapshot","placements":{"a":{}},"cellEndpoints":{"a":"x","b\n":"y","b\n":"y"}}"#,
            "",
            r#"{"placements":{"a":{}},"cellEndpoints":{"b\n":"y","b\n":"y"}}"#,
        ),
        (r#"{"type":"config_snapshot"}"#, "", "{}"),
    ] {
        let snapshot = decode(message);
        assert_eq!(
            (&*snapshot.version, &*snapshot.document),
            (version, document)
        );
    }
    let long = format!(
        r#"{{"type":"config_snapshot","version":"{}"}}"#,
        "é".repeat(5000)
    );
    assert!(decode(&long).version.len() <= 256);
    assert_eq!(
        ConfigSnapshot::decode(br#"{"type":"ping"}"#, MOST),
        Ok(Received::Unknown("ping".to_owned()))
    );
    let error = ConfigSnapshot::decode(long.as_bytes(), 1000).unwrap_err();
    assert_eq!(error.close.code(), 1009);
}

#[test]
fn replies_are_read_back_and_bounded() {
    let many: Vec<_> = (0..1000)
        .map(|index| Problem::without_place(format!("{index}\n{}", "x".repeat(100))))
        .collect();
    for reply in [
        Reply::ack("1.0.0"),
        Reply::ack(""),
        Reply::nack("1", &many[..1]),
        Reply::nack(&"v".repeat(10_000), &many),
    ] {
        let text = reply.encode();
        assert!(text.len() < 20_000);
        assert_eq!(Reply::decode(text.as_bytes()), Ok(Received::Message(reply)));
    }
    let bare = Reply::decode(br#"{"type":"nack"}"#);
    assert_eq!(bare, Ok(Received::Message(Reply::nack("", &[]))));
    let error = Reply::decode(br#"{"type":"ack","version":"a\u0000"}"#).unwrap_err();
    assert_eq!(error.close.code(), 1008);
    assert_eq!(
        error.reason(),
        "message ack: version: control character U+0000"
    );
}
