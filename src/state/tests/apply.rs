use std::sync::Arc;

use proptest::prelude::*;

use super::{Fixture, at, document};
use crate::files::Sha256;
use crate::state::{Applied, Generation, Source};
use crate::table::{Problem, RouteReason};

const A: (&str, &str) = ("tier1", "http://10.0.0.1:9001");
const B: (&str, &str) = ("visa", "http://10.0.0.2:9004");

fn sample(version: &str) -> Vec<u8> {
    document(version, &[A, B], &[("acme", "tier1"), ("visa", "visa")])
}

#[test]
fn before_the_first_table_there_is_nothing() {
    let edge = Fixture::new();
    assert!(edge.state.current().is_none());
    assert!(edge.state.explain("acme").is_none());
    assert_eq!(*edge.state.watch().borrow(), 0);
    let status = edge.state.status();
    assert_eq!(status.generation, None);
    assert_eq!(status.last_error, None);
    assert_eq!(edge.metric("cellgate_generation"), Some(0.0));
    assert!(
        edge.metric("cellgate_last_good_reload_age_seconds")
            .is_some_and(f64::is_nan)
    );
}

#[test]
fn a_document_is_applied_whole() {
    let edge = Fixture::new();
    let mut watch = edge.state.watch();
    let content = sample("1.0.0");
    let generation = edge.changed(&content);
    assert!(Arc::ptr_eq(&generation, &edge.state.current().unwrap()));
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 1);

    let (placement, reason) = generation.route(b"visa");
    assert_eq!(placement.name_header, "visa");
    assert_eq!(placement.backends()[0].origin.url, "http://10.0.0.2:9004");
    assert_eq!(reason, RouteReason::Dedicated);
    let (placement, reason) = generation.route(b"nobody");
    assert_eq!(placement.name_header, "tier1");
    assert_eq!(reason, RouteReason::Default);

    let sha256 = Sha256::of(&content);
    assert_eq!(
        serde_json::to_string(&edge.state.status()).unwrap(),
        format!(
            "{{\"version\":\"1.0.0\",\"last_reload_at\":\"2026-01-03T20:45:12Z\",\
             \"source\":\"file\",\"generation\":1,\"sha256\":\"{sha256}\",\
             \"keys\":2,\"placements\":2,\"last_error\":null,\"state\":null,\"control_plane\":null}}"
        )
    );
    for (series, value) in [
        ("cellgate_generation", 1.0),
        ("cellgate_keys", 2.0),
        ("cellgate_placements", 2.0),
        ("cellgate_config_error", 0.0),
        ("cellgate_reloads_total{result=\"ok\"}", 1.0),
        (
            "cellgate_last_good_reload_timestamp_seconds",
            1_767_473_112.0,
        ),
    ] {
        assert_eq!(edge.metric(series), Some(value), "{series}");
    }
}

