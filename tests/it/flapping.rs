//! Reloads under load while cells fail and recover: the edge's counts and states stay correct.
//!
//! A short form with the other tests; with CELLGATE_SOAK=full (`make soak`), 1,000 reloads.

use serde_json::{Value, json};

use crate::harness::{Cell, DemoCell, Edge, Failure, Load, Plan, eventually, memory, open_files};
use crate::soak;

/// The most that memory may grow between the first quarter and the end, in bytes.
const FLAT: u64 = 12 << 20;
/// Reloads from one death of a cell to the next; it is restarted half-way.
const LIFE: usize = 20;

struct Cells {
    /// Never fails.
    well: DemoCell,
    /// Two endpoints of one placement; the second is killed and started again.
    pair: [DemoCell; 2],
    /// Resets connections in every other interval.
    resets: DemoCell,
    /// Answers 500 in every other interval.
    errs: DemoCell,
    /// Fails the one request that opens its breaker. No other request may reach it.
    dead: Cell,
    /// Named by the documents, but no tenant lives there and no placement falls back to it.
    trap: Cell,
}

impl Cells {
    async fn new() -> Cells {
        Cells {
            well: DemoCell::start("well", &[]).await,
            pair: [
                DemoCell::start("pair/a", &[]).await,
                DemoCell::start("pair/b", &[]).await,
            ],
            resets: DemoCell::start("resets", &["--flap", "150ms", "--reset"]).await,
            errs: DemoCell::start("errs", &["--flap", "110ms", "--status", "500"]).await,
            dead: Cell::answering("dead", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await,
            trap: Cell::quiet("trap").await,
        }
    }

    /// `dead` and `pair` are the same in every round. Each of the others changes something that requests in
    /// flight depend on: their limit, the breaker, the load balancing, or whether the placement exists.
    fn document(&self, round: usize) -> Value {
        let odd = round % 2 == 1;
        let pair = [&self.pair[0], &self.pair[1]].map(|cell| json!({"url": cell.url()}));
        let mut document = json!({
            "version": format!("v{round}"),
            "routingTable": {
                "well": "well", "pair": "pair", "resets": "resets", "errs": "errs", "dead": "dead",
                "mover": home(round),
            },
            "placements": {
                "well": {"url": self.well.url(), "tenancy": if odd { "shared" } else { "dedicated" }},
                "pair": {"endpoints": pair, "retries": {"on": ["connect", "reset"]}},
                "resets": {
                    "url": self.resets.url(), "fallback": "well",
                    "circuit_breaker": {"failure_threshold": 2, "timeout": if odd { "20ms" } else { "30ms" }},
                    "concurrency_limit": 1 + round % 3,
                },
                "errs": {
                    "endpoints": [{"url": self.errs.url(), "weight": 1 + round % 5}],
                    "circuit_breaker": {"failure_threshold": 3, "timeout": "20ms"},
                    "load_balancing": if odd { "hash" } else { "round_robin" },
                },
                "dead": {
                    "url": self.dead.url(), "fallback": "well",
                    "circuit_breaker": {"failure_threshold": 1, "timeout": "1h"},
                },
                "trap": {"url": self.trap.url()},
            },
            "defaultPlacement": "well",
        });
        if round % 4 == 3 {
            // It comes back two rounds later with a new state.
            let placements = document["placements"].as_object_mut().expect("an object");
            placements.remove("errs");
            document["routingTable"]["errs"] = json!("resets");
        }
        document
    }
}

/// Where the tenant `mover` lives.
fn home(round: usize) -> &'static str {
    if round % 2 == 1 { "well" } else { "pair" }
}

fn keys(keys: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    keys.iter()
        .map(|&(key, allowed)| (key.to_owned(), owned(allowed)))
        .collect()
}

