//! A real edge and a real control plane, with faults in either and between them. No request fails, and
//! changes made meanwhile arrive.

use serde_json::json;

use crate::control_plane::{URLS, home, urls};
use crate::harness::{
    ControlBuilder, ControlProcess, Edge, Load, Plan, Relay, Two, eventually, own_address,
    wait_control,
};

/// How many responses each state is watched for.
const WHILE: u64 = 200;

/// A control plane that soon notices a dead edge, and has `acme` on `two`.
fn control(cells: &Two) -> ControlBuilder {
    let document = cells.to("1", "two");
    let builder = ControlProcess::builder().routing(&document);
    builder.set("ping_seconds", 1)
}

/// An edge that follows the control plane at `address`, under load.
async fn following(cells: &Two, address: std::net::SocketAddr) -> (Edge, Load) {
    let builder = Edge::builder().routing(&cells.to("file", "one"));
    let edge = builder.set(URLS, urls(address)).start().await;
    wait_home(&edge, "two").await;
    let allowed = vec!["one".to_owned(), "two".to_owned()];
    let plan = Plan::new(edge.proxy, 4, vec![("acme".to_owned(), allowed)]);
    let load = Load::start(&plan);
    load.progress(WHILE).await;
    (edge, load)
}

async fn wait_home(edge: &Edge, cell: &str) {
    eventually(&format!("acme goes to {cell}"), async || {
        (home(edge).await == cell).then_some(())
    })
    .await;
}

async fn move_acme(control: &ControlProcess, cell: &str) {
    let body = json!({"placement": cell}).to_string();
    let path = "/api/v1/keys/acme";
    let response = control.request("PUT", path, &[], body).await;
    assert!(matches!(response.status, 200 | 201), "{}", response.text());
}

/// The edge detects the dead link by its silence, and keeps serving.
async fn goes_silent(edge: &Edge, load: &Load) {
    let line = edge.log.wait("control plane lost: ").await;
    assert!(line.contains("nothing was received for 3"), "{line}");
    load.progress(WHILE).await;
    let shown = wait_control(edge, "it is stale", |shown| {
        shown["state"] != "connected" && shown["stale_seconds"].as_u64() > Some(0)
    })
    .await;
    assert!(shown["last_error"]["message"].is_string(), "{shown}");
    assert_eq!(home(edge).await, "two");
}

/// The edge is connected again and has the change.
async fn is_back(edge: &Edge, load: Load) {
    wait_home(edge, "one").await;
    wait_control(edge, "it is back", |shown| shown["state"] == "connected").await;
    load.progress(WHILE).await;
    load.finish().await.assert_no_failure();
}

/// SIGSTOP: the process does nothing, while the kernel still accepts its connections and data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_stopped() {
    let cells = Two::new().await;
    let control = control(&cells).start().await;
    let (edge, load) = following(&cells, control.address).await;
    control.signal(libc::SIGSTOP);
    goes_silent(&edge, &load).await;
    control.signal(libc::SIGCONT);
    move_acme(&control, "one").await;
    is_back(&edge, load).await;
}

/// Each side sends, and nothing arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_loses_everything() {
    let cells = Two::new().await;
    let control = control(&cells).start().await;
    let relay = Relay::to(control.address).await;
    let (edge, load) = following(&cells, relay.address).await;
    relay.cut();
    move_acme(&control, "one").await;
    goes_silent(&edge, &load).await;
    // The control plane has noticed as well.
    eventually("the edge is missed", async || {
        let edges = control.metric(&["cellgate_control_edges{"]).await;
        (edges == 0.0).then_some(())
    })
    .await;
    relay.mend();
    is_back(&edge, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_killed() {
    let cells = Two::new().await;
    let address = own_address(8081);
    let builder = control(&cells).set("listen", address.to_string());
    let control = builder.start().await;
    let (edge, load) = following(&cells, control.address).await;
    control.kill().await;
    edge.log.wait("control plane lost: ").await;
    load.progress(WHILE).await;
    let control = builder.start().await;
    // The edge has the newest table, so no snapshot is sent.
    let shown = wait_control(&edge, "it is back", |shown| shown["state"] == "connected").await;
    let known = eventually("the edge is known", async || {
        let edges = control.get("/api/v1/edges").await.json();
        edges["edges"].get(0).cloned()
    })
    .await;
    assert_eq!(known["generation"], shown["generation"], "{known}");
    assert_eq!(known["sent"]["snapshots"], 0, "{known}");
    move_acme(&control, "one").await;
    is_back(&edge, load).await;
}
