//! What a breaker does, case by case.

use std::time::{Duration, Instant};

use super::super::{Admission, Breaker, BreakerState, Fault, Ticket};
use crate::table::CircuitBreaker;
use BreakerState::{Closed, HalfOpen, Open};

const SECOND: Duration = Duration::from_secs(1);

const SETTINGS: CircuitBreaker = CircuitBreaker {
    failure_threshold: 3,
    timeout: Duration::from_secs(30),
};

#[track_caller]
fn admitted(admission: Admission) -> (Ticket, Option<BreakerState>) {
    match admission {
        Admission::Admitted { ticket, transition } => (ticket, transition),
        Admission::Refused { retry_after } => panic!("refused for {retry_after:?}"),
    }
}

#[track_caller]
fn refused(admission: Admission) -> Duration {
    match admission {
        Admission::Admitted { ticket, .. } => panic!("admitted with {ticket:?}"),
        Admission::Refused { retry_after } => retry_after,
    }
}

#[track_caller]
fn ticket(breaker: &mut Breaker, now: Instant) -> Ticket {
    admitted(breaker.admit(&SETTINGS, now)).0
}

/// One that failures opened at `now`.
fn open(now: Instant) -> Breaker {
    let mut breaker = Breaker::new(now);
    for _ in 0..SETTINGS.failure_threshold {
        let ticket = ticket(&mut breaker, now);
        breaker.failed(&SETTINGS, ticket, Fault::NoAnswer, now);
    }
    assert_eq!(breaker.state(), Open);
    breaker
}

#[test]
fn words_and_json_are_the_same() {
    for (index, state) in BreakerState::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, index);
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}

/// Each letter is one request, admitted and done before the next: `n` gets no
/// answer, `b` breaks in its body, `a` is answered and abandoned by its client,
/// `c` is completed, `l` is left before its answer.
#[test]
fn failures_in_a_row_open_it() {
    for (requests, expected) in [
        ("", Closed),
        ("nn", Closed),
        ("nnn", Open),
        ("nncn", Closed),
        ("nnan", Closed),
        ("nnln", Open),
        ("nncnnn", Open),
        // A good header does not make up for broken bodies; a whole one does.
        ("bb", Closed),
        ("bbb", Open),
        ("babab", Open),
        ("bbcb", Closed),
        // Each kind has a count of its own.
        ("nnb", Closed),
        ("bbn", Closed),
        ("nnbn", Closed),
        ("cccccccc", Closed),
    ] {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        for request in requests.chars() {
            let ticket = ticket(&mut breaker, now);
            match request {
                'n' => _ = breaker.failed(&SETTINGS, ticket, Fault::NoAnswer, now),
                'b' => {
                    let (ticket, _) = breaker.answered(ticket, now);
                    breaker.failed(&SETTINGS, ticket, Fault::BrokenBody, now);
                }
                'a' => {
                    let (ticket, _) = breaker.answered(ticket, now);
                    breaker.abandoned(ticket);
                }
                'c' => _ = breaker.completed(ticket, now),
                'l' => breaker.abandoned(ticket),
                _ => unreachable!(),
            }
        }
        assert_eq!(breaker.state(), expected, "{requests}");
    }
}

#[test]
fn it_opens_waits_probes_and_closes() {
    let start = Instant::now();
    let mut breaker = Breaker::new(start);
    assert_eq!((breaker.state(), breaker.since()), (Closed, start));

    let opened = start + SECOND;
    for expected in [None, None, Some(Open)] {
        let ticket = ticket(&mut breaker, opened);
        let transition = breaker.failed(&SETTINGS, ticket, Fault::NoAnswer, opened);
        assert_eq!(transition, expected);
    }
    assert_eq!((breaker.state(), breaker.since()), (Open, opened));
    assert_eq!(
        refused(breaker.admit(&SETTINGS, opened + 10 * SECOND)),
        20 * SECOND
    );

    let probed = opened + SETTINGS.timeout;
    let (probe, transition) = admitted(breaker.admit(&SETTINGS, probed));
    assert!(probe.is_probe());
    assert_eq!(transition, Some(HalfOpen));
    assert_eq!((breaker.state(), breaker.since()), (HalfOpen, probed));
    assert_eq!(refused(breaker.admit(&SETTINGS, probed)), SECOND);

    let closed = probed + SECOND;
    let (rest, transition) = breaker.answered(probe, closed);
    assert_eq!(transition, Some(Closed));
    assert!(!rest.is_probe());
    assert_eq!((breaker.state(), breaker.since()), (Closed, closed));
    assert_eq!(breaker.completed(rest, closed + SECOND), None);
    assert_eq!(breaker.since(), closed);
}

#[test]
fn a_probe_that_fails_starts_the_timeout_anew() {
    for fault in [Fault::NoAnswer, Fault::BrokenBody] {
        let start = Instant::now();
        let mut breaker = open(start);
        let probed = start + 50 * SECOND;
        let probe = ticket(&mut breaker, probed);
        let failed = probed + SECOND;
        assert_eq!(
            breaker.failed(&SETTINGS, probe, fault, failed),
            Some(Open),
            "{fault:?}"
        );
        assert_eq!(breaker.since(), failed);
        assert_eq!(refused(breaker.admit(&SETTINGS, failed)), SETTINGS.timeout);
    }
}