/// What the edge reports as in flight: at every placement, and at every backend that a tenant can reach.
async fn in_flight(edge: &Edge, tenants: &[&str]) -> f64 {
    let mut sum = edge
        .metric(&["cellgate_placement_requests_in_flight"])
        .await;
    for tenant in tenants {
        let path = format!("/debug/route?key={tenant}");
        let shown = edge.admin(&path).await.json();
        let candidates = shown["candidates"].as_array().expect("candidates").clone();
        let counts = candidates.iter().map(|c| c["in_flight"].as_f64());
        sum += counts.map(|count| count.expect("a number")).sum::<f64>();
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_while_cells_flap_lose_nothing() {
    let rounds = if soak::full() { 1_000 } else { 60 };
    let mut cells = Cells::new().await;
    let edge = Edge::builder()
        .routing(&cells.document(0))
        // Long idle times would hide a leaked connection.
        .set("cellgate.timeouts.upstream_idle", "500ms")
        .start()
        .await;
    // The first response of the admin service and the first reload may open files that stay open.
    edge.write_routing(&cells.document(1));
    edge.wait_version("v1").await;
    let files = open_files(edge.pid());

    let opens = edge.get("dead", "/").await;
    assert_eq!(opens.status, 500);
    let spared = Load::start(&Plan::new(
        edge.proxy,
        6,
        keys(&[
            ("well", &["well"]),
            ("pair", &["pair"]),
            ("mover", &["well", "pair"]),
            ("dead", &["well"]),
            ("nobody", &["well"]),
        ]),
    ));
    let struck = Load::start(&Plan {
        expect: |failure| {
            matches!(
                failure,
                Failure::Status {
                    status: 429 | 500 | 502 | 503,
                    ..
                }
            )
        },
        ..Plan::new(
            edge.proxy,
            6,
            keys(&[
                ("resets", &["resets", "well"]),
                ("errs", &["errs", "resets", "well"]),
            ]),
        )
    });
    let mut held = Vec::new();
    for round in 2..=rounds {
        edge.write_routing(&cells.document(round));
        edge.wait_version(&format!("v{round}")).await;
        let moved = edge.get("mover", "/").await;
        assert_eq!(moved.get("x-routed-to"), Some(home(round)), "{moved:?}");
        match round % LIFE {
            5 => cells.pair[1].kill(),
            15 => cells.pair[1].restart().await,
            _ => {}
        }
        if round % (rounds / 4) == 0 {
            held.push(memory(edge.pid()));
        }
    }
    let tenants = ["well", "pair", "resets", "errs", "dead"];
    eventually("what is in flight is seen", async || {
        (in_flight(&edge, &tenants).await > 0.0).then_some(())
    })
    .await;
    let config = edge.config().await;
    let (spared, struck) = (spared.finish().await, struck.finish().await);
    eprintln!(
        "{rounds} reloads; memory after each quarter {held:?}\nspared {spared:#?}\nstruck {struck:#?}"
    );

    spared.assert_no_failure();
    struck.assert_no_failure();
    for status in [200, 429, 500, 502] {
        let seen = struck.statuses.get(&status);
        assert!(seen.is_some(), "no {status} was caused: {struck:#?}");
    }
    assert_eq!(config["generation"], rounds + 1, "each was applied");
    assert_eq!(cells.trap.connections(), 0, "no table sends anybody there");

    // The breaker was never reset: that would have admitted a request.
    assert_eq!(cells.dead.requests(), 1);
    let dead = edge.admin("/debug/route?key=dead").await.json();
    assert_eq!(dead["candidates"][0]["circuit"], "open", "{dead}");

    eventually("nothing is in flight", async || {
        (in_flight(&edge, &tenants).await == 0.0).then_some(())
    })
    .await;
    eventually("old generations are gone", async || {
        (edge.metric(&["cellgate_generations_alive"]).await == 1.0).then_some(())
    })
    .await;
    eventually("no file or connection is left open", async || {
        (open_files(edge.pid()) <= files).then_some(())
    })
    .await;
    let (warm, after) = (held[0], held[held.len() - 1]);
    assert!(after < warm + FLAT, "memory grew: {held:?}");
}
