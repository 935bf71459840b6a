//! What needs no etcd: names, values, and what an error means; and `upkeep`, which
//! does. The rest is in `tests/it/etcd_*.rs`.

mod upkeep;

use std::sync::Arc;

use proptest::prelude::*;
use tonic::{Code, Status};
use url::Url;

use super::EtcdStore;
use super::keys::{BlobId, Keys, Kind};
use super::members::Verdict;
use super::value::{self, BaseValue, BlobName, CommitValue, Content};
use crate::control::settings::EtcdSettings;
use crate::control::store::{Author, Record, Store};
use crate::table::{self, Delta, RoutingTable};

fn table(keys: usize) -> RoutingTable {
    let keys: Vec<String> = (0..keys)
        .map(|key| format!("\"tenant-{key}\":\"one\""))
        .collect();
    let document = format!(
        r#"{{"version":"1","routingTable":{{{}}},"cellEndpoints":{{"one":"http://a"}},"defaultPlacement":"one"}}"#,
        keys.join(",")
    );
    table::compile(document.as_bytes()).unwrap()
}

fn record() -> Record {
    Record {
        generation: 7,
        parent: 6,
        digest: table(1).digest(),
        version: "1".to_owned(),
        keys: 1,
        at: std::time::UNIX_EPOCH,
        author: Author::default(),
        set: 1,
        removed: 0,
        head: false,
        id: "0123".to_owned(),
    }
}

fn settings() -> EtcdSettings {
    EtcdSettings {
        endpoints: vec![Url::parse("http://127.0.0.1:2379").unwrap()],
        ..EtcdSettings::default()
    }
}

#[test]
fn keys_are_in_the_order_of_generations() {
    let keys = Keys::new("/a/b/");
    assert_eq!(keys.prefix(), "/a/b/");
    assert_eq!(keys.head(), "/a/b/head");
    assert_eq!(Keys::new("").head(), "head");
    assert_eq!(
        keys.of(Kind::Commit, 12),
        "/a/b/commits/00000000000000000012"
    );
    let numbers = [0, 9, 10, 99, 1 << 53, u64::MAX];
    for pair in numbers.windows(2) {
        let [low, high] = [pair[0], pair[1]].map(|number| keys.of(Kind::Base, number));
        assert!(low < high);
        assert_eq!(keys.generation(Kind::Base, high.as_bytes()), Some(pair[1]));
        assert_eq!(keys.generation(Kind::Commit, high.as_bytes()), None);
    }
    for other in [&b"/a/b/commits/x"[..], b"/a/bcommits/1", b"\xff", b""] {
        assert_eq!(keys.generation(Kind::Commit, other), None);
    }
}

#[test]
fn pieces_belong_to_their_blob_alone() {
    let keys = Keys::new("/a");
    let id = BlobId::new(12, Kind::Base);
    let other = BlobId::new(12, Kind::Base);
    assert_ne!(id, other);
    for piece in [0, 1, 1_000_000] {
        let key = keys.piece(&id.text, piece);
        assert_eq!(keys.blob_of(key.as_bytes()), Some(id.clone()));
        assert_eq!(keys.piece_index(key.as_bytes()), Some(piece));
        assert_eq!(keys.pieces(&id.text, 1).contains(&key), piece >= 1);
        assert!(!keys.pieces(&other.text, 0).contains(&key));
        assert!(key < keys.after_blob(&id.text) && key < keys.blobs_end());
        assert!(keys.blobs_below(13).contains(&key));
        assert!(!keys.blobs_below(12).contains(&key));
    }
    for other in [&b"/a/blobs/x"[..], b"/a/blobs/1-x-2/0", b"/a/head", b"\xff"] {
        assert_eq!(keys.blob_of(other), None);
    }
}

