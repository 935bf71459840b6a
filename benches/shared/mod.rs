//! What several benchmarks begin with.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// A document with all that a placement can have. No probe runs while something is measured.
pub fn document(cell: SocketAddr) -> Value {
    json!({
        "version": "1",
        "routingTable": {"acme": "one", "globex": "one"},
        "defaultPlacement": "two",
        "placements": {
            "one": {
                "url": format!("http://{cell}"),
                "fallback": "two",
                "tenancy": "shared",
                "health_check": {"interval": "1day"},
                "circuit_breaker": {},
                "concurrency_limit": 100,
                "max_request_body_bytes": 1 << 20,
                "load_balancing": "least_request",
                "retries": {"attempts": 3, "on": ["connect", "reset"]},
            },
            "two": {"url": format!("http://{cell}")},
        },
    })
}
