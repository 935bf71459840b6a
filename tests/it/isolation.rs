//! One sick cell of a hundred, and its effect on the tenants of the other 99.
//!
//! A short form with the other tests, which asserts only that no other tenant fails; with
//! CELLGATE_MEASURE=full (`make measure`), also that none is slowed down.

use serde_json::{Map, Value, json};

use crate::cost::full;
use crate::harness::{Cell, DemoCell, Edge, Failure, Load, Pace, Plan, eventually, median};

const WELL: usize = 99;
/// The sick placement's `concurrency_limit`.
const LIMIT: usize = 100;
/// Requests per second of the sick cell's tenants; fewer while it floods, since each response has a megabyte.
const ASKING: f64 = 100.0;
const FLOODED: f64 = 20.0;
/// The most that the 99th percentile of the others may rise when a cell hangs, as a ratio.
const BOUND: f64 = 1.1;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sickness {
    /// No requests to the sick cell.
    Absent,
    /// Requests that it never answers fill its limit; further ones are refused.
    Hang,
    /// Each request is answered by a reset.
    Reset,
    /// Each request is answered with a megabyte.
    Flood,
}

use Sickness::{Absent, Flood, Hang, Reset};

const KINDS: [Sickness; 4] = [Absent, Hang, Reset, Flood];

impl Sickness {
    fn told(self) -> Value {
        match self {
            Absent => json!({}),
            Hang => json!({"hang": true}),
            Reset => json!({"reset": true}),
            Flood => json!({"body_bytes": 1 << 20}),
        }
    }
}

/// The load on the sick cell.
struct Siege {
    /// Requests that hang and fill the limit.
    waiting: Option<Load>,
    asking: Load,
}

impl Siege {
    async fn lay(edge: &Edge, sickness: Sickness) -> Siege {
        let keys = vec![("sick".to_owned(), vec!["sick".to_owned()])];
        let plan = Plan::new(edge.proxy, LIMIT, keys);
        let mut waiting = None;
        if sickness == Hang {
            waiting = Some(Load::start(&plan));
            wait_in_flight(edge, LIMIT).await;
        }
        let asking = Load::start(&Plan {
            clients: 16,
            expect: |failure| {
                matches!(
                    failure,
                    Failure::Status {
                        status: 429 | 502,
                        ..
                    }
                )
            },
            pace: Some(Pace {
                per_second: if sickness == Flood { FLOODED } else { ASKING },
                requests: 1_000_000,
            }),
            ..plan
        });
        Siege { waiting, asking }
    }

    /// Ends the load and asserts that it got the expected responses.
    async fn lift(self, edge: &Edge, sickness: Sickness) {
        let tally = self.asking.finish().await;
        assert_eq!(tally.failed, 0, "{sickness:?}: {tally:#?}");
        let (all, of) = match sickness {
            // Every request found the limit reached.
            Hang => (429, tally.expected),
            Reset => (502, tally.expected),
            _ => (200, tally.ok),
        };
        let statuses: Vec<_> = tally.statuses.into_iter().collect();
        assert_eq!(statuses, [(all, of)], "{sickness:?}");
        drop(self.waiting);
        wait_in_flight(edge, 0).await;
    }
}

async fn wait_in_flight(edge: &Edge, count: usize) {
    eventually(&format!("{count} requests at the sick cell"), async || {
        let shown = edge.admin("/debug/route?key=sick").await.json();
        (shown["candidates"][0]["in_flight"] == count).then_some(())
    })
    .await;
}

fn routing(well: &[Cell], sick: &DemoCell) -> Value {
    let all = well.iter().map(|cell| (&cell.name, cell.url()));
    let all = all.chain([(&sick.name, sick.url())]);
    let placements = all.clone().map(|(name, url)| {
        let placement = json!({"url": url, "concurrency_limit": LIMIT});
        (name.clone(), placement)
    });
    json!({
        "version": "1",
        "routingTable": all.map(|(name, _)| (name.clone(), json!(name))).collect::<Map<_, _>>(),
        "placements": placements.collect::<Map<_, _>>(),
        "defaultPlacement": well[0].name,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sick_cell_of_a_hundred_slows_nobody_else() {
    let (cycles, per_second, requests) = if full() {
        (8, 1_000.0, 3_000)
    } else {
        (1, 300.0, 300)
    };
    let mut well = Vec::new();
    for number in 0..WELL {
        well.push(Cell::quiet(&format!("well-{number}")).await);
    }
    let sick = DemoCell::start("sick", &[]).await;
    let edge = Edge::serving(&routing(&well, &sick)).await;
    let keys = well
        .iter()
        .map(|cell| (cell.name.clone(), vec![cell.name.clone()]));
    let plan = Plan {
        pace: Some(Pace {
            per_second,
            requests,
        }),
        ..Plan::new(edge.proxy, 32, keys.collect())
    };
    let mut p99: [Vec<f64>; KINDS.len()] = Default::default();
    // The first round opens the connections to all cells and is not counted.
    Load::start(&plan).join().await.assert_no_failure();
    for cycle in 0..cycles {
        for turn in 0..KINDS.len() {
            // The order is reversed in every other cycle, so that no kind always follows the same one.
            let which = if cycle % 2 == 0 {
                turn
            } else {
                KINDS.len() - 1 - turn
            };
            let sickness = KINDS[which];
            sick.misbehave(sickness.told()).await;
            let siege = match sickness {
                Absent => None,
                _ => Some(Siege::lay(&edge, sickness).await),
            };
            let tally = Load::start(&plan).join().await;
            tally.assert_no_failure();
            p99[which].push(tally.latency("all").p99.as_secs_f64() * 1e3);
            if let Some(siege) = siege {
                siege.lift(&edge, sickness).await;
            }
        }
    }

    let medians = p99.map(median);
    eprintln!(
        "99th percentile of {WELL} well cells at {per_second}/s, medians of {cycles} rounds of {requests}:"
    );
    for (sickness, p99) in KINDS.iter().zip(medians) {
        let ratio = p99 / medians[0];
        eprintln!("  the other one: {sickness:?}: {p99:.3} ms   ratio {ratio:.3}");
    }
    if full() {
        let ratio = medians[1] / medians[0];
        assert!(ratio <= BOUND, "{ratio:.3}, allowed is {BOUND}");
    }
}
