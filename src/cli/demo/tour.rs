//! The lines that the demo prints once everything is up.

use super::Addresses;

pub(super) fn text(addresses: &Addresses) -> String {
    let port = addresses.proxy.port();
    let admin = addresses.admin;
    let routing = addresses.routing.display();
    let proxy = format!("http://localhost:{port}");
    format!(
        "
Four cells and an edge are up. Each request below shows in the edge's log here as one JSON line.

  A tenant of a shared cell, and one with a cell of its own (see X-Routed-To, X-Route-Reason):
    curl -i -H 'X-Routing-Key: acme' {proxy}/hello
    curl -i -H 'X-Routing-Key: visa' '{proxy}/pay?amount=1'

  A key that the table does not know goes to the default cell; no key at all is an error:
    curl -i -H 'X-Routing-Key: nobody' {proxy}/
    curl -i {proxy}/

  What the edge serves at the moment, and where a key goes and why:
    curl {proxy}/debug/config
    curl http://{admin}/debug/config
    curl 'http://{admin}/debug/route?key=acme'

  Reload: move acme to the cell of its neighbour, ask again, and put it back:
    sed -i 's/\"acme\": \"tier1\"/\"acme\": \"tier2\"/' {routing}
    curl -i -H 'X-Routing-Key: acme' {proxy}/hello
    sed -i 's/\"acme\": \"tier2\"/\"acme\": \"tier1\"/' {routing}

  Break it, and see that the edge keeps serving and names the mistake under last_error:
    sed -i 's/\"acme\": \"tier1\"/\"acme\": \"tier9\"/' {routing}
    curl http://{admin}/debug/config
    sed -i 's/\"acme\": \"tier9\"/\"acme\": \"tier1\"/' {routing}

  Make a cell sick: with health checks, breakers and fallbacks its tenants go on (see X-Failover-Reason):
    cp config/resilience.json {routing}
    curl -X PUT localhost:9001/_cell/misbehaviour -d '{{\"status\":503}}'
    for i in 1 2 3 4 5 6; do curl -so /dev/null -w '%{{http_code}}\n' -H 'X-Routing-Key: acme' {proxy}/; done
    curl -i -H 'X-Routing-Key: acme' {proxy}/hello
    curl 'http://{admin}/debug/placements?placement=tier1'
    curl -X PUT localhost:9001/_cell/misbehaviour -d '{{}}'

  Metrics, and everything else that the admin service has:
    curl http://{admin}/metrics
    curl http://{admin}/

Ctrl-C ends the edge and its cells.
"
    )
}