#[test]
fn a_probe_that_completes_without_a_word_before_closes_it() {
    let start = Instant::now();
    let mut breaker = open(start);
    let probe = ticket(&mut breaker, start + SETTINGS.timeout);
    let done = start + 40 * SECOND;
    assert_eq!(breaker.completed(probe, done), Some(Closed));
    assert!(breaker.calm().is_some());
}

#[test]
fn the_body_of_a_probe_that_closed_it_counts_like_any_other() {
    let start = Instant::now();
    let mut breaker = open(start);
    let now = start + SETTINGS.timeout;
    let probe = ticket(&mut breaker, now);
    let (rest, _) = breaker.answered(probe, now);
    assert_eq!(
        breaker.failed(&SETTINGS, rest, Fault::BrokenBody, now),
        None
    );
    assert!(breaker.calm().is_none(), "the failure was counted");
    for expected in [None, Some(Open)] {
        let ticket = ticket(&mut breaker, now);
        let transition = breaker.failed(&SETTINGS, ticket, Fault::BrokenBody, now);
        assert_eq!(transition, expected);
    }
}

#[test]
fn an_abandoned_probe_leaves_its_place_to_the_next() {
    let start = Instant::now();
    let mut breaker = open(start);
    let now = start + SETTINGS.timeout;
    let first = ticket(&mut breaker, now);
    breaker.abandoned(first);
    assert_eq!(breaker.state(), HalfOpen);
    let (second, transition) = admitted(breaker.admit(&SETTINGS, now));
    assert!(second.is_probe());
    assert_eq!(transition, None, "it was half-open before");

    // The first has no say any more.
    breaker.abandoned(first);
    refused(breaker.admit(&SETTINGS, now));
    assert_eq!(breaker.answered(first, now).1, None);
    assert_eq!(breaker.failed(&SETTINGS, first, Fault::NoAnswer, now), None);
    assert_eq!(breaker.state(), HalfOpen);
    assert_eq!(breaker.answered(second, now).1, Some(Closed));
}

#[test]
fn outcomes_of_requests_from_before_a_transition_are_ignored() {
    let start = Instant::now();
    let mut breaker = Breaker::new(start);
    let early: Vec<Ticket> = (0..8).map(|_| ticket(&mut breaker, start)).collect();
    for ticket in &early[..3] {
        breaker.failed(&SETTINGS, *ticket, Fault::NoAnswer, start);
    }
    assert_eq!(breaker.state(), Open);
    let later = start + SECOND;
    assert_eq!(
        breaker.failed(&SETTINGS, early[3], Fault::NoAnswer, later),
        None
    );
    assert_eq!(breaker.since(), start, "the timeout does not start anew");

    let now = start + SETTINGS.timeout;
    let probe = ticket(&mut breaker, now);
    assert_eq!(breaker.completed(early[4], now), None);
    breaker.abandoned(early[5]);
    refused(breaker.admit(&SETTINGS, now));

    breaker.answered(probe, now);
    for ticket in &early {
        assert_eq!(
            breaker.failed(&SETTINGS, *ticket, Fault::NoAnswer, now),
            None
        );
    }
    assert!(breaker.calm().is_some());
}

#[test]
fn settings_change_under_a_breaker_that_keeps_its_state() {
    let start = Instant::now();
    let mut breaker = Breaker::new(start);
    let patient = CircuitBreaker {
        failure_threshold: 100,
        timeout: 60 * SECOND,
    };
    for _ in 0..50 {
        let ticket = ticket(&mut breaker, start);
        assert_eq!(
            breaker.failed(&patient, ticket, Fault::NoAnswer, start),
            None
        );
    }
    // Far above the new threshold: the next failure opens it, not the change.
    let (ticket, _) = admitted(breaker.admit(&SETTINGS, start));
    assert_eq!(
        breaker.failed(&SETTINGS, ticket, Fault::NoAnswer, start),
        Some(Open)
    );
    let later = start + 40 * SECOND;
    assert_eq!(breaker.would_admit(&patient, later), Err(20 * SECOND));
    assert_eq!(breaker.would_admit(&SETTINGS, later), Ok(()));
    assert_eq!(breaker.state(), Open, "asking changes nothing");
}

#[test]
fn a_calm_breakers_ticket_is_as_good_as_an_admitted_one() {
    let now = Instant::now();
    let mut breaker = Breaker::new(now);
    for expected in [None, None, Some(Open)] {
        let ticket = Breaker::new(now).calm().expect("a new one is calm");
        let transition = breaker.failed(&SETTINGS, ticket, Fault::NoAnswer, now);
        assert_eq!(transition, expected);
        assert!(breaker.calm().is_none());
    }
}
