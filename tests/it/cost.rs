//! What health checks, breakers, limits, retries, a fallback and load balancing cost while nothing fails: CPU
//! time of one edge per request, with all of them off and on in the document, in turns.
//!
//! A short form with the other tests, which shows that the measurement works; with CELLGATE_MEASURE=full
//! (`make measure`), figures and the documented bound.

use serde_json::{Value, json};

use crate::harness::{Cell, Edge, Load, Plan, cpu_time, document, guarded, median, pin, table};

/// Whether the long measurements were asked for, which need the machine for themselves.
pub fn full() -> bool {
    std::env::var("CELLGATE_MEASURE").is_ok_and(|value| value == "full")
}

const CLIENTS: usize = 32;
/// The most that a request may cost with everything on, relative to everything off.
const BOUND: f64 = 1.03;

/// What is compared: a name, and two indexes into [`Cells::documents`].
const PAIRS: [(&str, usize, usize); 4] = [
    ("off, one endpoint, and the same again", 0, 4),
    ("off and on, one endpoint", 0, 1),
    ("off and on, two endpoints", 2, 3),
    ("off with one endpoint, on with two", 0, 3),
];
/// The pairs that differ only in what is on.
const BOUNDED: [usize; 2] = [1, 2];

struct Cells {
    one: Cell,
    other: Cell,
    fallback: Cell,
}

impl Cells {
    fn documents(&self, version: &str) -> [Value; 5] {
        let (url, fallback) = (self.one.url(), self.fallback.url());
        let both = json!([{"url": url}, {"url": self.other.url()}]);
        let plain = || {
            let endpoints = json!({"one": url, "two": fallback});
            document(version, table(&[("acme", "one")]), endpoints, "one")
        };
        let with =
            |placement| guarded(version, json!({"one": placement, "two": {"url": fallback}}));
        let on = |name: &str, to: &Value| {
            let mut placement = json!({
                "load_balancing": "least_request",
                "fallback": "two",
                "health_check": {},
                "circuit_breaker": {},
                "concurrency_limit": 1_000,
                "max_request_body_bytes": 10 << 20,
                "retries": {"attempts": 3, "on": ["connect", "reset"]},
            });
            placement[name] = to.clone();
            with(placement)
        };
        [
            plain(),
            on("url", &json!(url)),
            with(json!({"endpoints": both})),
            on("endpoints", &both),
            plain(),
        ]
    }
}

/// CPU time of the edge in microseconds per request, over `requests` of them.
async fn cost(edge: &Edge, load: &Load, requests: u64) -> f64 {
    // Work that the new document causes is not counted.
    load.progress(requests / 10).await;
    let (time, done) = (cpu_time(edge.pid()), load.done());
    load.progress(requests).await;
    let (time, done) = (cpu_time(edge.pid()) - time, load.done() - done);
    time.as_secs_f64() * 1e6 / done as f64
}

/// One process serves all documents in turn, so that only their content differs. The edge has one CPU to
/// itself; clients and cells have the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_protects_costs_little_while_nothing_fails() {
    let (cycles, requests) = if full() { (30, 15_000) } else { (2, 200) };
    let cells = Cells {
        one: Cell::quiet("one/a").await,
        other: Cell::quiet("one/b").await,
        fallback: Cell::quiet("two").await,
    };
    let edge = Edge::builder()
        .routing(&cells.documents("start")[0])
        .set("threads", 1)
        .start()
        .await;
    if full() {
        pin(edge.pid(), 0);
        pin(std::process::id(), 1);
    }
    let keys = vec![("acme".to_owned(), vec!["one".to_owned()])];
    let load = Load::start(&Plan::new(edge.proxy, CLIENTS, keys));
    let mut costs: [Vec<f64>; 5] = Default::default();
    for cycle in 0..cycles {
        let mut order = [0, 1, 2, 3, 4];
        // In reverse order, so that drift favours neither side.
        if cycle % 2 == 1 {
            order.reverse();
        }
        for which in order {
            let version = format!("{cycle}-{which}");
            edge.write_routing(&cells.documents(&version)[which]);
            edge.wait_version(&version).await;
            costs[which].push(cost(&edge, &load, requests).await);
        }
    }
    load.finish().await.assert_no_failure();
    assert!(cells.one.requests() > 0 && cells.other.requests() > 0);
    assert_eq!(cells.fallback.requests(), 0);

    eprintln!("processor time of the edge per request, medians of {cycles} rounds of {requests}:");
    let ratios = PAIRS.map(|(name, off, on)| {
        let pairs = costs[off].iter().zip(&costs[on]);
        let ratio = median(pairs.map(|(off, on)| on / off));
        let [off, on] = [off, on].map(|which| median(costs[which].iter().copied()));
        eprintln!("  {name:40} {off:6.2} us {on:6.2} us   ratio {ratio:.3}");
        ratio
    });
    if full() {
        for ratio in BOUNDED.map(|pair| ratios[pair]) {
            assert!(ratio < BOUND, "{ratio:.3}, allowed is {BOUND}");
        }
    }
}
