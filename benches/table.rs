//! What a routing table costs: time to build, to look up and to change, and
//! memory. `cargo bench --bench table`, or with `-- lookup` and the like for a
//! part; `CELLGATE_BENCH_KEYS` is the size of the large table (10,000,000).

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use cellgate::table::{Delta, RoutingTable, compile, diff};
use criterion::{Criterion, criterion_group, criterion_main};
use mimalloc::MiMalloc;

const MILLION: usize = 1_000_000;
const PLACEMENTS: usize = 300;

/// The edge's allocator, and a count of what it has handed out.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to mimalloc as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = unsafe { MiMalloc.alloc(layout) };
        let live = LIVE.fetch_add(size(layout), Relaxed) + size(layout);
        PEAK.fetch_max(live, Relaxed);
        CALLS.fetch_add(1, Relaxed);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(size(layout), Relaxed);
        unsafe { MiMalloc.dealloc(block, layout) };
    }
}

/// What mimalloc takes for a block: multiples of 16 bytes up to 128, then four
/// sizes for each doubling.
fn size(layout: Layout) -> usize {
    let size = layout.size().max(1);
    let step = (size.next_power_of_two() / 8).max(16);
    size.next_multiple_of(step)
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A key of 14 bytes.
fn key(number: usize) -> String {
    format!("tenant-{number:07}")
}

fn document(keys: usize) -> String {
    let mut text = String::from(r#"{"version":"1","defaultPlacement":"cell-0","cellEndpoints":{"#);
    for number in 0..PLACEMENTS {
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(
            text,
            r#"{comma}"cell-{number}":"http://10.0.0.1:{}""#,
            1000 + number
        );
    }
    text.push_str(r#"},"routingTable":{"#);
    for number in 0..keys {
        let comma = if number > 0 { ",\n" } else { "" };
        let _ = write!(
            text,
            r#"{comma}"{}":"cell-{}""#,
            key(number),
            number % PLACEMENTS
        );
    }
    text.push_str("}}");
    text
}

fn one_key(number: usize, placement: usize) -> Delta {
    Delta {
        set: vec![(key(number), format!("cell-{}", placement % PLACEMENTS))],
        ..Delta::default()
    }
}

/// Numbers below `bound` in no order, the same ones each time.
fn scattered(bound: usize) -> impl Iterator<Item = usize> {
    (1..).map(move |step: u64| (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize % bound)
}

fn table(keys: usize) -> RoutingTable {
    let document = document(keys);
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let table = compile(document.as_bytes()).expect("a valid document");
    let per_key = |bytes: usize| bytes as f64 / keys as f64;
    println!(
        "{keys} keys of 14 bytes: {:.1} bytes a key; while building at most {:.1}, beside {:.1} of the document",
        per_key(LIVE.load(Relaxed) - before),
        per_key(PEAK.load(Relaxed) - before),
        per_key(document.len()),
    );
    table
}

fn build(criterion: &mut Criterion) {
    let document = document(MILLION);
    let mut group = criterion.benchmark_group("build");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    group.bench_function("1M", |bench| {
        bench.iter_with_large_drop(|| compile(document.as_bytes()).expect("a valid document"));
    });
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    let table = table(MILLION);
    let mut group = criterion.benchmark_group("lookup");
    for (name, first) in [("hit", b't'), ("miss", b'T')] {
        // One after the other in memory, so that only the table is jumped about in.
        let keys: Vec<[u8; 14]> = scattered(MILLION)
            .take(MILLION)
            .map(|number| {
                let mut bytes = [0; 14];
                bytes.copy_from_slice(key(number).as_bytes());
                bytes[0] = first;
                bytes
            })
            .collect();
        let mut next = keys.iter().cycle();
        let calls = CALLS.load(Relaxed);
        for key in &keys {
            black_box(table.route(key));
        }
        assert_eq!(CALLS.load(Relaxed), calls, "lookups allocate nothing");
        group.bench_function(format!("1M {name}"), |bench| {
            bench.iter(|| table.route(next.next().map_or(b"", |key| key)));
        });
    }
    group.finish();
}

fn delta(criterion: &mut Criterion) {
    let large = std::env::var("CELLGATE_BENCH_KEYS")
        .ok()
        .and_then(|keys| keys.parse().ok());
    let mut group = criterion.benchmark_group("delta");
    for keys in [MILLION, large.unwrap_or(10 * MILLION)] {
        let table = table(keys);
        let deltas: Vec<Delta> = scattered(keys)
            .take(4096)
            .map(|number| one_key(number, number + 1))
            .collect();
        let mut next = deltas.iter().cycle();
        group.bench_function(format!("one of {keys}"), |bench| {
            bench.iter(|| table.apply(next.next().unwrap_or(&deltas[0])));
        });
        let changed = table.apply(&deltas[0]).expect("a valid delta");
        group.bench_function(format!("diff of one of {keys}"), |bench| {
            bench.iter(|| diff(&table, &changed));
        });
    }
    group.finish();
}

criterion_group!(benches, build, lookup, delta);
criterion_main!(benches);
