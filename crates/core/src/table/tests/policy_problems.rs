//! Every problem that the fields of a policy can have.

use super::placements::{NULL, assert_marked, defaults, placement};

pub(super) const DURATION: &str =
    "expected a duration from 1ms to 1day, such as \"10s\", \"500ms\" or \"1m30s\", found ";
pub(super) const INTERVAL: &str =
    "expected a duration from 100ms to 1day, such as \"10s\", \"500ms\" or \"1m30s\", found ";
const STATUS: &str = "expected a status from 200 to 599, a range such as \"200-299\" or a class \
                      such as \"2xx\", found ";

/// Problems with a policy, which has the same fields in a placement and in
/// `defaults`: what is written, where in it the problem is, and how it reads.
fn policy_problems() -> Vec<(&'static str, &'static str, String)> {
    let whole =
        |range: &str, found: &str| format!("expected a whole number {range}, found {found}");
    let object =
        |found: &str| format!("expected an object, found {found} ({{}} is one with all defaults)");
    let null = |name: &str| format!("null has no meaning here (leave \"{name}\" {NULL}");
    vec![
        // Whole numbers.
        (r#""concurrency_limit": «0"#, "/concurrency_limit", whole("from 1 to 4294967295", "the number 0")),
        (r#""concurrency_limit": «4294967296"#, "/concurrency_limit", whole("from 1 to 4294967295", "the number 4294967296")),
        (r#""concurrency_limit": «5.0"#, "/concurrency_limit", whole("from 1 to 4294967295", "the number 5.0")),
        (r#""concurrency_limit": «1e2"#, "/concurrency_limit", whole("from 1 to 4294967295", "the number 1e2")),
        (r#""concurrency_limit": «-1"#, "/concurrency_limit", whole("from 1 to 4294967295", "the number -1")),
        (r#""concurrency_limit": «"5""#, "/concurrency_limit", whole("from 1 to 4294967295", "a string")),
        (r#""concurrency_limit": «99999999999999999999999999999"#, "/concurrency_limit", whole("from 1 to 4294967295", "a long number")),
        (r#""max_request_body_bytes": «9007199254740993"#, "/max_request_body_bytes", whole("from 0 to 9007199254740992", "the number 9007199254740993")),
        (r#""max_request_body_bytes": «-0"#, "/max_request_body_bytes", whole("from 0 to 9007199254740992", "the number -0")),
        (r#""max_request_body_bytes": «"1MiB""#, "/max_request_body_bytes", whole("from 0 to 9007199254740992", "a string (in bytes, such as 1048576)")),
        (r#""max_request_body_bytes": «false"#, "/max_request_body_bytes", whole("from 0 to 9007199254740992", "false")),
        (r#""health_check": {"healthy_threshold": «0}"#, "/health_check/healthy_threshold", whole("from 1 to 100", "the number 0")),
        (r#""health_check": {"unhealthy_threshold": «101}"#, "/health_check/unhealthy_threshold", whole("from 1 to 100", "the number 101")),
        (r#""circuit_breaker": {"failure_threshold": «0}"#, "/circuit_breaker/failure_threshold", whole("from 1 to 10000", "the number 0")),
        (r#""circuit_breaker": {"failure_threshold": «10001}"#, "/circuit_breaker/failure_threshold", whole("from 1 to 10000", "the number 10001")),
        (r#""retries": {"attempts": «0}"#, "/retries/attempts", whole("from 1 to 10", "the number 0")),
        (r#""retries": {"attempts": «11}"#, "/retries/attempts", whole("from 1 to 10", "the number 11")),
        // Durations.
        (r#""circuit_breaker": {"timeout": «10}"#, "/circuit_breaker/timeout", format!("{DURATION}the number 10 without a unit (write \"10s\" or \"10ms\")")),
        (r#""timeouts": {"connect": «1.5}"#, "/timeouts/connect", format!("{DURATION}the number 1.5 without a unit (write \"10s\" or \"500ms\")")),
        (r#""timeouts": {"response_header": «"10"}"#, "/timeouts/response_header", format!("{DURATION}\"10\"")),
        (r#""timeouts": {"request": «"0s"}"#, "/timeouts/request", format!("{DURATION}\"0s\"")),
        (r#""timeouts": {"stream_idle": «"25h"}"#, "/timeouts/stream_idle", format!("{DURATION}\"25h\"")),
        (r#""timeouts": {"upstream_idle": «"soon"}"#, "/timeouts/upstream_idle", format!("{DURATION}\"soon\"")),
        (r#""timeouts": {"request": «"999us"}"#, "/timeouts/request", format!("{DURATION}\"999us\"")),
        (r#""timeouts": {"request": «true}"#, "/timeouts/request", format!("{DURATION}true")),
        (r#""timeouts": {"request": «"99999999999999999999y"}"#, "/timeouts/request", format!("{DURATION}\"99999999999999999999y\"")),
        (r#""timeouts": {"request": «"1 30s"}"#, "/timeouts/request", format!("{DURATION}\"1 30s\"")),
        (r#""timeouts": {"request": «"1.5s"}"#, "/timeouts/request", format!("{DURATION}\"1.5s\"")),
        (r#""timeouts": {"request": «"18446744073709551615s1000000000ns"}"#, "/timeouts/request", format!("{DURATION}\"18446744073709551615s1000000000ns\"")),
        (r#""health_check": {"interval": «"99ms"}"#, "/health_check/interval", format!("{INTERVAL}\"99ms\"")),
        (r#""health_check": {"interval": «10}"#, "/health_check/interval", format!("{INTERVAL}the number 10 without a unit (write \"10s\" or \"10ms\")")),
        (r#""health_check": {"timeout": «""}"#, "/health_check/timeout", format!("{DURATION}\"\"")),
        // Times that belong together; one that cannot be read is no second problem.
        (r#""health_check": {"interval": "5s", "timeout": «"6s"}"#, "/health_check/timeout", "timeout 6s is longer than the interval 5s".to_owned()),
        (r#""health_check": {"timeout": «"11s"}"#, "/health_check/timeout", "timeout 11s is longer than the interval 10s".to_owned()),
        (r#""health_check": {"interval": «"1s"}"#, "/health_check/interval", "interval 1s is shorter than the timeout 2s (set a timeout of at most 1s as well)".to_owned()),
        (r#""health_check": {"interval": «"1", "timeout": "1h"}"#, "/health_check/interval", format!("{INTERVAL}\"1\"")),
        // Words.
        (r#""tenancy": «"Shared""#, "/tenancy", r#"unknown tenancy "Shared" (known: dedicated, shared; did you mean "shared"?)"#.to_owned()),
        (r#""tenancy": «true"#, "/tenancy", "expected a string, found true".to_owned()),
        (r#""load_balancing": «"random""#, "/load_balancing", r#"unknown load balancing "random" (known: least_request, round_robin, hash)"#.to_owned()),
        (r#""load_balancing": «"leastrequest""#, "/load_balancing", r#"unknown load balancing "leastrequest" (known: least_request, round_robin, hash; did you mean "least_request"?)"#.to_owned()),
        (r#""retries": {"on": «"connect"}"#, "/retries/on", r#"expected an array of "connect", "reset" or both, found a string"#.to_owned()),
        (r#""retries": {"on": ["connect", «"rest"]}"#, "/retries/on/1", r#"unknown cause of a retry "rest" (known: connect, reset; did you mean "reset"?)"#.to_owned()),
        (r#""retries": {"on": [«5]}"#, "/retries/on/0", "expected a string, found the number 5".to_owned()),
        // Statuses.
        (r#""health_check": {"expected_status": «199}"#, "/health_check/expected_status", format!("{STATUS}the number 199")),
        (r#""health_check": {"expected_status": «600}"#, "/health_check/expected_status", format!("{STATUS}the number 600")),
        (r#""health_check": {"expected_status": «200.0}"#, "/health_check/expected_status", format!("{STATUS}the number 200.0")),
        (r#""health_check": {"expected_status": «"6xx"}"#, "/health_check/expected_status", format!("{STATUS}\"6xx\"")),
        (r#""health_check": {"expected_status": «"1xx"}"#, "/health_check/expected_status", format!("{STATUS}\"1xx\"")),
        (r#""health_check": {"expected_status": «"100-299"}"#, "/health_check/expected_status", format!("{STATUS}\"100-299\"")),
        (r#""health_check": {"expected_status": «"0200-0299"}"#, "/health_check/expected_status", format!("{STATUS}\"0200-0299\"")),
        (r#""health_check": {"expected_status": «"2XX"}"#, "/health_check/expected_status", format!("{STATUS}\"2XX\"")),
        (r#""health_check": {"expected_status": «"299-200"}"#, "/health_check/expected_status", format!("{STATUS}\"299-200\"")),
        (r#""health_check": {"expected_status": «"+200-299"}"#, "/health_check/expected_status", format!("{STATUS}\"+200-299\"")),
        (r#""health_check": {"expected_status": «"200"}"#, "/health_check/expected_status", format!("{STATUS}\"200\"")),
        (r#""health_check": {"expected_status": [200, «"300-600"]}"#, "/health_check/expected_status/1", format!("{STATUS}\"300-600\"")),
        (r#""health_check": {"expected_status": [«null]}"#, "/health_check/expected_status/0", format!("{STATUS}null")),
        (r#""health_check": {"expected_status": «{}}"#, "/health_check/expected_status", format!("{STATUS}an object")),
        (r#""health_check": {"expected_status": «[]}"#, "/health_check/expected_status", "0 statuses (valid: 1 to 100, such as [200, \"300-399\"])".to_owned()),
        // The probe's path.
        (r#""health_check": {"path": «"health"}"#, "/health_check/path", r#"path "health" does not begin with a slash"#.to_owned()),
        (r#""health_check": {"path": «""}"#, "/health_check/path", r#"path "" does not begin with a slash"#.to_owned()),
        (r#""health_check": {"path": «"/a b"}"#, "/health_check/path", r#"path "/a b" contains U+0020 (valid is visible ASCII but for " < > `; percent-encode the rest)"#.to_owned()),
        (r#""health_check": {"path": «"/ü"}"#, "/health_check/path", r#"path "/ü" contains U+00FC (valid is visible ASCII but for " < > `; percent-encode the rest)"#.to_owned()),
        (r#""health_check": {"path": «"/\r\nX: y"}"#, "/health_check/path", r#"path "/\r\nX: y" contains U+000D (valid is visible ASCII but for " < > `; percent-encode the rest)"#.to_owned()),
        (r#""health_check": {"path": «"/a<b"}"#, "/health_check/path", r#"path "/a<b" contains U+003C (valid is visible ASCII but for " < > `; percent-encode the rest)"#.to_owned()),
        (r#""health_check": {"path": «"/a?b=\""}"#, "/health_check/path", r#"path "/a?b=\"" contains U+0022 (valid is visible ASCII but for " < > `; percent-encode the rest)"#.to_owned()),
        (r#""health_check": {"path": «"/a#b"}"#, "/health_check/path", r#"path "/a#b" has a fragment, which no request carries (cut it off)"#.to_owned()),
        (r#""health_check": {"path": «1}"#, "/health_check/path", "expected a string, found the number 1".to_owned()),
        // Hosts.
        (r#""host_header": «"rewrit""#, "/host_header", r#"unknown host "rewrit" (did you mean "rewrite"? a host of that name needs its port)"#.to_owned()),
        (r#""host_header": «"Preserve""#, "/host_header", r#"unknown host "Preserve" (did you mean "preserve"? a host of that name needs its port)"#.to_owned()),
        (r#""host_header": «"http://cell""#, "/host_header", r#"host "http://cell" is a URL (valid: host or host:port); also valid: preserve, rewrite"#.to_owned()),
        (r#""host_header": «"""#, "/host_header", "empty host (valid: host or host:port); also valid: preserve, rewrite".to_owned()),
        (r#""host_header": «"cell:0""#, "/host_header", r#"host "cell:0" has the port "0" (valid: 1 to 65535); also valid: preserve, rewrite"#.to_owned()),
        (r#""host_header": «"cell:080""#, "/host_header", r#"host "cell:080" has the port "080" (valid: 1 to 65535); also valid: preserve, rewrite"#.to_owned()),
        (r#""host_header": «"cell/x""#, "/host_header", r#"host "cell/x" goes on after its host and port (valid: host or host:port); also valid: preserve, rewrite"#.to_owned()),
        (r#""host_header": «"me:secret@cell""#, "/host_header", r#"host "…@cell" carries a user name or password (valid: host or host:port); also valid: preserve, rewrite"#.to_owned()),
        (r#""host_header": «"a\r\nb""#, "/host_header", r#"host "a\r\nb" contains a line break (U+000D); also valid: preserve, rewrite"#.to_owned()),
        (r#""host_header": «"::1""#, "/host_header", r#"host "::1" has an IPv6 address without brackets (write [::1]); also valid: preserve, rewrite"#.to_owned()),
        (r#""host_header": «5"#, "/host_header", "expected a string, found the number 5".to_owned()),
        (r#""health_check": {"host": «"preserve"}"#, "/health_check/host", r#""preserve" has no meaning for probes, which come from no client (valid: rewrite or a host)"#.to_owned()),
        (r#""health_check": {"host": «"rewrit"}"#, "/health_check/host", r#"unknown host "rewrit" (did you mean "rewrite"? a host of that name needs its port)"#.to_owned()),
        // Objects, null, and fields that are not there.
        (r#""health_check": «true"#, "/health_check", object("true")),
        (r#""circuit_breaker": «5"#, "/circuit_breaker", object("the number 5")),
        (r#""timeouts": «"10s""#, "/timeouts", object("a string")),
        (r#""retries": «[]"#, "/retries", object("an array")),
        (r#""timeouts": «null"#, "/timeouts", null("timeouts")),
        (r#""retries": «null"#, "/retries", null("retries")),
        (r#""load_balancing": «null"#, "/load_balancing", null("load_balancing")),
        (r#""host_header": «null"#, "/host_header", null("host_header")),
        (r#""health_check": {"path": «null}"#, "/health_check/path", null("path")),
        (r#""health_check": {"interval": «null, "timeout": "1h"}"#, "/health_check/interval", null("interval")),
        (r#""circuit_breaker": {"timeout": «null}"#, "/circuit_breaker/timeout", null("timeout")),
        (r#""timeouts": {"connect": «null}"#, "/timeouts/connect", null("connect")),
        (r#""retries": {"on": «null}"#, "/retries/on", null("on")),
        (r#""health_check": {«"intervall": "1s"}"#, "/health_check/intervall", r#"unknown field "intervall" (known: path, interval, timeout, healthy_threshold, unhealthy_threshold, expected_status, host; did you mean "interval"?)"#.to_owned()),
        (r#""circuit_breaker": {«"threshold": 1}"#, "/circuit_breaker/threshold", r#"unknown field "threshold" (known: failure_threshold, timeout)"#.to_owned()),
        (r#""timeouts": {«"idle": "1s"}"#, "/timeouts/idle", r#"unknown field "idle" (known: connect, response_header, request, stream_idle, upstream_idle)"#.to_owned()),
        (r#""retries": {«"tries": null}"#, "/retries/tries", r#"unknown field "tries" (known: attempts, on)"#.to_owned()),
        (r#""retries": {«"attempt": 1}"#, "/retries/attempt", r#"unknown field "attempt" (known: attempts, on; did you mean "attempts"?)"#.to_owned()),
    ]
}

#[test]
fn what_a_policy_may_not_say() {
    for (fields, pointer, message) in policy_problems() {
        assert_marked(
            &placement(fields),
            &[(&format!("/placements/a{pointer}"), &message)],
        );
        assert_marked(
            &defaults(fields),
            &[(&format!("/defaults{pointer}"), &message)],
        );
    }
}
