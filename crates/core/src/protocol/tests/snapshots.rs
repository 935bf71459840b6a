use proptest::prelude::*;
use proptest::sample::Index;

use super::{any_table, large, seen, table};
use crate::protocol::limits::{CHUNK_BYTES, CHUNK_FRAME_BYTES, KEY_BYTES};
use crate::protocol::{
    ChunkHeader, SnapshotBegin, SnapshotEnd, SnapshotError, SnapshotLimits, SnapshotReceiver,
    SnapshotSender, Unsendable,
};
use crate::table::RoutingTable;

struct Frames {
    begin: SnapshotBegin,
    chunks: Vec<Vec<u8>>,
    end: SnapshotEnd,
}

fn send(table: &RoutingTable) -> Frames {
    let mut sender = SnapshotSender::new(table, 7, 3).unwrap();
    let begin = sender.begin();
    let chunks = sender.by_ref().map(Result::unwrap).collect();
    let end = sender.end();
    Frames { begin, chunks, end }
}

impl Frames {
    fn receive(&self) -> Result<RoutingTable, SnapshotError> {
        self.receive_within(SnapshotLimits::default())
    }

    fn receive_within(&self, limits: SnapshotLimits) -> Result<RoutingTable, SnapshotError> {
        let mut receiver = SnapshotReceiver::new(self.begin.clone(), limits)?;
        for chunk in &self.chunks {
            receiver.chunk(chunk)?;
        }
        receiver.end(self.end)
    }

    /// A chunk with this payload, in place of the one that has its index.
    fn put(&mut self, index: usize, entries: u32, payload: &[u8]) {
        let mut frame = 7_u64.to_be_bytes().to_vec();
        frame.extend((index as u32).to_be_bytes());
        frame.extend(entries.to_be_bytes());
        frame.extend(zstd::bulk::compress(payload, 1).unwrap());
        self.chunks[index] = frame;
    }
}

