use super::table;
use crate::protocol::{Mark, Verdict, checkpoint, delta, snapshot};

fn marks() -> (impl Fn(u64) -> Mark, impl Fn(u64) -> Mark) {
    let mark = |version| {
        let digest = table(version, []).digest();
        move |generation| Mark { generation, digest }
    };
    (mark("a"), mark("b"))
}

#[test]
fn deltas_are_applied_in_order_and_once() {
    let (a, b) = marks();
    for (held, from, to, expected) in [
        (Some(a(5)), 5, b(6), "apply"),
        (Some(a(5)), 5, b(9), "apply"),
        (Some(a(5)), 4, a(5), "known"),
        (Some(a(5)), 4, b(5), "refuse"),
        (Some(a(5)), 2, b(3), "refuse"),
        (Some(a(5)), 4, b(6), "resync"),
        (Some(a(5)), 6, b(7), "resync"),
        (None, 1, b(2), "resync"),
    ] {
        let verdict = delta(held, from, to);
        assert_eq!(
            name(&verdict),
            expected,
            "{held:?} {from} {to:?}: {verdict:?}"
        );
    }
}

#[test]
fn snapshots_never_lead_back() {
    let (a, b) = marks();
    for (held, to, expected) in [
        (None, a(1), "apply"),
        (Some(a(5)), b(6), "apply"),
        (Some(a(5)), a(6), "apply"),
        (Some(a(5)), a(5), "known"),
        // The answer to a resync.
        (Some(a(5)), b(5), "apply"),
        (Some(a(5)), a(4), "refuse"),
        (Some(a(5)), b(4), "refuse"),
    ] {
        assert_eq!(name(&snapshot(held, to)), expected, "{held:?} {to:?}");
    }
    assert_eq!(
        snapshot(Some(a(5)), b(4)),
        Verdict::Refuse("older generation 4 (this edge has 5; generations only grow)".to_owned())
    );
}

#[test]
fn checkpoints_find_what_is_missing_or_wrong() {
    let (a, b) = marks();
    for (held, to, refused, asks) in [
        (Some(a(5)), a(5), None, false),
        (Some(a(5)), b(5), None, true),
        (Some(a(5)), b(6), None, true),
        (Some(a(5)), b(6), Some(6), false),
        (Some(a(5)), b(7), Some(6), true),
        (Some(a(5)), b(4), None, false),
        (None, a(1), None, true),
        (None, a(1), Some(1), false),
    ] {
        let reason = checkpoint(held, to, refused);
        assert_eq!(
            reason.is_some(),
            asks,
            "{held:?} {to:?} {refused:?}: {reason:?}"
        );
    }
}

fn name(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Apply => "apply",
        Verdict::Known => "known",
        Verdict::Refuse(_) => "refuse",
        Verdict::Resync(_) => "resync",
    }
}
