//! Load near saturation while the routing file is replaced again and again, often by something broken.
//!
//! A short form with the other tests; with CELLGATE_SOAK=full (`make soak`), 60 s and 600 replacements.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cell, Edge, Load, Plan, document, memory};

/// Whether the long form was asked for.
pub fn full() -> bool {
    std::env::var("CELLGATE_SOAK").is_ok_and(|value| value == "full")
}

const PAUSE: Duration = Duration::from_millis(100);
const CLIENTS: usize = 32;
/// The most that memory may grow between the warm-up and the end, in bytes.
const FLAT: u64 = 12 << 20;

struct Cells {
    red: Cell,
    blue: Cell,
    visa: Cell,
    /// Named by invalid documents only. Nothing may connect to it.
    trap: Cell,
}

impl Cells {
    async fn new() -> Cells {
        Cells {
            red: Cell::quiet("red").await,
            blue: Cell::quiet("blue").await,
            visa: Cell::quiet("visa").await,
            trap: Cell::quiet("trap").await,
        }
    }

    /// A valid document: tenants a and b swap placements in each round, visa never moves.
    fn valid(&self, round: usize) -> Value {
        let (a, b) = if round.is_multiple_of(2) {
            ("red", "blue")
        } else {
            ("blue", "red")
        };
        let endpoints =
            json!({"red": self.red.url(), "blue": self.blue.url(), "visa": self.visa.url()});
        let routes = json!({"a": a, "b": b, "visa": "visa"});
        document(&format!("v{round}"), routes, endpoints, a)
    }

    /// An invalid document that would send all tenants to the trap.
    fn invalid(&self, round: usize) -> Value {
        let endpoints =
            json!({"red": self.trap.url(), "blue": self.trap.url(), "trap": self.trap.url()});
        let routes = json!({"a": "trap", "b": "red", "visa": "gone"});
        let mut document = document(&format!("bad{round}"), routes, endpoints, "red");
        match round % 4 {
            0 => {}
            1 => document["version"] = json!(""),
            2 => document["defaultPlacement"] = json!("nowhere"),
            _ => document["cellEndpoints"]["extra"] = json!("not a url"),
        }
        document
    }

    /// The same, valid except that its end is missing.
    fn torn(&self, round: usize) -> Vec<u8> {
        let endpoints = json!({"red": self.trap.url(), "blue": self.trap.url()});
        let routes = json!({"a": "red", "b": "blue", "visa": "red"});
        let text = document(&format!("torn{round}"), routes, endpoints, "red").to_string();
        text.as_bytes()[..text.len() - 1 - round % 40].to_vec()
    }

    fn keys() -> Vec<(String, Vec<String>)> {
        let both = || vec!["red".to_owned(), "blue".to_owned()];
        vec![
            ("a".to_owned(), both()),
            ("b".to_owned(), both()),
            ("visa".to_owned(), vec!["visa".to_owned()]),
            ("unknown".to_owned(), both()),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_no_request() {
    let rounds = if full() { 600 } else { 80 };
    let cells = Cells::new().await;
    let edge = Edge::builder()
        .routing(&cells.valid(0))
        .set("cellgate.routing.poll_interval", "1s")
        .set("cellgate.access_log", "access.log")
        .start()
        .await;
    let plan = Plan::new(edge.proxy, CLIENTS, Cells::keys());
    let began = Instant::now();
    let load = Load::start(&plan);

    let mut warm = 0;
    let mut clock = tokio::time::interval(PAUSE);
    for round in 1..=rounds {
        clock.tick().await;
        if round % 10 == 5 {
            // Written in place, as a careless deployment does; half of them are completed a moment later.
            fs::write(edge.path("routing.json"), cells.torn(round)).expect("write");
            if round % 20 == 5 {
                tokio::task::yield_now().await;
                fs::write(edge.path("routing.json"), cells.valid(round).to_string())
                    .expect("write");
            }
        } else if round % 3 == 0 {
            edge.write_routing(&cells.invalid(round));
        } else {
            edge.write_routing(&cells.valid(round));
        }
        if round == rounds / 4 {
            warm = memory(edge.pid());
        }
    }
    edge.write_routing(&cells.valid(rounds + 1));
    let config = edge.wait_version(&format!("v{}", rounds + 1)).await;
    let (after, elapsed) = (memory(edge.pid()), began.elapsed());
    let tally = load.finish().await;

    let generation = config["generation"].as_u64().unwrap_or(0);
    eprintln!(
        "{}\n{generation} generations of {rounds} replacements; memory {} KiB -> {} KiB",
        tally.summary(elapsed),
        warm >> 10,
        after >> 10
    );
    tally.assert_no_failure();
    assert_eq!(
        tally.retried, 0,
        "the edge closed kept connections: {tally:?}"
    );
    assert_eq!(
        cells.trap.connections(),
        0,
        "a cell that no valid table names was connected to"
    );
    // Most valid documents stay long enough to be applied; with only a few applied, the test would show
    // nothing.
    assert!(
        generation > rounds as u64 / 4,
        "only {generation} generations"
    );
    assert!(
        edge.log.count("Config reload failed") > rounds / 10,
        "hardly anything was refused"
    );
    assert!(after < warm + FLAT, "memory grew from {warm} to {after}");
    assert!(config["last_error"].is_null());
}