#[test]
fn values_are_json_with_a_format() {
    let delta = Delta {
        head: None,
        set: vec![("acme".to_owned(), "one".to_owned())],
        remove: vec!["visa".to_owned()],
    };
    let commit = CommitValue::new(record(), Content::Delta(delta.clone()));
    let json = value::write(&commit).unwrap();
    let text = String::from_utf8(json.clone()).unwrap();
    assert!(
        text.starts_with(r#"{"format":1,"record":{"generation":7,"#),
        "{text}"
    );
    assert!(
        text.ends_with(r#""content":{"delta":{"set":[["acme","one"]],"remove":["visa"]}}}"#),
        "{text}"
    );
    let read: CommitValue = value::read(b"key", &json).unwrap();
    assert_eq!(read.record, record());
    let Content::Delta(read) = read.content else {
        panic!("{text}");
    };
    assert_eq!(read, delta);

    let name = BlobName {
        id: "1-b-2".to_owned(),
        pieces: 2,
        bytes: 700_000,
    };
    let base = value::write(&BaseValue::new(record(), name.clone())).unwrap();
    assert_eq!(value::read::<BaseValue>(b"key", &base).unwrap().table, name);
}

#[test]
fn what_is_no_value_of_ours_is_refused() {
    for (text, expected) in [
        ("", "is not one of cellgate's"),
        ("7", "is not one of cellgate's"),
        (r#"{"format":2}"#, "has the format 2 (known: 1)"),
        (r#"{"format":1}"#, "cannot be read: missing field `record`"),
        (
            r#"{"format":1,"record":{}}"#,
            "cannot be read: missing field",
        ),
    ] {
        let error = value::read::<CommitValue>(b"a/\nb", text.as_bytes()).unwrap_err();
        let start = format!("etcd: the value of \"a/\\nb\" {expected}");
        assert!(error.0.starts_with(&start), "{error}");
    }
}

#[test]
fn only_small_deltas_are_in_their_commit() {
    let with = |keys: usize, bytes: usize| Delta {
        set: vec![("k".repeat(bytes), "one".to_owned()); keys],
        ..Delta::default()
    };
    assert!(value::is_small(&Delta::default()));
    assert!(value::is_small(&with(1_000, 10)));
    assert!(!value::is_small(&with(1_000, 50)));
    assert!(!value::is_small(&with(1, 40_000)));
    let head = Delta {
        head: Some(" ".repeat(40_000)),
        ..Delta::default()
    };
    assert!(!value::is_small(&head));
}

#[test]
fn a_table_cut_short_or_changed_is_refused() {
    let table = table(3_000);
    let mut bytes = Vec::new();
    value::write_table(&table, 7, &mut bytes).unwrap();
    let read = value::read_table(&mut &*bytes).unwrap();
    assert_eq!(read.digest(), table.digest());
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        let error = value::read_table(&mut &bytes[..length]).unwrap_err();
        assert!(error.contains("its end is missing"), "{length}: {error}");
    }
    for at in (0..bytes.len()).step_by(61) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        // Where it makes no difference, such as in the generation, it is the same table.
        if let Ok(read) = value::read_table(&mut &*changed) {
            assert_eq!(read.digest(), table.digest(), "{at}");
        }
    }
    bytes.push(0);
    assert!(value::read_table(&mut &*bytes).is_err());
    let huge = [0xff; 8];
    let error = value::read_table(&mut &huge[..]).unwrap_err();
    assert!(error.starts_with("a part of 4294967295 bytes"), "{error}");
}

proptest! {
    #[test]
    fn every_delta_is_read_back(
        head in proptest::option::of(".*"),
        set in proptest::collection::vec((".*", ".*"), 0..20),
        remove in proptest::collection::vec(".*", 0..20),
    ) {
        let delta = Delta { head, set, remove };
        let mut bytes = Vec::new();
        value::write_delta(&delta, &mut bytes).unwrap();
        prop_assert_eq!(&value::read_delta(&mut &*bytes).unwrap(), &delta);
        bytes.pop();
        prop_assert!(value::read_delta(&mut &*bytes).is_err());
        let commit = CommitValue::new(record(), Content::Delta(delta.clone()));
        let json = value::write(&commit).unwrap();
        let read: CommitValue = value::read(b"key", &json).unwrap();
        let Content::Delta(read) = read.content else { panic!("no delta") };
        prop_assert_eq!(read, delta);
    }
}

#[test]
fn what_an_error_means_for_a_change() {
    let status = |code, message: &str| Verdict::of(&Status::new(code, message));
    for (code, message, expected) in [
        (Code::Unavailable, "etcdserver: no leader", Verdict::Later),
        (
            Code::ResourceExhausted,
            "etcdserver: too many requests",
            Verdict::Later,
        ),
        (
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
            Verdict::Never,
        ),
        (
            Code::Unavailable,
            "etcdserver: request timed out",
            Verdict::Doubtful,
        ),
        (
            Code::Unavailable,
            "etcdserver: leader changed",
            Verdict::Doubtful,
        ),
        (Code::Unavailable, "connection reset", Verdict::Doubtful),
        (Code::Unknown, "", Verdict::Doubtful),
        (Code::Internal, "h2 protocol error", Verdict::Doubtful),
        (Code::Cancelled, "", Verdict::Doubtful),
        (
            Code::PermissionDenied,
            "etcdserver: permission denied",
            Verdict::Never,
        ),
        (
            Code::Unauthenticated,
            "etcdserver: invalid auth token",
            Verdict::Stale,
        ),
        (
            Code::InvalidArgument,
            "etcdserver: revision of auth store is old",
            Verdict::Stale,
        ),
        (
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
            Verdict::LoggedOut,
        ),
        (
            Code::InvalidArgument,
            "etcdserver: request is too large",
            Verdict::Never,
        ),
    ] {
        assert_eq!(status(code, message), expected, "{message}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused() {
    let error = |change: &dyn Fn(&mut EtcdSettings)| {
        let mut settings = settings();
        change(&mut settings);
        EtcdStore::new(&settings, 10).err().unwrap().0
    };
    assert_eq!(
        error(&|settings| settings.endpoints.clear()),
        "etcd: no endpoints (want at least one)"
    );
    assert_eq!(
        error(&|settings| settings.endpoints = vec![Url::parse("ftp://a:1").unwrap()]),
        "etcd: endpoint ftp://a:1/: neither http:// nor https://"
    );
    let missing = || Some("/no/such/file".into());
    for (name, error) in [
        ("ca_file", error(&|settings| settings.ca_file = missing())),
        (
            "client_cert",
            error(&|settings| settings.client_cert = missing()),
        ),
        (
            "client_key",
            error(&|settings| settings.client_key = missing()),
        ),
    ] {
        let start = format!("etcd: {name}: cannot use /no/such/file: ");
        assert!(error.starts_with(&start), "{error}");
    }
    let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&settings(), 10).unwrap());
    assert_eq!(store.name(), "etcd http://127.0.0.1:2379 /cellgate/");
}

/// Keys and values as other releases find them. A change of this file is a change of the
/// format.
#[test]
fn the_format_of_keys_and_values_is_the_golden_one() {
    let keys = Keys::new("/cellgate");
    let blob = |id: &str| BlobName {
        id: id.to_owned(),
        pieces: 2,
        bytes: 600_000,
    };
    let delta = Delta {
        head: Some(r#"{"version":"2"}"#.to_owned()),
        set: vec![("visa".to_owned(), "one".to_owned())],
        remove: vec!["acme".to_owned()],
    };
    let commit = |content| value::write(&CommitValue::new(record(), content)).unwrap();
    let (table_id, delta_id) = ("00000000000000000007-b-01", "00000000000000000007-c-01");
    let key = keys.of(Kind::Commit, 7);
    let mut zstd = Vec::new();
    value::write_delta(&delta, &mut zstd).unwrap();
    let mut lines = String::new();
    for (key, value) in [
        (keys.head(), value::write(&record()).unwrap()),
        (key.clone(), commit(Content::Delta(delta))),
        (key.clone(), commit(Content::DeltaBlob(blob(delta_id)))),
        (key, commit(Content::TableBlob(blob(delta_id)))),
        (
            keys.of(Kind::Base, 7),
            value::write(&BaseValue::new(record(), blob(table_id))).unwrap(),
        ),
        (keys.piece(delta_id, 1), zstd::decode_all(&*zstd).unwrap()),
    ] {
        lines += &format!("{key}\n    {}\n", String::from_utf8(value).unwrap());
    }
    assert_eq!(lines, include_str!("format.txt"));
}