#[test]
fn a_hash_is_shown_in_hexadecimal() {
    // FIPS 180-2, appendix B.1.
    assert_eq!(
        Sha256::of(b"abc").to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn identical_content_is_a_no_op() {
    let edge = Fixture::new();
    let first = edge.changed(&sample("1.0.0"));
    let mut watch = edge.state.watch();
    watch.mark_unchanged();
    let again = edge
        .state
        .apply(&sample("1.0.0"), Source::ControlPlane, at(60));
    assert!(matches!(again, Applied::Unchanged), "{again:?}");
    assert!(Arc::ptr_eq(&first, &edge.state.current().unwrap()));
    assert!(!watch.has_changed().unwrap());
    assert_eq!(edge.state.status().last_reload_at, Some(at(0)));
    assert_eq!(
        edge.metric("cellgate_reloads_total{result=\"unchanged\"}"),
        Some(1.0)
    );
}

#[test]
fn a_refused_document_changes_nothing() {
    let edge = Fixture::new();
    let first = edge.changed(&sample("1.0.0"));
    let mut watch = edge.state.watch();
    watch.mark_unchanged();
    let bad = document("2.0.0", &[A], &[("acme", "tier9"), ("globex", "tier8")]);
    let Applied::Refused(problems) = edge.state.apply(&bad, Source::File, at(10)) else {
        panic!("it was applied");
    };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(Arc::ptr_eq(&first, &edge.state.current().unwrap()));
    assert!(!watch.has_changed().unwrap());
    let status = edge.state.status();
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
    assert_eq!(status.last_reload_at, Some(at(0)));
    let error = status.last_error.unwrap();
    assert_eq!((error.at, error.problems), (at(10), problems));
    assert_eq!(edge.metric("cellgate_config_error"), Some(1.0));

    // The next generation follows the last one that was.
    assert_eq!(edge.changed(&sample("1.0.1")).number, 2);
    assert_eq!(edge.state.status().last_error, None);
    assert_eq!(edge.metric("cellgate_config_error"), Some(0.0));
}

/// What is not news is not logged, and keeps the time of when it was.
#[test]
fn the_same_refusal_again_is_no_news() {
    let edge = Fixture::new();
    edge.changed(&sample("1.0.0"));
    let time = |document: &[u8], seconds| {
        edge.state.apply(document, Source::File, at(seconds));
        edge.state.status().last_error.unwrap().at
    };
    assert_eq!(time(b"{", 10), at(10));
    assert_eq!(time(b"{", 20), at(10));
    assert_eq!(time(b"{ ", 30), at(30), "another document");
    assert_eq!(time(b"{", 40), at(40), "the first one is back");
}

#[test]
fn the_good_document_coming_back_clears_the_error() {
    let edge = Fixture::new();
    let first = edge.changed(&sample("1.0.0"));
    for _ in 0..2 {
        edge.apply(b"{");
        assert!(edge.state.status().last_error.is_some());
        assert!(matches!(edge.apply(&sample("1.0.0")), Applied::Unchanged));
        assert_eq!(edge.state.status().last_error, None);
    }
    assert_eq!(edge.state.current().unwrap().number, first.number);
    assert_eq!(edge.metric("cellgate_config_error"), Some(0.0));
}

#[test]
fn a_source_that_failed_is_shown_once() {
    let edge = Fixture::new();
    edge.changed(&sample("1.0.0"));
    let gone = || vec![Problem::without_place("cannot read x: no such file")];
    edge.state.source_failed(gone(), at(5));
    edge.state.source_failed(gone(), at(10));
    let error = edge.state.status().last_error.unwrap();
    assert_eq!((error.at, error.problems), (at(5), gone()));
    assert_eq!(
        edge.metric("cellgate_reloads_total{result=\"unreadable\"}"),
        Some(1.0)
    );
    edge.state
        .source_failed(vec![Problem::without_place("permission denied")], at(15));
    assert_eq!(edge.state.status().last_error.unwrap().at, at(15));
}

#[test]
fn the_last_error_is_bounded() {
    let edge = Fixture::new();
    let many = (0..150)
        .map(|n| Problem::without_place(n.to_string()))
        .collect();
    edge.state.source_failed(many, at(0));
    let error = edge.state.status().last_error.unwrap();
    assert_eq!((error.problems.len(), error.omitted), (100, 50));
}

#[test]
fn what_a_reload_keeps_keeps_its_state() {
    let edge = Fixture::new();
    let named = ("named", "http://cell:80");
    let placement = |generation: &Arc<Generation>, name: &str| {
        let mut placements = generation.placements.iter();
        let placement = placements.find(|placement| placement.name_header == name);
        let placement = placement.expect(name);
        let endpoint = Arc::clone(&placement.endpoints()[0].0);
        (Arc::clone(&placement.state), endpoint)
    };
    let first = edge.changed(&document("1", &[A, B, named], &[]));
    let (cell, endpoint) = placement(&first, "named");
    endpoint.resolved(&["10.1.1.1".parse().unwrap()]);

    // The same one, and one that moved to another endpoint.
    let moved = (B.0, "http://10.0.0.3:9004");
    let second = edge.changed(&document("2", &[named, moved, A], &[]));
    let (cell_2, endpoint_2) = placement(&second, "named");
    assert!(Arc::ptr_eq(&cell, &cell_2) && Arc::ptr_eq(&endpoint, &endpoint_2));
    assert_eq!(second.route(b"nobody").0.backends().len(), 1);
    let ((cell, endpoint), (cell_2, endpoint_2)) =
        (placement(&first, B.0), placement(&second, B.0));
    assert!(
        Arc::ptr_eq(&cell, &cell_2),
        "its requests in flight count on"
    );
    assert!(!Arc::ptr_eq(&endpoint, &endpoint_2));

    // An endpoint that only a retired generation names is still the same.
    let third = edge.changed(&document("3", &[A, B], &[]));
    assert!(Arc::ptr_eq(&endpoint, &placement(&third, B.0).1));
}

#[test]
fn placements_at_one_endpoint_are_apart() {
    let edge = Fixture::new();
    let twin = ("twin", A.1);
    let generation = edge.changed(&document("1", &[A, twin], &[]));
    let [a, b] = &*generation.placements else {
        panic!("two placements");
    };
    let backends = (&a.backends()[0], &b.backends()[0]);
    assert_eq!(backends.0.address, backends.1.address);
    assert!(!Arc::ptr_eq(backends.0, backends.1));
}

#[test]
fn a_request_keeps_its_placements_and_no_keys() {
    let edge = Fixture::new();
    let first = edge.changed(&document("1", &[A, B], &[("visa", "visa")]));
    let state = |name| {
        let mut placements = first.placements.iter();
        let placement = placements.find(|placement| placement.name_header == name);
        Arc::downgrade(&placement.expect(name).state)
    };
    let (a, b) = (state(A.0), state(B.0));
    let generation = Arc::downgrade(&first);
    drop(first);
    let request = edge.state.read(|current| current.placements.clone());
    let metrics = b.upgrade().expect("it is current").metrics.clone();
    metrics.upstream_connect_ok(false);
    let series = "cellgate_upstream_connections_total{placement=\"visa\",reused=\"false\"}";

    edge.changed(&document("2", &[A], &[]));
    assert!(generation.upgrade().is_none(), "while the request goes on");
    assert_eq!(edge.metric("cellgate_generations_alive"), Some(1.0));
    edge.state.show_gauges();
    assert!(b.upgrade().is_some());
    assert_eq!(edge.metric(series), Some(1.0), "the request counts on it");

    drop(request);
    assert!(b.upgrade().is_some(), "freed by the request");
    edge.state.show_gauges();
    assert!(b.upgrade().is_none(), "nothing names it");
    assert!(a.upgrade().is_some(), "the current generation does");
    assert_eq!(edge.metric(series), None);
}

/// Of a large table, the writer waits for readers, so that none of them frees it.
#[test]
fn the_writer_frees_what_it_replaced() {
    let edge = Fixture::new();
    let names: Vec<_> = (0..5_000).map(|key| format!("tenant-{key}")).collect();
    let keys: Vec<_> = names.iter().map(|name| (name.as_str(), "tier1")).collect();
    let first = edge.changed(&document("1", &[A], &keys));
    let generation = Arc::downgrade(&first);
    let state = Arc::clone(&edge.state);
    let reader = std::thread::spawn(move || {
        while state.current().is_some_and(|it| it.number == 1) {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        Arc::strong_count(&first) > 1
    });
    edge.changed(&document("2", &[A], &[]));
    assert!(generation.upgrade().is_none());
    assert!(reader.join().unwrap(), "the reader was the last");
}

#[test]
fn a_placement_goes_on_counting_across_reloads() {
    let edge = Fixture::new();
    for version in ["1", "2", "3"] {
        let generation = edge.changed(&document(version, &[A], &[]));
        let (placement, reason) = generation.route(b"acme");
        placement.state.metrics.request_done(reason, 200, 0.001);
    }
    let series = "cellgate_requests_total{placement=\"tier1\",reason=\"default\",status=\"2xx\"}";
    assert_eq!(edge.metric(series), Some(3.0));
}

#[test]
fn overrides_are_known_at_once() {
    let edge = Fixture::with_hosts(&[("Cell-Tier1", "127.0.0.9")]);
    edge.changed(&document("1", &[("tier1", "http://cell-tier1:9001")], &[]));
    let explanation = edge.state.explain("a+b").unwrap();
    let shown = serde_json::to_string(&explanation).unwrap();
    assert!(
        shown.starts_with(
            "{\"key\":\"a+b\",\"placement\":\"tier1\",\"reason\":\"default\",\
             \"endpoint\":\"http://cell-tier1:9001\",\"addresses\":[\"127.0.0.9:9001\"],\
             \"generation\":1,\"version\":\"1\","
        ),
        "{shown}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_worse(noise in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
        let edge = Fixture::new();
        let first = edge.changed(&sample("1.0.0"));
        let next = sample("2.0.0");
        let mut broken = next.get(..cut).unwrap_or(&next[..next.len() - 1]).to_vec();
        broken.extend(noise);
        match edge.apply(&broken) {
            Applied::Changed(generation) => prop_assert_eq!(generation.number, 2),
            Applied::Unchanged => prop_assert!(false, "it is not the same"),
            Applied::Refused(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(Arc::ptr_eq(&first, &edge.state.current().unwrap()));
            }
        }
    }
}
