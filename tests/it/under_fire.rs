//! Cells that are killed and come back while clients keep asking.
//!
//! A short form with the other tests; with CELLGATE_SOAK=full (`make soak`), more deaths.

use serde_json::{Value, json};

use crate::harness::{DemoCell, Edge, Failure, Load, Plan, eventually, guarded};
use crate::soak;

const CLIENTS: usize = 16;
/// How many responses each state is watched for.
fn answers() -> u64 {
    if soak::full() { 300 } else { 150 }
}

/// Tenants of the placement `one`, so many that with `hash` some live at either endpoint.
fn tenants(allowed: &[&str]) -> Vec<(String, Vec<String>)> {
    let allowed: Vec<String> = allowed.iter().map(|&name| name.to_owned()).collect();
    let tenant = |n| (format!("tenant-{n}"), allowed.clone());
    (0..16).map(tenant).collect()
}

/// Sends requests of one tenant after another until `cell` answers one; none may fail.
async fn wait_served_by(edge: &Edge, cell: &str, tenants: &[(String, Vec<String>)]) {
    let mut client = edge.client().await;
    let mut keys = tenants.iter().map(|(key, _)| key).cycle();
    eventually(&format!("{cell} is used"), async || {
        let key = keys.next().expect("a cycle");
        let answer = client.get(key, "/").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.get("x-cell-name") == Some(cell)).then_some(())
    })
    .await;
}

async fn circuit(edge: &Edge) -> Value {
    let mut shown = edge.admin("/debug/route?key=acme").await.json();
    shown["candidates"][0]["circuit"].take()
}

/// One of two endpoints is killed under load and comes back later: the only requests that fail are those
/// whose response had begun.
///
/// That holds for idempotent requests without a body (RFC 9110, section 9.2.2), such as these GETs, with
/// `"on": ["connect", "reset"]`. A request that was sent on a kept connection is retried under any policy,
/// since the cell may have closed an idle connection. A request that was sent on a new connection gets a 502
/// under the default policy: the cell may have begun to act on it, and only the document's author knows
/// whether a retry is harmless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_killed_under_load_costs_only_what_it_had_begun() {
    let deaths = if soak::full() { 20 } else { 2 };
    let mut cells = [
        DemoCell::start("one/a", &["--body-bytes", "20000"]).await,
        DemoCell::start("one/b", &["--body-bytes", "20000"]).await,
    ];
    let endpoints = json!([{"url": cells[0].url()}, {"url": cells[1].url()}]);
    let document = |balancing: &str| {
        let retries = json!({"on": ["connect", "reset"]});
        let one = json!({"endpoints": endpoints, "load_balancing": balancing, "retries": retries});
        guarded(balancing, json!({"one": one}))
    };
    let ways = ["least_request", "round_robin", "hash"];
    let edge = Edge::serving(&document(ways[0])).await;
    let tenants = tenants(&["one"]);
    for balancing in ways {
        edge.write_routing(&document(balancing));
        edge.wait_version(balancing).await;
        let load = Load::start(&Plan {
            expect: |failure| matches!(failure, Failure::Cut(_)),
            ..Plan::new(edge.proxy, CLIENTS, tenants.clone())
        });
        for death in 0..deaths {
            load.progress(answers()).await;
            let dying = &mut cells[death % 2];
            dying.kill();
            load.progress(answers()).await;
            dying.restart().await;
            wait_served_by(&edge, &dying.name, &tenants).await;
        }
        load.progress(answers()).await;
        let tally = load.finish().await;
        tally.assert_no_failure();
        // Each client had at most one response in progress at each death.
        let cut = (deaths * CLIENTS) as u64;
        assert!(tally.expected <= cut, "{balancing}: {tally:#?}");
        assert_eq!(tally.cells.len(), 2, "{balancing}: {tally:#?}");
    }
}

/// The primary is killed under load. Errors stop once its breaker is open: from then on requests are served
/// by the fallback, also while half-open probes fail, and by the primary again once it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary_costs_no_request_once_its_breaker_is_open_under_load() {
    const THRESHOLD: usize = 5;
    let deaths = if soak::full() { 20 } else { 2 };
    let mut primary = DemoCell::start("one", &[]).await;
    let fallback = DemoCell::start("two", &[]).await;
    let one = json!({
        "url": primary.url(), "fallback": "two",
        "circuit_breaker": {"failure_threshold": THRESHOLD, "timeout": "100ms"},
    });
    let document = guarded("1", json!({"one": one, "two": {"url": fallback.url()}}));
    let edge = Edge::serving(&document).await;
    let plan = Plan::new(edge.proxy, CLIENTS, tenants(&["one", "two"]));
    let half_open = ["cellgate_breaker_transitions_total", "to=\"half_open\""];
    for _ in 0..deaths {
        let before = Load::start(&Plan {
            expect: |failure| {
                matches!(
                    failure,
                    Failure::Status { status: 502, .. } | Failure::Cut(_)
                )
            },
            ..plan.clone()
        });
        before.progress(answers()).await;
        primary.kill();
        eventually("the breaker opens", async || {
            (circuit(&edge).await != "closed").then_some(())
        })
        .await;
        // From here on no request may fail, except those sent before the breaker opened.
        let since = Load::start(&plan);
        let before = before.finish().await;
        before.assert_no_failure();
        let failures = (THRESHOLD + 2 * CLIENTS) as u64;
        assert!(before.expected <= failures, "{before:#?}");
        assert!(before.cells.contains_key("one"), "{before:#?}");

        let probes = edge.metric(&half_open).await;
        eventually("it is asked in vain, again and again", async || {
            (edge.metric(&half_open).await >= probes + 5.0).then_some(())
        })
        .await;
        let outage = edge.get("acme", "/").await;
        outage.assert_routed("two", "tier");
        assert_eq!(outage.get("x-failover-reason"), Some("circuit_open"));

        primary.restart().await;
        eventually("the primary serves again", async || {
            let answer = edge.get("acme", "/").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            (answer.get("x-routed-to") == Some("one")).then_some(())
        })
        .await;
        since.progress(answers()).await;
        assert_eq!(circuit(&edge).await, "closed");
        let since = since.finish().await;
        since.assert_no_failure();
        assert_eq!(since.routed.len(), 2, "{since:#?}");
    }
}
