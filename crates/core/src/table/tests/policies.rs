//! What placements and defaults say, and what comes of both.

use std::sync::Arc;
use std::time::Duration;

use super::super::{
    CircuitBreaker, HealthCheck, HostHeader, LoadBalancing, Placement, Policy, Retries,
    RoutingTable, Tenancy, Timeouts, compile,
};
use super::placements::document;

fn compiled(fields: &str) -> RoutingTable {
    let document = document(fields);
    compile(document.as_bytes()).unwrap_or_else(|problems| panic!("{document}: {}", problems[0]))
}

/// The placement `b`, with `fields` besides its URL, in a document with
/// `defaults`.
fn placement(defaults: &str, fields: &str) -> Placement {
    let comma = if fields.is_empty() { "" } else { ", " };
    let table = compiled(&format!(
        r#""defaults": {{{defaults}}}, "placements": {{"b": {{"url": "http://b"{comma}{fields}}}}}"#
    ));
    table.placement(table.default_placement()).clone()
}

fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::default();
    change(&mut policy);
    policy
}

/// A way to write a policy, and what it means.
type Case = (&'static str, fn(&mut Policy));

/// Each field, at the ends of its range.
const FIELDS: &[Case] = &[
    ("", |_| {}),
    (r#""tenancy": "shared""#, |p| {
        p.tenancy = Some(Tenancy::Shared)
    }),
    (r#""tenancy": "dedicated""#, |p| {
        p.tenancy = Some(Tenancy::Dedicated)
    }),
    (r#""load_balancing": "least_request""#, |p| {
        p.load_balancing = LoadBalancing::LeastRequest
    }),
    (r#""load_balancing": "round_robin""#, |p| {
        p.load_balancing = LoadBalancing::RoundRobin
    }),
    (r#""load_balancing": "\u0068ash""#, |p| {
        p.load_balancing = LoadBalancing::Hash
    }),
    (r#""concurrency_limit": 1"#, |p| {
        p.concurrency_limit = Some(1)
    }),
    (r#""concurrency_limit": 4294967295"#, |p| {
        p.concurrency_limit = Some(u32::MAX)
    }),
    (r#""max_request_body_bytes": 0"#, |p| {
        p.max_request_body_bytes = Some(0)
    }),
    (r#""max_request_body_bytes": 9007199254740992"#, |p| {
        p.max_request_body_bytes = Some(1 << 53)
    }),
    (r#""host_header": "preserve""#, |p| {
        p.host_header = HostHeader::Preserve
    }),
    (r#""host_header": "rewrite""#, |p| {
        p.host_header = HostHeader::Rewrite
    }),
    (r#""host_header": "Cell.Example:80""#, |p| {
        p.host_header = HostHeader::Fixed("cell.example:80".to_owned())
    }),
    (r#""host_header": "[::1]:9001""#, |p| {
        p.host_header = HostHeader::Fixed("[::1]:9001".to_owned())
    }),
    (r#""host_header": "reserve:1""#, |p| {
        p.host_header = HostHeader::Fixed("reserve:1".to_owned())
    }),
    // Two edits from `preserve`.
    (r#""host_header": "presence""#, |p| {
        p.host_header = HostHeader::Fixed("presence".to_owned())
    }),
    (r#""host_header": "reserved""#, |p| {
        p.host_header = HostHeader::Fixed("reserved".to_owned())
    }),
    (r#""health_check": {}"#, |p| {
        p.health_check = Some(HealthCheck::default())
    }),
    (
        r#""health_check": {"path": "/up?full=1", "interval": "100ms", "timeout": "1ms", "healthy_threshold": 1,
            "unhealthy_threshold": 100, "expected_status": [200, "300-599", "2xx"], "host": "cell"}"#,
        |p| {
            p.health_check = Some(HealthCheck {
                path: "/up?full=1".to_owned(),
                interval: Duration::from_millis(100),
                timeout: Duration::from_millis(1),
                healthy_threshold: 1,
                unhealthy_threshold: 100,
                expected_status: vec![200..=200, 300..=599, 200..=299],
                host: Some("cell".to_owned()),
            });
        },
    ),
    (
        r#""health_check": {"interval": "1day", "timeout": "24h", "expected_status": 599}"#,
        |p| {
            p.health_check = Some(HealthCheck {
                interval: Duration::from_secs(86_400),
                timeout: Duration::from_secs(86_400),
                expected_status: vec![599..=599],
                ..HealthCheck::default()
            });
        },
    ),
    (r#""circuit_breaker": {}"#, |p| {
        p.circuit_breaker = Some(CircuitBreaker::default())
    }),
    (
        r#""circuit_breaker": {"failure_threshold": 10000, "timeout": "1m 30s"}"#,
        |p| {
            p.circuit_breaker = Some(CircuitBreaker {
                failure_threshold: 10_000,
                timeout: Duration::from_secs(90),
            });
        },
    ),
    (
        r#""timeouts": {"connect": "1ms", "response_header": "2s", "request": "3s", "stream_idle": "4s", "upstream_idle": "1day"}"#,
        |p| {
            p.timeouts = Timeouts {
                connect: Some(Duration::from_millis(1)),
                response_header: Some(Duration::from_secs(2)),
                request: Some(Duration::from_secs(3)),
                stream_idle: Some(Duration::from_secs(4)),
                upstream_idle: Some(Duration::from_secs(86_400)),
            };
        },
    ),
    (r#""retries": {"attempts": 1, "on": []}"#, |p| {
        p.retries = Retries {
            attempts: 1,
            on_connect: false,
            on_reset: false,
        };
    }),
    (r#""retries": {"attempts": 10, "on": ["reset"]}"#, |p| {
        p.retries = Retries {
            attempts: 10,
            on_connect: false,
            on_reset: true,
        };
    }),
    (r#""retries": {"on": ["reset", "connect"]}"#, |p| {
        p.retries.on_reset = true
    }),
];