#[track_caller]
fn assert_broken(frames: &Frames, expected: &str) {
    match frames.receive() {
        Err(SnapshotError::Broken(why)) => assert!(why.contains(expected), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(result: Result<RoutingTable, SnapshotError>, expected: &str) {
    match result {
        Err(SnapshotError::Refused(problems)) => {
            let message = problems[0].to_string();
            assert!(message.contains(expected), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn many_keys_pass_in_chunks_of_bounded_size() {
    let table = large(50_000);
    let frames = send(&table);
    assert!(frames.chunks.len() >= 4, "{}", frames.chunks.len());
    assert!(
        frames
            .chunks
            .iter()
            .all(|chunk| chunk.len() <= CHUNK_FRAME_BYTES)
    );
    let wire: usize = frames.chunks.iter().map(Vec::len).sum();
    assert!(wire < 50_000 * 8, "{wire} bytes");
    assert_eq!(seen(&frames.receive().unwrap()), seen(&table));
}

#[test]
fn what_does_not_compress_and_the_longest_keys_fit() {
    let mut state = 1_u64;
    let mut noise = |length: usize| -> String {
        let next = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from_u32(0x4e00 + (state >> 40) as u32 % 0x5000).unwrap()
        };
        (0..length / 3).map(next).collect()
    };
    let keys: Vec<_> = (0..20).map(|_| noise(KEY_BYTES)).collect();
    let table = table("1", keys.iter().map(|key| (&**key, 1)));
    let frames = send(&table);
    assert!(frames.chunks.len() >= 6);
    for chunk in &frames.chunks {
        assert!(chunk.len() <= CHUNK_FRAME_BYTES, "{}", chunk.len());
    }
    assert_eq!(seen(&frames.receive().unwrap()), seen(&table));

    // The bound of a frame is that of the worst that zstd can do.
    let worst = zstd::zstd_safe::compress_bound(CHUNK_BYTES) + 16;
    assert!(worst <= CHUNK_FRAME_BYTES, "{worst}");
}

#[test]
fn a_head_may_be_larger_than_a_chunk() {
    let cells: Vec<_> = (0..20_000)
        .map(|index| format!("\"c{index}\":\"http://cell-{index}\""))
        .collect();
    let document = format!(
        r#"{{"version":"1","routingTable":{{"a":"c7"}},"cellEndpoints":{{{}}},"defaultPlacement":"c0"}}"#,
        cells.join(",")
    );
    let table = crate::table::compile(document.as_bytes()).unwrap();
    let mut frames = send(&table);
    let heads = table.head_json().len().div_ceil(CHUNK_BYTES);
    assert!(heads > 1);
    assert_eq!(frames.chunks.len(), heads + 1);
    assert_eq!(seen(&frames.receive().unwrap()), seen(&table));
    frames.chunks.remove(heads - 1);
    frames.chunks.truncate(heads - 1);
    assert_broken(&frames, "it ends before the end of the head");
}

#[test]
fn a_key_that_is_too_long_is_named() {
    let key = "k".repeat(KEY_BYTES + 1);
    let table = table("1", [("a", 1), (&*key, 2)]);
    let mut sender = SnapshotSender::new(&table, 1, 1).unwrap();
    let error = sender.find_map(Result::err).unwrap();
    assert!(matches!(error, Unsendable::Key(_)));
    assert_eq!(
        error.to_string(),
        "routing key of 65537 bytes, which cannot be sent to edges (at most 65536)"
    );
}

#[test]
fn limits_hold_before_and_while_it_arrives() {
    let frames = send(&large(20_000));
    let limits = |keys, bytes| frames.receive_within(SnapshotLimits { keys, bytes });
    assert!(limits(20_000, 1 << 20).is_ok());
    assert_refused(
        limits(19_999, 1 << 20),
        "snapshot of 20000 keys (at most 19999)",
    );
    assert_refused(limits(20_000, 100), "bytes or more (at most 100)");
    assert_refused(limits(20_000, 200_000), "bytes or more (at most 200000)");
}

#[test]
fn chunks_say_what_is_wrong_with_them() {
    let frames = || send(&table("1", [("acme", 1)]));
    let change = |change: &dyn Fn(&mut Frames)| {
        let mut frames = frames();
        change(&mut frames);
        frames
    };
    assert_broken(&change(&|f| f.chunks[1].truncate(15)), "chunk of 15 bytes");
    assert_broken(
        &change(&|f| f.chunks[1][7] = 8),
        "chunk of snapshot 8 within snapshot 7",
    );
    assert_broken(
        &change(&|f| f.end.id = 8),
        "end of snapshot 8 within snapshot 7",
    );
    assert_broken(
        &change(&|f| f.chunks.swap(0, 1)),
        "chunk 1 instead of chunk 0",
    );
    assert_broken(
        &change(&|f| f.end.chunks = 3),
        "2 chunks with 1 keys arrived of 3 with 1",
    );
    assert_broken(
        &change(&|f| f.begin.keys = 2),
        "2 chunks with 1 keys arrived of 2 with 2",
    );
    assert_broken(&change(&|f| f.begin.keys = 0), "more keys than the 0");
    assert_broken(
        &change(&|f| f.begin.head_bytes += 1),
        "keys before the end of the head",
    );
    assert_broken(
        &change(&|f| f.begin.head_bytes -= 1),
        "more bytes of a head of",
    );
    assert_broken(&change(&|f| f.put(0, 0, b"")), "0 more bytes of a head");
    assert_broken(&change(&|f| f.put(1, 0, b"{}")), "chunk 1: no keys");
    assert_broken(
        &change(&|f| f.begin.digest = table("2", []).digest()),
        "its digest is",
    );
    for (entries, payload, expected) in [
        (1, &b""[..], "the number of placements is missing"),
        (1, b"\x01", "the length of a text is missing"),
        (1, b"\x01\x03p1", "a text of 3 bytes is cut off"),
        (1, b"\x01\x02p1", "the length of a text is missing"),
        (1, b"\x01\x02p1\x04acme", "a key without the index"),
        (1, b"\x01\x02p1\x04acme\x01", "placement 1 of a list of 1"),
        (1, b"\x00\x04acme\x00", "placement 0 of a list of 0"),
        (
            1,
            b"\x01\x02p1\x04acme\x00\x00",
            "1 bytes after the last key",
        ),
        (1, b"\x01\x02p1\x01\xff\x00", "a text that is not UTF-8"),
        (1, b"\x01\x02p1\x04acme\x80\x00", "a key without the index"),
    ] {
        assert_broken(&change(&|f| f.put(1, entries, payload)), expected);
    }
    let other = change(&|f| f.put(1, 1, b"\x01\x02p9\x04acme\x00"));
    assert_refused(other.receive(), "unknown placement \"p9\"");
    let empty = change(&|f| f.put(1, 1, b"\x01\x02p1\x00\x00"));
    assert_refused(empty.receive(), "empty routing key");
    let twice = change(&|f| {
        f.begin.keys = 2;
        f.put(1, 2, b"\x01\x02p1\x04acme\x00\x04acme\x00");
    });
    assert_refused(twice.receive(), "duplicate routing key");
    let head = change(&|f| {
        f.begin.head_bytes = 2;
        f.put(0, 0, b"{}");
    });
    assert_refused(head.receive(), "missing field \"version\"");
    let gzip = change(&|f| f.begin.encoding = "gzip".to_owned());
    assert_refused(gzip.receive(), "encoding \"gzip\" (known: zstd)");
    assert!(frames().receive().is_ok());
}

#[test]
fn what_decompresses_to_more_than_a_chunk_is_refused() {
    let mut frames = send(&table("1", [("acme", 1)]));
    for bytes in [CHUNK_BYTES + 1, 1 << 30] {
        frames.put(1, 1, &vec![0; bytes]);
        assert!(frames.chunks[1].len() < 100_000);
        assert_broken(&frames, "does not decompress to at most 262144 bytes");
    }
    let mut two = send(&table("1", [("acme", 1)]));
    let one = two.chunks[1][16..].to_vec();
    two.chunks[1].extend(&one);
    assert_broken(&two, "not one zstd frame");
    two.chunks[1].truncate(16);
    assert_broken(&two, "not one zstd frame");
    // A frame to skip (RFC 8878, section 3.1.2) has no content at all.
    two.chunks[1].extend(b"\x50\x2a\x4d\x18\x04\0\0\0abcd");
    assert_broken(&two, "not one zstd frame");
    two.chunks[1].resize(CHUNK_FRAME_BYTES + 1, 0);
    assert_broken(&two, "bytes (at most ");
}

/// Something that may happen to frames on their way.
#[derive(Clone, Debug)]
enum Fault {
    Drop(Index),
    Repeat(Index),
    Swap(Index, Index),
    Byte(Index, Index, u8),
    Cut(Index, Index),
}

fn fault() -> impl Strategy<Value = Fault> {
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(Fault::Drop),
        index().prop_map(Fault::Repeat),
        (index(), index()).prop_map(|(one, other)| Fault::Swap(one, other)),
        (index(), index(), 1..=255_u8).prop_map(|(chunk, at, bits)| Fault::Byte(chunk, at, bits)),
        (index(), index()).prop_map(|(chunk, at)| Fault::Cut(chunk, at)),
    ]
}

impl Fault {
    fn strike(&self, chunks: &mut Vec<Vec<u8>>) {
        let count = chunks.len();
        if count == 0 {
            return;
        }
        match self {
            Self::Drop(at) => drop(chunks.remove(at.index(count))),
            Self::Repeat(at) => chunks.push(chunks[at.index(count)].clone()),
            Self::Swap(one, other) => chunks.swap(one.index(count), other.index(count)),
            Self::Byte(chunk, at, bits) => {
                let chunk = &mut chunks[chunk.index(count)];
                if !chunk.is_empty() {
                    let at = at.index(chunk.len());
                    chunk[at] ^= bits;
                }
            }
            Self::Cut(chunk, at) => {
                let chunk = &mut chunks[chunk.index(count)];
                chunk.truncate(at.index(chunk.len() + 1));
            }
        }
    }
}

proptest! {
    #[test]
    fn a_snapshot_is_the_table(table in any_table()) {
        let frames = send(&table);
        let received = frames.receive().unwrap();
        prop_assert_eq!(seen(&received), seen(&table));
        prop_assert_eq!(received.digest(), table.digest());
        for (chunk, index) in frames.chunks.iter().zip(0..) {
            let (header, _) = ChunkHeader::split(chunk).unwrap();
            prop_assert_eq!((header.id, header.index), (7, index));
        }
    }

    /// Whatever happens on the way: it is refused, or it is the table.
    #[test]
    fn faults_are_found(table in any_table(), faults in prop::collection::vec(fault(), 1..4)) {
        let mut frames = send(&table);
        for fault in &faults {
            fault.strike(&mut frames.chunks);
        }
        if let Ok(received) = frames.receive() {
            prop_assert_eq!(seen(&received), seen(&table));
        }
    }

    #[test]
    fn any_payload_is_answered(entries in 0..4_u32, payload in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut frames = send(&table("1", [("acme", 1)]));
        frames.put(1, entries, &payload);
        let _ = frames.receive();
        frames.chunks[1].truncate(16);
        frames.chunks[1].extend(&payload);
        prop_assert!(frames.receive().is_err());
    }
}
