//! What a control plane pushes: deltas and whole tables.

use super::{Fixture, at, document};
use crate::state::restore::Quarantined;
use crate::state::{EdgeOptions, Push, PushLimits, Pushed, Source};
use crate::table::{Delta, RoutingTable, compile};

const A: (&str, &str) = ("tier1", "http://10.0.0.1:9001");
const B: (&str, &str) = ("visa", "http://10.0.0.2:9004");

fn table(version: &str, keys: &[(&str, &str)]) -> RoutingTable {
    compile(&document(version, &[A, B], keys)).unwrap()
}

/// `globex` goes to `placement`.
fn set(placement: &str) -> Delta {
    Delta {
        set: vec![("globex".to_owned(), placement.to_owned())],
        ..Delta::default()
    }
}

fn serving() -> Fixture {
    let edge = Fixture::new();
    edge.changed(&document("1", &[A, B], &[("acme", "tier1")]));
    edge
}

#[test]
fn a_delta_is_applied_and_costs_no_placement() {
    let edge = serving();
    let first = edge.state.current().unwrap();
    let next = first.table.apply(&set("visa")).unwrap().digest();
    let pushed = edge.state.push(Push::Delta(set("visa")), 9, next, at(60));
    let Pushed::Changed(second) = pushed else {
        panic!("{pushed:?}");
    };
    assert_eq!(second.route(b"globex").0.name_header, "visa");
    assert_eq!(second.number, 2);
    assert_eq!(second.source, Source::ControlPlane);
    assert_eq!((second.control_generation, second.sha256), (Some(9), None));
    assert!(
        first.placements.ptr_eq(&second.placements),
        "a key has moved, and no placement was made anew"
    );
    assert_eq!(edge.state.status().last_reload_at, Some(at(60)));
    assert_eq!(edge.metric("cellgate_keys"), Some(2.0));

    // Another head has placements of its own, bound to the same cells.
    let head = table("2", &[]).head_json().to_string();
    let delta = Delta {
        head: Some(head),
        ..Delta::default()
    };
    let next = second.table.apply(&delta).unwrap().digest();
    let pushed = edge.state.push(Push::Delta(delta), 10, next, at(61));
    let Pushed::Changed(third) = pushed else {
        panic!("{pushed:?}");
    };
    let (old, new) = (second.route(b"acme").0, third.route(b"acme").0);
    assert!(!std::ptr::eq(old, new));
    assert!(std::sync::Arc::ptr_eq(&old.state, &new.state));
    assert_eq!(third.table.version(), "2");
}

#[test]
fn what_a_delta_leaves_is_freed() {
    let edge = serving();
    for (number, placement) in [(2, "visa"), (3, "tier1"), (4, "visa")] {
        let next = {
            let current = edge.state.current().unwrap();
            current.table.apply(&set(placement)).unwrap().digest()
        };
        let pushed = edge
            .state
            .push(Push::Delta(set(placement)), number, next, at(0));
        assert!(matches!(pushed, Pushed::Changed(_)), "{pushed:?}");
        drop(pushed);
        assert_eq!(edge.metric("cellgate_generations_alive"), Some(1.0));
    }
    // Placements that go are forgotten all the same.
    edge.state.current().unwrap().placements[1]
        .state
        .metrics
        .upstream_connect_ok(false);
    let series = "cellgate_upstream_connections_total{placement=\"visa\",reused=\"false\"}";
    assert_eq!(edge.metric(series), Some(1.0));
    let alone = compile(&document("2", &[A], &[])).unwrap();
    let digest = alone.digest();
    let pushed = edge.state.push(Push::Table(alone), 5, digest, at(0));
    assert!(matches!(pushed, Pushed::Changed(_)), "{pushed:?}");
    drop(pushed);
    edge.state.show_gauges();
    assert_eq!(edge.metric(series), None);
}

#[test]
fn content_that_is_not_what_was_announced_is_not_served() {
    let edge = serving();
    let before = edge.state.current().unwrap();
    let announced = before.table.digest();
    for push in [
        Push::Delta(set("visa")),
        Push::Table(table("1", &[("globex", "visa")])),
    ] {
        let pushed = edge.state.push(push, 9, announced, at(1));
        let Pushed::Differs(digest) = pushed else {
            panic!("{pushed:?}");
        };
        assert_ne!(digest, announced);
        assert!(std::sync::Arc::ptr_eq(
            &before,
            &edge.state.current().unwrap()
        ));
    }
    assert_eq!(edge.state.status().last_error, None, "a resync may mend it");
}

