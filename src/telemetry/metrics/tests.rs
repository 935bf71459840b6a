use super::*;
use crate::table::RouteReason;

fn lines(metrics: &Metrics, prefix: &str) -> Vec<String> {
    let text = metrics.encode();
    text.lines()
        .filter(|line| line.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

#[test]
fn requests_are_counted_by_placement_reason_and_class() {
    let metrics = Metrics::new();
    let placement = metrics.placement("tier1");
    for status in [200, 204, 301, 404, 499, 502, 999, 42] {
        placement.request_done(RouteReason::Tier, status, 0.1);
    }
    assert_eq!(
        lines(&metrics, "cellgate_requests_total"),
        [
            r#"cellgate_requests_total{placement="tier1",reason="tier",status="1xx"} 0"#,
            r#"cellgate_requests_total{placement="tier1",reason="tier",status="2xx"} 2"#,
            r#"cellgate_requests_total{placement="tier1",reason="tier",status="3xx"} 1"#,
            r#"cellgate_requests_total{placement="tier1",reason="tier",status="4xx"} 2"#,
            r#"cellgate_requests_total{placement="tier1",reason="tier",status="5xx"} 3"#,
        ]
    );
    assert!(
        metrics
            .encode()
            .contains("# TYPE cellgate_requests_total counter")
    );
}

#[test]
fn durations_fall_into_their_buckets() {
    let metrics = Metrics::new();
    let placement = metrics.placement("a");
    for seconds in [0.0005, 0.0006, 0.3, 61.0, f64::NAN, -1.0] {
        placement.request_done(RouteReason::Default, 200, seconds);
    }
    let shown = lines(&metrics, "cellgate_request_duration_seconds");
    let has = |line: &str| shown.iter().any(|shown| shown == line);
    for line in [
        // What is no time at all counts as none.
        r#"cellgate_request_duration_seconds_bucket{placement="a",le="0.0005"} 3"#,
        r#"cellgate_request_duration_seconds_bucket{placement="a",le="0.001"} 4"#,
        r#"cellgate_request_duration_seconds_bucket{placement="a",le="0.25"} 4"#,
        r#"cellgate_request_duration_seconds_bucket{placement="a",le="0.5"} 5"#,
        r#"cellgate_request_duration_seconds_bucket{placement="a",le="60"} 5"#,
        r#"cellgate_request_duration_seconds_bucket{placement="a",le="+Inf"} 6"#,
        r#"cellgate_request_duration_seconds_sum{placement="a"} 61.3011"#,
        r#"cellgate_request_duration_seconds_count{placement="a"} 6"#,
    ] {
        assert!(has(line), "{line} in {shown:#?}");
    }
}

#[test]
fn connections_are_counted_by_how_they_went() {
    let metrics = Metrics::new();
    let placement = metrics.placement("a");
    placement.upstream_connect_ok(true);
    placement.upstream_connect_ok(true);
    placement.upstream_connect_ok(false);
    for kind in ["refused", "timeout", "tls", "dns", "other", "solar flare"] {
        placement.upstream_connect_failed(kind);
    }
    assert_eq!(
        lines(&metrics, "cellgate_upstream"),
        [
            r#"cellgate_upstream_connect_failures_total{kind="dns",placement="a"} 1"#,
            r#"cellgate_upstream_connect_failures_total{kind="other",placement="a"} 2"#,
            r#"cellgate_upstream_connect_failures_total{kind="refused",placement="a"} 1"#,
            r#"cellgate_upstream_connect_failures_total{kind="timeout",placement="a"} 1"#,
            r#"cellgate_upstream_connect_failures_total{kind="tls",placement="a"} 1"#,
            r#"cellgate_upstream_connections_total{placement="a",reused="false"} 1"#,
            r#"cellgate_upstream_connections_total{placement="a",reused="true"} 2"#,
        ]
    );
}

/// Nothing of a placement until it is used, and then all that may fail, at zero.
#[test]
fn unused_placements_are_not_shown() {
    let metrics = Metrics::new();
    metrics.placement("unused");
    metrics.placement("asked").upstream_connect_ok(false);
    metrics
        .placement("failed")
        .upstream_connect_failed("refused");
    // Refused by the edge itself, without an attempt.
    metrics
        .placement("answered")
        .request_done(RouteReason::Tier, 502, 0.1);
    let text = metrics.encode();
    assert!(!text.contains("unused"), "{text}");
    let failures = "cellgate_upstream_connect_failures_total{kind=\"refused\"";
    assert_eq!(
        lines(&metrics, failures),
        [("answered", 0), ("asked", 0), ("failed", 1)]
            .map(|(name, count)| format!("{failures},placement=\"{name}\"}} {count}"))
    );
}

#[test]
fn forgotten_placements_are_shown_no_more() {
    let metrics = Metrics::new();
    let (kept, gone) = (metrics.placement("kept"), metrics.placement("gone"));
    kept.request_done(RouteReason::Tier, 200, 0.1);
    metrics.forget_placements_except(&|name| name == "kept");
    // Held by a request that is not over yet.
    gone.request_done(RouteReason::Tier, 200, 0.1);
    let text = metrics.encode();
    assert!(!text.contains("gone") && text.contains("kept"));
    metrics
        .placement("kept")
        .request_done(RouteReason::Tier, 200, 0.1);
    let series = r#"cellgate_requests_total{placement="kept",reason="tier",status="2xx"}"#;
    assert_eq!(lines(&metrics, series), [format!("{series} 2")]);
}

#[test]
fn refusals_are_counted_by_status() {
    let metrics = Metrics::new();
    for status in [400, 400, 431, 599] {
        metrics.request_refused(status);
    }
    for (status, count) in [("400", 2), ("431", 1), ("503", 0), ("other", 1)] {
        let series = format!("cellgate_requests_refused_total{{status=\"{status}\"}}");
        assert_eq!(lines(&metrics, &series), [format!("{series} {count}")]);
    }
}

#[test]
fn names_need_no_escaping_to_be_safe() {
    let metrics = Metrics::new();
    metrics.placement("a\"b\\c\nd").upstream_connect_ok(true);
    metrics.dns_failed("x\"y");
    let text = metrics.encode();
    assert!(text.contains(r#"placement="a\"b\\c\nd""#), "{text}");
    assert!(text.contains(r#"host="x\"y""#), "{text}");
}

/// The page that lists the metrics is complete, and lists no others.
#[test]
fn every_metric_is_documented() {
    let metrics = Metrics::new();
    let placement = metrics.placement("a");
    placement.request_done(RouteReason::Tier, 200, 0.1);
    placement.rejected("circuit_open");
    placement.failed_over("circuit_open");
    placement.retried();
    placement.breaker_turned("open");
    placement.health_turned("unhealthy");
    placement.probed(false);
    metrics.dns_failed("a");
    metrics.set_endpoints("resolved", 1);
    metrics.control();
    let text = metrics.encode();
    let page = include_str!("../../../docs/metrics.md");
    // Those of the control plane come after, and are another process's.
    let (page, _) = page.split_once("\n## The control plane\n").unwrap();
    let mut shown: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let mut listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .collect();
    // Where a limit is not set, there is none to show.
    shown.retain(|name| *name != "process_max_fds");
    listed.retain(|name| *name != "process_max_fds");
    shown.sort_unstable();
    listed.sort_unstable();
    assert_eq!(shown, listed);
}

/// What operators scrape: names, help texts, types, labels and their order.
#[test]
fn the_text_is_as_in_the_golden_file() {
    let metrics = Metrics::new();
    let tier1 = metrics.placement("tier1");
    tier1.request_done(RouteReason::Tier, 200, 0.003);
    tier1.request_done(RouteReason::Default, 503, 0.3);
    tier1.upstream_connect_ok(false);
    tier1.upstream_connect_ok(true);
    tier1.upstream_connect_failed("tls");
    tier1.rejected("circuit_open");
    tier1.failed_over("circuit_open");
    tier1.retried();
    tier1.retry_refused();
    tier1.breaker_turned("open");
    tier1.health_turned("unhealthy");
    tier1.probed(false);
    tier1.show(3, 1, 2);
    let visa = metrics.placement("visa");
    visa.probed(true);
    visa.show(0, 1, 0);
    metrics.placement("unused");
    metrics.request_refused(400);
    metrics.request_refused(599);
    metrics.reloaded(Reload::Refused);
    metrics.dns_failed("cell.example");
    metrics.set_endpoints("resolved", 2);
    let control = metrics.control();
    control.message(Direction::Received, "welcome");
    control.connect(true);
    control.show(true, Duration::ZERO, Some(7));
    let text = metrics.encode();
    // Those of the process are measured.
    let shown = text.lines().filter(|line| !line.contains("process_"));
    let mut golden = include_str!("golden.txt").lines();
    for line in shown {
        assert_eq!(Some(line), golden.next(), "{text}");
    }
    assert_eq!(golden.next(), None);
}
