use proptest::prelude::*;

use super::super::record;
use super::{Fixture, at, version};
use crate::state::{Generation, Push, Pushed, Source};
use crate::table::Delta;

fn written(generation: &Generation) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::write(generation, &mut bytes).unwrap();
    bytes
}

fn sample() -> Vec<u8> {
    written(&Fixture::new().changed(&version("1")))
}

#[test]
fn is_what_its_description_says() {
    let text = String::from_utf8(sample()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [header, document, trailer] = lines[..] else {
        panic!("{text}");
    };
    assert!(text.ends_with("}\n"));
    let header: serde_json::Value = serde_json::from_str(header).unwrap();
    assert_eq!(header["cellgate_generation"], 2);
    assert_eq!(header["generation"], 1);
    assert_eq!(header["version"], "1");
    assert_eq!(header["source"], "file");
    assert_eq!(header["control_generation"], serde_json::Value::Null);
    assert_eq!(header["keys"], 2);
    assert_eq!(header["applied_at"], "2026-01-03T20:45:12.000Z");
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let original: serde_json::Value = serde_json::from_slice(&version("1")).unwrap();
    assert_eq!(document, original);
    assert!(trailer.starts_with("{\"sha256\":\""));
}

#[test]
fn what_was_written_is_read_back() {
    let generation = Fixture::new().changed(&version("1"));
    let stored = record::read(&written(&generation)).unwrap();
    assert_eq!(stored.number, generation.number);
    assert_eq!(stored.sha256, generation.sha256);
    assert_eq!(stored.source, generation.source);
    assert_eq!(stored.applied_at, at(0));
    assert_eq!(stored.table.digest(), generation.table.digest());
}

#[test]
fn a_torn_file_is_refused_wherever_it_ends() {
    let whole = sample();
    for length in 0..whole.len() {
        let refused = record::read(&whole[..length]);
        assert!(refused.is_err(), "of {length} bytes");
    }
    let longer = [whole.as_slice(), b"\n"].concat();
    assert!(record::read(&longer).is_err());
}

#[test]
fn a_damaged_file_is_refused_wherever_the_damage_is() {
    let whole = sample();
    for place in 0..whole.len() {
        for damage in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[place] ^= damage;
            assert!(record::read(&bytes).is_err(), "byte {place}");
        }
    }
}

/// With a hash that is right: not damaged, but not ours.
fn sealed(lines: &str) -> Vec<u8> {
    use crate::state::Sha256;
    let hash = Sha256::of(lines.as_bytes());
    format!("{lines}{{\"sha256\":\"{hash}\"}}\n").into_bytes()
}

#[test]
fn a_whole_file_has_to_make_sense() {
    let text = String::from_utf8(sample()).unwrap();
    let end = text.trim_end().rfind('\n').unwrap();
    let lines = &text[..=end];
    assert!(record::read(&sealed(lines)).is_ok());
    for (what, with, why) in [
        (
            "\"cellgate_generation\":2",
            "\"cellgate_generation\":3",
            "it has the format 3 (known: 1 to 2)",
        ),
        (
            "\"acme\":\"one\"",
            "\"acme\":\"two\"",
            "its table has the digest ",
        ),
        (
            "\"acme\":\"one\"",
            "\"acme\":\"oen\"",
            "its table is not valid: ",
        ),
        (
            "\"applied_at\":\"",
            "\"applied_at\":\"x",
            "its header has a time that is none",
        ),
        (
            "\"source\":\"file\"",
            "\"source\":\"hearsay\"",
            "its header cannot be read: ",
        ),
    ] {
        assert!(lines.contains(what), "{what}");
        let refused = record::read(&sealed(&lines.replace(what, with))).unwrap_err();
        assert!(refused.starts_with(why), "{refused}");
    }
}

#[test]
fn a_generation_of_a_control_plane_keeps_its_number() {
    let edge = Fixture::new();
    let table = edge.changed(&version("1")).table.digest();
    let push = Push::Delta(Delta::default());
    let Pushed::Changed(generation) = edge.state.push(push, 77, table, at(9)) else {
        panic!("it was not applied");
    };
    let stored = record::read(&written(&generation)).unwrap();
    assert_eq!(stored.source, Source::ControlPlane);
    assert_eq!((stored.number, stored.control_generation), (2, Some(77)));
    assert_eq!(stored.sha256, None);
}

/// Files of format 1 are those of the version before.
#[test]
fn the_format_before_is_read() {
    let text = String::from_utf8(sample()).unwrap();
    let end = text.trim_end().rfind('\n').unwrap();
    let old = text[..=end]
        .replace("\"cellgate_generation\":2", "\"cellgate_generation\":1")
        .replace("\"control_generation\":null,", "");
    assert!(!old.contains("control_generation"), "{old}");
    let stored = record::read(&sealed(&old)).unwrap();
    assert_eq!((stored.number, stored.control_generation), (1, None));
    assert!(stored.sha256.is_some());
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        prop_assert!(record::read(&bytes).is_err());
    }

    #[test]
    fn any_lines_with_the_right_hash(header in "\\PC{0,80}", document in "\\PC{0,80}") {
        let _ = record::read(&sealed(&format!("{header}\n{document}\n")));
    }
}