#[test]
fn what_cannot_be_served_is_refused_and_shown_until_all_is_well() {
    let edge = serving();
    let before = edge.state.current().unwrap();
    let digest = before.table.digest();
    let pushed = edge.state.push(Push::Delta(set("tier9")), 9, digest, at(1));
    let Pushed::Refused(problems) = pushed else {
        panic!("{pushed:?}");
    };
    assert_eq!(problems[0].pointer, "/set/globex");
    let shown = edge.state.status().last_error.expect("it is shown");
    assert_eq!((shown.at, &shown.problems), (at(1), &problems));
    assert_eq!(edge.metric("cellgate_config_error"), Some(1.0));
    assert!(std::sync::Arc::ptr_eq(
        &before,
        &edge.state.current().unwrap()
    ));

    edge.state.in_step();
    assert_eq!(edge.state.status().last_error, None);
    assert_eq!(edge.metric("cellgate_config_error"), Some(0.0));
    let unchanged = "cellgate_reloads_total{result=\"unchanged\"}";
    assert_eq!(edge.metric(unchanged), Some(1.0));
    edge.state.in_step();
    assert_eq!(edge.metric(unchanged), Some(1.0), "it was said already");
}

#[test]
fn an_older_generation_is_refused_whatever_its_content() {
    let edge = serving();
    let now = table("2", &[]);
    let digest = now.digest();
    // A file has no generation.
    let pushed = edge.state.push(Push::Table(now), 5, digest, at(1));
    assert!(matches!(pushed, Pushed::Changed(_)), "{pushed:?}");
    for push in [Push::Delta(Delta::default()), Push::Table(table("2", &[]))] {
        let pushed = edge.state.push(push, 4, digest, at(2));
        let Pushed::Refused(problems) = pushed else {
            panic!("{pushed:?}");
        };
        let words = "older generation 4 (this edge has 5; generations only grow)";
        assert_eq!(problems[0].message, words);
    }
    let served = edge.state.current().unwrap();
    assert_eq!(served.control_generation, Some(5));
    let other = table("3", &[]);
    let digest = other.digest();
    let pushed = edge.state.push(Push::Table(other), 5, digest, at(3));
    assert!(matches!(pushed, Pushed::Changed(_)), "it mends: {pushed:?}");
}

#[test]
fn a_table_does_not_grow_beyond_its_limits() {
    let head = table("1", &[]).content_bytes();
    let key = |key: &str| Delta {
        set: vec![(key.to_owned(), "visa".to_owned())],
        ..Delta::default()
    };
    for (keys, bytes, words) in [
        (2, u64::MAX, "3 keys (at most 2;"),
        (u64::MAX, head + 10, "bytes of keys and head (at most "),
    ] {
        let edge = Fixture::with(EdgeOptions {
            push_limits: PushLimits { keys, bytes },
            ..EdgeOptions::default()
        });
        // 4, 4 and 4 bytes.
        edge.changed(&document("1", &[A, B], &[("acme", "tier1")]));
        let mut generation = 1;
        let mut push = |delta: Delta| {
            generation += 1;
            let next = edge.state.current().unwrap().table.apply(&delta).unwrap();
            let digest = next.digest();
            [Push::Delta(delta), Push::Table(next)]
                .map(|push| edge.state.push(push, generation, digest, at(1)))
        };
        for pushed in push(key("glob")) {
            assert!(matches!(pushed, Pushed::Changed(_)), "{pushed:?}");
        }
        for pushed in push(key("init")) {
            let Pushed::Refused(problems) = pushed else {
                panic!("{pushed:?}");
            };
            assert!(problems[0].message.contains(words), "{problems:?}");
        }
        // Moving one is no growth, and what is taken out makes room.
        let swap = Delta {
            remove: vec!["acme".to_owned()],
            ..key("init")
        };
        for pushed in push(swap) {
            assert!(matches!(pushed, Pushed::Changed(_)), "{pushed:?}");
        }
    }
}

#[test]
fn what_made_the_edge_crash_is_refused_whoever_sends_it() {
    let edge = serving();
    let bad = table("1", &[("acme", "visa")]);
    let digest = bad.digest();
    edge.state.quarantine(vec![Quarantined {
        digest: digest.to_string(),
        number: 7,
    }]);
    let delta = Delta {
        set: vec![("acme".to_owned(), "visa".to_owned())],
        ..Delta::default()
    };
    for push in [Push::Delta(delta), Push::Table(bad)] {
        let pushed = edge.state.push(push, 9, digest, at(1));
        let Pushed::Refused(problems) = pushed else {
            panic!("{pushed:?}");
        };
        assert!(
            problems[0]
                .message
                .contains("this edge's generation 7 (digest ")
        );
    }
}

/// Programs write the same content in many ways.
#[test]
fn a_pushed_document_of_the_same_content_is_no_change() {
    let edge = serving();
    let text = String::from_utf8(document("1", &[A, B], &[("acme", "tier1")])).unwrap();
    let spaced = text.replace(',', ", ");
    let again = edge
        .state
        .apply(spaced.as_bytes(), Source::ControlPlane, at(1));
    assert!(
        matches!(again, crate::state::Applied::Unchanged),
        "{again:?}"
    );
    let filed = edge.state.apply(spaced.as_bytes(), Source::File, at(1));
    assert!(
        matches!(filed, crate::state::Applied::Changed(_)),
        "{filed:?}"
    );
}