#[test]
fn each_field_means_the_same_in_a_placement_and_in_defaults() {
    for (fields, change) in FIELDS {
        let expected = policy(change);
        assert_eq!(*placement("", fields).policy, expected, "{fields}");
        assert_eq!(*placement(fields, "").policy, expected, "{fields}");
        assert_eq!(*placement(fields, fields).policy, expected, "{fields}");
        let table = compiled(&format!(
            r#""cellEndpoints": {{"b": "http://b"}}, "defaults": {{{fields}}}"#
        ));
        assert_eq!(*table.placements()[0].policy, expected, "{fields}");
    }
}

#[test]
fn placements_are_merged_with_defaults_field_by_field() {
    let health = |change: fn(&mut HealthCheck)| {
        policy(|p| {
            let mut check = HealthCheck::default();
            change(&mut check);
            p.health_check = Some(check);
        })
    };
    let cases = [
        (
            r#""health_check": {"path": "/a", "interval": "20s", "host": "cell"}"#,
            r#""health_check": {"path": "/b", "timeout": "15s"}"#,
            health(|check| {
                check.path = "/b".to_owned();
                check.interval = Duration::from_secs(20);
                check.timeout = Duration::from_secs(15);
                check.host = Some("cell".to_owned());
            }),
        ),
        // Lists are one value.
        (
            r#""health_check": {"expected_status": ["2xx", 404], "host": "cell"}"#,
            r#""health_check": {"expected_status": 204, "host": "rewrite"}"#,
            health(|check| check.expected_status = vec![204..=204]),
        ),
        (
            r#""health_check": {"path": "/a"}"#,
            r#""health_check": null"#,
            Policy::default(),
        ),
        // Times that do not fit alone may fit merged.
        (
            r#""health_check": {"interval": "1s"}"#,
            r#""health_check": {"timeout": "1s"}"#,
            health(|check| {
                (check.interval, check.timeout) = (Duration::from_secs(1), Duration::from_secs(1))
            }),
        ),
        (
            r#""health_check": {"interval": "1s"}"#,
            r#""health_check": null"#,
            Policy::default(),
        ),
        (
            r#""circuit_breaker": {"failure_threshold": 1}"#,
            r#""circuit_breaker": {"timeout": "1s"}"#,
            policy(|p| {
                p.circuit_breaker = Some(CircuitBreaker {
                    failure_threshold: 1,
                    timeout: Duration::from_secs(1),
                });
            }),
        ),
        (
            r#""circuit_breaker": {}"#,
            r#""circuit_breaker": null"#,
            Policy::default(),
        ),
        (
            r#""timeouts": {"connect": "1s", "request": "2s"}"#,
            r#""timeouts": {"request": "3s"}"#,
            policy(|p| {
                p.timeouts.connect = Some(Duration::from_secs(1));
                p.timeouts.request = Some(Duration::from_secs(3));
            }),
        ),
        (
            r#""retries": {"attempts": 5, "on": ["reset"]}"#,
            r#""retries": {"on": []}"#,
            policy(|p| {
                p.retries = Retries {
                    attempts: 5,
                    on_connect: false,
                    on_reset: false,
                };
            }),
        ),
        (
            r#""concurrency_limit": 5, "max_request_body_bytes": 5, "tenancy": "shared", "load_balancing": "hash""#,
            r#""concurrency_limit": null, "max_request_body_bytes": null, "tenancy": null, "load_balancing": "round_robin""#,
            policy(|p| p.load_balancing = LoadBalancing::RoundRobin),
        ),
        // Null is fine where nothing is inherited.
        (
            "",
            r#""health_check": null, "circuit_breaker": null, "concurrency_limit": null,
               "max_request_body_bytes": null, "fallback": null, "tenancy": null"#,
            Policy::default(),
        ),
    ];
    for (defaults, fields, expected) in cases {
        let placement = placement(defaults, fields);
        assert_eq!(*placement.policy, expected, "{defaults} and {fields}");
    }
}

