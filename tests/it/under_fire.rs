//! Cells that are killed and come back while clients keep asking.
//!
//! A short form with the other tests; with CELLGATE_SOAK=full (`make soak`), more deaths.

use serde_json::{Value, json};

use crate::harness::{DemoCell, Edge, Failure, Load, Plan, eventually, guarded};
use crate::soak;

const CLIENTS: usize = 16;
/// Answers that a state is watched for.
const WHILE: u64 = 300;

/// Tenants of the placement `one`, enough of them that by hash some live at either endpoint.
fn tenants(allowed: &[&str]) -> Vec<(String, Vec<String>)> {
    let allowed: Vec<String> = allowed.iter().map(|&name| name.to_owned()).collect();
    let tenant = |n| (format!("tenant-{n}"), allowed.clone());
    (0..16).map(tenant).collect()
}

/// Asks for one tenant after the other until `cell` answers, and allows no failure meanwhile.
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

/// One of two endpoints is killed under load, and later comes back: no request fails but those whose
/// answer had begun.
///
/// That holds for requests without a body that may be repeated (RFC 9110, section 9.2.2), such as these
/// GETs, with `"on": ["connect", "reset"]`. What was sent on a kept connection when the cell died is
/// sent again under any policy, since a kept connection that ends may just have been closed for being
/// idle. What was sent on a new one, the default policy answers with 502: the cell may have begun to act
/// on it, and it is for the document's author to say that asking twice does no harm.
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
            load.progress(WHILE).await;
            let dying = &mut cells[death % 2];
            dying.kill();
            load.progress(WHILE).await;
            dying.restart().await;
            wait_served_by(&edge, &dying.name, &tenants).await;
        }
        load.progress(WHILE).await;
        let tally = load.finish().await;
        tally.assert_no_failure();
        // Each client had at most one answer under way at each death.
        let cut = (deaths * CLIENTS) as u64;
        assert!(tally.expected <= cut, "{balancing}: {tally:#?}");
        assert_eq!(tally.cells.len(), 2, "{balancing}: {tally:#?}");
    }
}

/// The primary is killed under load. Errors stop once its breaker is open: whoever asks from then on is
/// served by the fallback, also while single requests find out in vain whether it is back, and by the
/// primary again, without anybody's doing, once it is.
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
        before.progress(WHILE).await;
        primary.kill();
        eventually("the breaker opens", async || {
            (circuit(&edge).await != "closed").then_some(())
        })
        .await;
        // From here on nothing may fail; what was asked before the breaker opened still may.
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
        since.progress(WHILE).await;
        assert_eq!(circuit(&edge).await, "closed");
        let since = since.finish().await;
        since.assert_no_failure();
        assert_eq!(since.routed.len(), 2, "{since:#?}");
    }
}
