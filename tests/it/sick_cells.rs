//! Real cells that misbehave, die and come back, and the tenants of other cells meanwhile.

use serde_json::{Value, json};

use crate::harness::{DemoCell, Edge, EdgeBuilder, Failure, Load, Pace, Plan, document, table};

fn before(cells: &[&DemoCell]) -> EdgeBuilder {
    let keys: Vec<_> = cells
        .iter()
        .map(|cell| (&*cell.name, &*cell.name))
        .collect();
    let urls = cells
        .iter()
        .map(|cell| (cell.name.clone(), Value::String(cell.url())));
    let routing = document(
        "1",
        table(&keys),
        Value::Object(urls.collect()),
        &cells[0].name,
    );
    Edge::builder().routing(&routing)
}

/// Requests to a cell at a fixed rate, with the key of the same name.
fn plan(edge: &Edge, cell: &DemoCell, per_second: f64, requests: usize) -> Plan {
    let keys = vec![(cell.name.clone(), vec![cell.name.clone()])];
    let pace = Pace {
        per_second,
        requests,
    };
    let pace = Some(pace);
    Plan {
        pace,
        ..Plan::new(edge.proxy, 16, keys)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misbehaviour_is_told_apart_and_hurts_nobody_else() {
    const REQUESTS: usize = 16;
    let mut sick = DemoCell::start("sick", &["--body-bytes", "20000"]).await;
    let well = DemoCell::start("well", &[]).await;
    let edge = before(&[&sick, &well])
        .set("cellgate.timeouts.response_header", "1s")
        .start()
        .await;
    let neighbours = Load::start(&plan(&edge, &well, 200.0, 100_000));

    let bad = Some((502, "upstream_bad_response"));
    let late = Some((504, "upstream_response_timeout"));
    let cut = None;
    for (told, expected) in [
        (json!({"reset": true}), bad),
        (json!({"close": true}), bad),
        (json!({"garbage": true}), bad),
        (json!({"hang": true}), late),
        (json!({"drip": 20}), late),
        (json!({"truncate": true, "body_bytes": 20_000}), cut),
        (json!({"cut": true, "body_bytes": 20_000}), cut),
    ] {
        sick.misbehave(told.clone()).await;
        let tally = Load::start(&Plan {
            expect: |failure| matches!(failure, Failure::Status { .. } | Failure::Cut(_)),
            ..plan(&edge, &sick, 400.0, REQUESTS)
        });
        let tally = tally.join().await;
        let counted = (tally.ok, tally.failed, tally.unsent, tally.expected);
        assert_eq!(counted, (0, 0, 0, REQUESTS as u64), "{told}: {tally:#?}");
        let Some((status, error)) = expected else {
            assert!(tally.statuses.is_empty(), "{told}: {tally:#?}");
            continue;
        };
        let answers = (tally.statuses.get(&status), tally.errors.get(error));
        let all = Some(&(REQUESTS as u64));
        assert_eq!(answers, (all, all), "{told}: {tally:#?}");
    }

    // The cell's own 5xx is passed on unchanged, without an error code of the edge.
    sick.misbehave(json!({"status": 503})).await;
    let storm = Plan {
        expect: |failure| {
            let error = None;
            *failure == Failure::Status { status: 503, error }
        },
        ..plan(&edge, &sick, 400.0, REQUESTS)
    };
    let tally = Load::start(&storm).join().await;
    assert_eq!(
        (tally.expected, tally.failed),
        (REQUESTS as u64, 0),
        "{tally:#?}"
    );

    sick.kill();
    let dead = edge.get("sick", "/").await;
    dead.assert_error(502, "upstream_unreachable");
    sick.restart().await;
    let tally = Load::start(&plan(&edge, &sick, 400.0, REQUESTS))
        .join()
        .await;
    tally.assert_no_failure();

    let tally = neighbours.finish().await;
    tally.assert_no_failure();
    assert_eq!(tally.latency("all").count, tally.ok);
}