#[test]
fn times_that_defaults_get_wrong_are_reported_once_where_they_are_used() {
    let document = |placements: &str| {
        document(&format!(
            "\"defaults\": {{\"health_check\": {{\"interval\": «\"1s\"}}}},\n \"placements\": {{{placements}}}"
        ))
    };
    let default = (
        "/defaults/health_check/interval",
        "interval 1s is shorter than the timeout 2s (set a timeout of at most 1s as well)",
    );
    super::placements::assert_marked(
        &document(
            r#""a": {"url": "http://a"}, "b": {"url": "http://b", "health_check": {"path": "/"}},
               "c": {"url": "http://c", "health_check": {"timeout": «"1500ms"}}"#,
        ),
        &[
            default,
            (
                "/placements/c/health_check/timeout",
                "timeout 1s 500ms is longer than the interval 1s",
            ),
        ],
    );
    let unused = document(r#""b": {"url": "http://b", "health_check": {"interval": "3s"}}"#);
    compile(unused.replace('«', "").as_bytes()).unwrap();
}

#[test]
fn endpoints_have_weights_and_keep_their_order() {
    let table = compiled(
        r#""placements": {"b": {"endpoints": [{"url": "http://z:1", "weight": 1000}, {"weight": 1, "url": "http://y"}]},
                          "a": {"endpoints": [{"url": "http://y"}]}},
           "cellEndpoints": {"c": "https://c"}"#,
    );
    let all: Vec<(&str, Vec<(String, u32)>)> = table
        .placements()
        .iter()
        .map(|placement| {
            let endpoints = placement.endpoints.iter();
            let endpoints = endpoints.map(|one| (one.endpoint.to_string(), one.weight));
            (placement.name.as_str(), endpoints.collect())
        })
        .collect();
    assert_eq!(
        all,
        [
            (
                "b",
                vec![
                    ("http://z:1".to_owned(), 1000),
                    ("http://y:80".to_owned(), 1)
                ]
            ),
            ("a", vec![("http://y:80".to_owned(), 1)]),
            ("c", vec![("https://c:443".to_owned(), 1)]),
        ]
    );
}

#[test]
fn placements_come_in_the_order_of_the_document() {
    for (fields, expected) in [
        (
            r#""cellEndpoints": {"z": "http://z", "b": "http://b"}, "placements": {"a": {"url": "http://a"}}"#,
            "zba",
        ),
        (
            r#""placements": {"a": {"url": "http://a"}}, "cellEndpoints": {"z": "http://z", "b": "http://b"}"#,
            "azb",
        ),
    ] {
        let table = compiled(fields);
        let names: String = table
            .placements()
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn equal_policies_are_shared() {
    let table = compiled(
        r#""cellEndpoints": {"a": "http://a"}, "defaults": {"concurrency_limit": 5},
           "placements": {"b": {"url": "http://b"}, "c": {"url": "http://c", "concurrency_limit": 5},
                          "d": {"url": "http://d", "concurrency_limit": 6}, "e": {"url": "http://e", "concurrency_limit": 7},
                          "f": {"url": "http://f", "concurrency_limit": 6}, "g": {"url": "http://g", "concurrency_limit": 5}}"#,
    );
    let same = |one: usize, other: usize| {
        let placements = table.placements();
        Arc::ptr_eq(&placements[one].policy, &placements[other].policy)
    };
    assert!(same(0, 1) && same(0, 2) && same(0, 6));
    assert!(same(3, 5), "one that came before is shared, too");
    assert!(!same(0, 3) && !same(3, 4));
}

/// A path that the library of the probe refuses would fail each probe.
#[test]
fn whatever_path_is_valid_can_be_asked_for() {
    let mut valid = 0;
    for character in (0..=255).map(char::from) {
        for path in [format!("/{character}"), format!("/?{character}")] {
            let fields = serde_json::json!({"url": "http://b", "health_check": {"path": path}});
            let document = document(&format!(r#""placements": {{"b": {fields}}}"#));
            if compile(document.as_bytes()).is_ok() {
                valid += 1;
                let read = path.parse::<http::uri::PathAndQuery>();
                assert_eq!(read.unwrap().as_str(), path);
            }
        }
    }
    // 94 visible characters but for five, in the path and in the query.
    assert_eq!(valid, 2 * 89);
}
