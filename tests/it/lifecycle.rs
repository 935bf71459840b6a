//! Ending and replacing an edge: no request is lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Cell, Client, Edge, EdgeBuilder, Load, Plan, document, eventually, own_address, placements,
    table,
};

fn to(cell: &Cell) -> Value {
    document(
        "1",
        table(&[("acme", &cell.name)]),
        placements(&[cell]),
        &cell.name,
    )
}

fn plan(edge: &Edge, cell: &Cell, clients: usize) -> Plan {
    let keys = ["acme", "other"].map(|key| (key.to_owned(), vec![cell.name.clone()]));
    Plan::new(edge.proxy, clients, keys.to_vec())
}

/// A cell that holds every request until `go` is true.
pub async fn gated() -> (Cell, tokio::sync::watch::Sender<bool>) {
    let (go, gate) = tokio::sync::watch::channel(false);
    let cell = Cell::scripted("tier1", move |mut conn| {
        let mut gate = gate.clone();
        async move {
            while conn.request().await?.is_some() {
                let _ = gate.wait_for(|open| *open).await;
                conn.reply().await?;
            }
            Ok(())
        }
    })
    .await;
    (cell, go)
}

/// An edge whose grace period outlasts the test: it ends only when nothing is left to finish.
fn patient(cell: &Cell) -> EdgeBuilder {
    let builder = Edge::builder().routing(&to(cell));
    builder.set("grace_period_seconds", 3600)
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_ends() {
    let (cell, go) = gated().await;
    let mut edge = patient(&cell).start().await;
    let mut client = edge.client().await;
    client.ask("acme", "/").await;
    cell.wait_requests(1).await;

    edge.signal(libc::SIGTERM);
    // The admin service stays up and reports it; the proxy accepts no new connection.
    eventually("not ready", async || {
        (edge.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(edge.admin("/healthz").await.status, 200);
    eventually("the proxy port is closed", async || {
        tokio::net::TcpStream::connect(edge.proxy)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    assert!(edge.runs(), "it left with a request in flight");

    go.send_replace(true);
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "tier1"));
    // The response has `Connection: close`, so that the client does not send another request.
    assert!(response.closes(), "{response:?}");
    client.closed().await;
    // Long before the grace period is over.
    assert!(edge.exited().await.success());
}

/// With nothing to finish, the edge ends at once. Idle connections do not count.
#[tokio::test]
async fn sigterm_ends_an_idle_edge_at_once() {
    let cell = Cell::echo("tier1").await;
    let mut edge = patient(&cell).start().await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut client = edge.client().await;
        assert_eq!(client.get("acme", "/").await.status, 200);
        idle.push(client);
    }
    edge.signal(libc::SIGTERM);
    assert!(edge.exited().await.success());
}

/// The grace period bounds how long a request can delay the end.
#[tokio::test]
async fn the_grace_period_is_a_limit() {
    let (cell, _go) = gated().await;
    let mut edge = Edge::builder()
        .routing(&to(&cell))
        .set("grace_period_seconds", 1)
        .set("graceful_shutdown_timeout_seconds", 1)
        .start()
        .await;
    let mut client = edge.client().await;
    client.ask("acme", "/").await;
    cell.wait_requests(1).await;
    let began = Instant::now();
    edge.signal(libc::SIGTERM);
    edge.exited().await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(900),
        "{took:?}: the request had no grace"
    );
}

/// `drain_delay`: not ready but still serving, so that load balancers have time to notice.
#[tokio::test]
async fn the_drain_delay_keeps_serving() {
    let cell = Cell::echo("tier1").await;
    let mut edge = Edge::builder()
        .routing(&to(&cell))
        .set("cellgate.drain_delay", "1500ms")
        .start()
        .await;
    edge.signal(libc::SIGTERM);
    eventually("not ready", async || {
        (edge.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(
        edge.get("acme", "/").await.status,
        200,
        "new connections are served meanwhile"
    );
    assert!(edge.exited().await.success());
}

#[tokio::test]
async fn sigint_ends_it() {
    let cell = Cell::echo("tier1").await;
    let mut edge = Edge::serving(&to(&cell)).await;
    edge.signal(libc::SIGINT);
    edge.exited().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_fails_no_request() {
    let cell = Cell::quiet("tier1").await;
    let mut edge = Edge::serving(&to(&cell)).await;
    let load = Load::start(&Plan {
        until_refused: true,
        ..plan(&edge, &cell, 16)
    });
    load.progress(500).await;
    edge.signal(libc::SIGTERM);
    let tally = load.join().await;
    assert!(edge.exited().await.success());
    tally.assert_no_failure();
    assert_eq!(tally.refused, 16, "{tally:?}");
}

fn upgradable(cell: &Cell) -> EdgeBuilder {
    Edge::builder()
        .routing(&to(cell))
        .set("cellgate.listen", json!([own_address(18080).to_string()]))
        .set("cellgate.admin_listen", own_address(19901).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_under_load_fails_no_request() {
    let cell = Cell::quiet("tier1").await;
    let builder = upgradable(&cell);
    let mut old = builder.spawn().ready().await;
    let load = Load::start(&plan(&old, &cell, 16));
    load.progress(500).await;

    let new = builder.successor().await;
    old.signal(libc::SIGQUIT);
    let new = new.ready().await;
    assert_eq!((new.proxy, new.admin), (old.proxy, old.admin));
    assert!(old.exited().await.success());
    load.progress(500).await;
    assert_eq!(new.get("acme", "/").await.status, 200);
    assert_eq!(new.admin("/readyz").await.status, 200);
    let tally = load.finish().await;
    tally.assert_no_failure();
}

/// Several upgrades in a row: each process inherits the listeners of the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_can_be_repeated() {
    let cell = Cell::quiet("tier1").await;
    let builder = upgradable(&cell);
    let mut old = builder.spawn().ready().await;
    let load = Load::start(&plan(&old, &cell, 4));
    for _ in 0..3 {
        let new = builder.successor().await;
        old.signal(libc::SIGQUIT);
        let new = new.ready().await;
        assert!(old.exited().await.success());
        load.progress(100).await;
        old = new;
    }
    load.finish().await.assert_no_failure();
}

/// A request that began before the upgrade is finished by the old process.
#[tokio::test]
async fn an_upgrade_waits_for_requests_in_flight() {
    let (cell, go) = gated().await;
    let builder = upgradable(&cell);
    let mut old = builder.spawn().ready().await;
    let mut client = Client::connect(old.proxy).await;
    client.ask("acme", "/long").await;
    cell.wait_requests(1).await;
    let new = builder.successor().await;
    old.signal(libc::SIGQUIT);
    let new = new.ready().await;
    let mut second = Client::connect(new.proxy).await;
    second.ask("acme", "/new").await;
    cell.wait_requests(2).await;
    assert!(old.runs(), "the old process left with a request in flight");
    go.send_replace(true);
    assert_eq!(client.response().await.status, 200);
    assert_eq!(second.response().await.status, 200);
    assert!(old.exited().await.success());
}

/// While the old process finishes its requests, the admin port belongs to the new one.
#[tokio::test]
async fn the_admin_port_is_the_successors() {
    let (cell, go) = gated().await;
    let builder = upgradable(&cell);
    let mut old = builder.spawn().ready().await;
    let mut client = old.client().await;
    client.ask("acme", "/long").await;
    cell.wait_requests(1).await;

    // The routing document's version tells the processes apart.
    let mut document = to(&cell);
    document["version"] = json!("new");
    let routing = builder.directory().join("new.json");
    std::fs::write(&routing, document.to_string()).expect("write");
    let builder = builder.env("CONFIG_PATH", routing.to_string_lossy());
    let new = builder.successor().await;
    old.signal(libc::SIGQUIT);
    let new = new.ready().await;
    // Until it closes the port, the old process may still accept a connection.
    eventually("only the new process answers", async || {
        for _ in 0..50 {
            if new.config().await["version"] != "new" {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert_eq!(new.admin("/readyz").await.status, 200);
    assert!(old.runs(), "the old process left with a request in flight");
    go.send_replace(true);
    assert_eq!(client.response().await.status, 200);
    assert!(old.exited().await.success());
}

/// SIGQUIT without a successor: the edge keeps serving.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_without_a_successor_changes_nothing() {
    let cell = Cell::quiet("tier1").await;
    let builder = upgradable(&cell);
    let mut edge = builder.spawn().ready().await;
    let load = Load::start(&plan(&edge, &cell, 4));
    let mark = edge.log.mark();
    edge.signal(libc::SIGQUIT);
    edge.log.wait_after(mark, "upgrade").await;
    load.progress(500).await;
    assert!(edge.runs());
    assert_eq!(edge.get("acme", "/").await.status, 200);
    eventually("ready again", async || {
        (edge.admin("/readyz").await.status == 200).then_some(())
    })
    .await;
    load.finish().await.assert_no_failure();

    // A later upgrade works.
    let new = builder.successor().await;
    edge.signal(libc::SIGQUIT);
    let new = new.ready().await;
    assert!(edge.exited().await.success());
    assert_eq!(new.get("acme", "/").await.status, 200);
}

/// A successor that cannot start, because its routing file is invalid, leaves the old process in service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_cannot_start_changes_nothing() {
    let cell = Cell::quiet("tier1").await;
    let builder = upgradable(&cell);
    let mut edge = builder.spawn().ready().await;
    let load = Load::start(&plan(&edge, &cell, 4));
    let ended = builder
        .env("CONFIG_PATH", "/no/such/routing.json")
        .arg("-u")
        .run()
        .await;
    ended.assert_failed(&["/no/such/routing.json"]);
    load.progress(500).await;
    assert!(edge.runs());
    load.finish().await.assert_no_failure();
}
