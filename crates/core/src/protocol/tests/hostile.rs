//! Whatever comes is answered, in words that fit a close frame.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::messages::{to_control, to_edge};
use crate::protocol::limits::{CLOSE_REASON_BYTES, TO_EDGE_BYTES};
use crate::protocol::{Received, Refusal, ToControl, ToEdge};

/// What is read can be said again, and means the same.
fn check(frame: &[u8]) -> Result<(), TestCaseError> {
    let fine = |refusal: &Refusal| {
        let reason = refusal.reason();
        let printable = !reason.chars().any(char::is_control);
        (1..=CLOSE_REASON_BYTES).contains(&reason.len()) && printable
    };
    match ToControl::decode(frame) {
        Ok(Received::Message(message)) => {
            let text = message.encode().unwrap();
            let again = ToControl::decode(text.as_bytes());
            prop_assert_eq!(again, Ok(Received::Message(message)));
        }
        Ok(Received::Unknown(kind)) => prop_assert!(kind.chars().count() <= 64),
        Err(refusal) => prop_assert!(fine(&refusal), "{refusal}"),
    }
    match ToEdge::decode(frame, TO_EDGE_BYTES) {
        Ok(Received::Message(message)) => {
            let text = message.encode(TO_EDGE_BYTES).unwrap();
            let again = ToEdge::decode(text.as_bytes(), TO_EDGE_BYTES);
            prop_assert_eq!(again, Ok(Received::Message(message)));
        }
        Ok(Received::Unknown(kind)) => prop_assert!(kind.chars().count() <= 64),
        Err(refusal) => prop_assert!(fine(&refusal), "{refusal}"),
    }
    Ok(())
}

/// A valid frame.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let control = to_control().into_iter().map(|one| one.encode().unwrap());
    let edge = to_edge()
        .into_iter()
        .map(|one| one.encode(TO_EDGE_BYTES).unwrap());
    select(
        control
            .chain(edge)
            .map(String::into_bytes)
            .collect::<Vec<_>>(),
    )
}

proptest! {
    #[test]
    fn any_bytes(frame in prop::collection::vec(any::<u8>(), 0..64)) {
        check(&frame)?;
    }

    #[test]
    fn any_json(kind in select(vec!["hello", "ack", "status", "delta", "welcome", "x"]), rest in "[\\[\\]{}:,\"a0 .e-]{0,24}") {
        check(format!("{{\"type\":\"{kind}\",{rest}").as_bytes())?;
        check(rest.as_bytes())?;
    }

    #[test]
    fn frames_that_were_valid(
        frame in frame(),
        edits in prop::collection::vec((any::<Index>(), 0..4_usize, prop::collection::vec(any::<u8>(), 0..3)), 1..4),
    ) {
        let mut frame = frame;
        for (at, removed, inserted) in edits {
            let at = at.index(frame.len() + 1);
            let end = (at + removed).min(frame.len());
            frame.splice(at..end, inserted);
        }
        check(&frame)?;
    }

    /// Edits that mostly leave JSON what it is: other values for fields.
    #[test]
    fn fields_that_were_valid(
        frame in frame(),
        field in any::<Index>(),
        value in select(vec!["null", "0", "-1", "1e99", "18446744073709551616", "\"\"", "\"\\u0000\"", "\"\\ud800\"", "[]", "{}", "[[]]", "{\"\":{}}", "true"]),
    ) {
        let text = String::from_utf8(frame).unwrap();
        let mut message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        let names: Vec<_> = message.keys().cloned().collect();
        let name = &names[field.index(names.len())];
        message.insert(name.clone(), "PLACE".into());
        let text = serde_json::Value::Object(message).to_string();
        check(text.replace("\"PLACE\"", value).as_bytes())?;
    }
}

#[test]
fn what_is_deep_is_refused_and_not_followed() {
    let deep = "[".repeat(100_000);
    for text in [deep.clone(), format!("{{\"type\":\"delta\",\"set\":{deep}")] {
        let refusal = ToEdge::decode(text.as_bytes(), TO_EDGE_BYTES).unwrap_err();
        assert_eq!(refusal.close.code(), 1007, "{refusal}");
    }
}
