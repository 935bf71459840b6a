//! The breaker against a naive model, over random sequences of operations.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;

use super::super::{Admission, Breaker, BreakerState, Fault, Ticket};
use crate::table::CircuitBreaker;
use BreakerState::{Closed, HalfOpen, Open};

#[derive(Clone, Debug)]
enum Op {
    Admit,
    /// Of the ticket given out so many before the last one, settled or not.
    Answered(usize),
    Completed(usize),
    Failed(usize, Fault),
    Abandoned(usize),
    /// To this many milliseconds from now; back, as clocks of two threads differ.
    Time(i64),
    Settings(CircuitBreaker),
}

fn settings() -> impl Strategy<Value = CircuitBreaker> {
    (1..4_u32, 1..50_u64).prop_map(|(failure_threshold, timeout)| CircuitBreaker {
        failure_threshold,
        timeout: Duration::from_millis(timeout),
    })
}

fn op() -> impl Strategy<Value = Op> {
    // Mostly late ones, as those before the last transition do not count.
    let ticket = || prop_oneof![6 => 0..3_usize, 1 => 0..100_usize];
    let fault = select(vec![Fault::NoAnswer, Fault::BrokenBody]);
    prop_oneof![
        8 => Just(Op::Admit),
        3 => ticket().prop_map(Op::Answered),
        2 => ticket().prop_map(Op::Completed),
        8 => (ticket(), fault).prop_map(|(ticket, fault)| Op::Failed(ticket, fault)),
        2 => ticket().prop_map(Op::Abandoned),
        4 => prop_oneof![0..60_i64, -3..3_i64, Just(1_000_000)].prop_map(Op::Time),
        1 => settings().prop_map(Op::Settings),
    ]
}

/// What happened while closed.
#[derive(Clone, Copy, PartialEq)]
enum Event {
    Header,
    Whole,
    Fault(Fault),
}

/// A breaker without counters and epochs: it remembers everything, and goes
/// through all tickets with every transition.
struct Model {
    state: BreakerState,
    since: u64,
    events: Vec<Event>,
    tickets: Vec<Known>,
}

#[derive(Clone, Copy)]
struct Known {
    counts: bool,
    probe: bool,
    /// When it was given out.
    since: u64,
}

impl Model {
    fn enter(&mut self, state: BreakerState, now: u64) -> Option<BreakerState> {
        self.state = state;
        self.since = now;
        self.events.clear();
        self.tickets
            .iter_mut()
            .for_each(|known| known.counts = false);
        Some(state)
    }

    fn probes_out(&self) -> usize {
        let out = |known: &&Known| known.probe && known.counts;
        self.tickets.iter().filter(out).count()
    }

    fn admits(&self, settings: &CircuitBreaker, now: u64) -> bool {
        match self.state {
            Closed => true,
            Open => now >= self.since + settings.timeout.as_millis() as u64,
            HalfOpen => self.tickets.iter().all(|known| {
                let age = now.saturating_sub(known.since);
                !(known.probe && known.counts) || age >= settings.timeout.as_millis() as u64
            }),
        }
    }

    fn admit(&mut self, now: u64) -> Option<BreakerState> {
        let transition = if self.state == Open {
            self.enter(HalfOpen, now)
        } else {
            None
        };
        let probe = self.state == HalfOpen;
        for known in &mut self.tickets {
            // Only one that is overdue is still out here.
            known.counts &= !(probe && known.probe);
        }
        self.tickets.push(Known {
            counts: true,
            probe,
            since: now,
        });
        transition
    }

    fn well(&mut self, ticket: usize, event: Event, now: u64) -> Option<BreakerState> {
        if !self.tickets[ticket].counts {
            return None;
        }
        if self.state != HalfOpen {
            self.events.push(event);
            return None;
        }
        let transition = self.enter(Closed, now);
        self.tickets[ticket] = Known {
            counts: event == Event::Header,
            probe: false,
            since: now,
        };
        transition
    }

    fn failed(
        &mut self,
        threshold: u32,
        ticket: usize,
        fault: Fault,
        now: u64,
    ) -> Option<BreakerState> {
        if !self.tickets[ticket].counts {
            return None;
        }
        self.events.push(Event::Fault(fault));
        let opens = self.state == HalfOpen || self.in_a_row(fault) >= threshold as usize;
        if opens { self.enter(Open, now) } else { None }
    }

    fn in_a_row(&self, fault: Fault) -> usize {
        let ends = |event: &Event| match fault {
            Fault::NoAnswer => matches!(event, Event::Header | Event::Whole),
            Fault::BrokenBody => *event == Event::Whole,
        };
        let run = self.events.iter().rev().take_while(|event| !ends(event));
        run.filter(|event| **event == Event::Fault(fault)).count()
    }

    fn is_calm(&self) -> bool {
        let none = |fault| self.in_a_row(fault) == 0;
        self.state == Closed && none(Fault::NoAnswer) && none(Fault::BrokenBody)
    }
}

/// The breaker and its model, side by side.
struct Pair {
    start: Instant,
    now: u64,
    settings: CircuitBreaker,
    breaker: Breaker,
    tickets: Vec<Ticket>,
    model: Model,
}

impl Pair {
    fn new(settings: CircuitBreaker) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: 0,
            settings,
            breaker: Breaker::new(start),
            tickets: Vec::new(),
            model: Model {
                state: Closed,
                since: 0,
                events: Vec::new(),
                tickets: Vec::new(),
            },
        }
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_millis(milliseconds)
    }

    fn run(&mut self, op: &Op) {
        let (now, instant) = (self.now, self.at(self.now));
        let settings = self.settings;
        let pick = |back: &usize| self.tickets.len().checked_sub(back + 1);
        match op {
            Op::Admit => self.admit(),
            Op::Answered(back) => {
                let Some(index) = pick(back) else { return };
                let (ticket, transition) = self.breaker.answered(self.tickets[index], instant);
                self.tickets[index] = ticket;
                assert_eq!(transition, self.model.well(index, Event::Header, now));
            }
            Op::Completed(back) => {
                let Some(index) = pick(back) else { return };
                let transition = self.breaker.completed(self.tickets[index], instant);
                assert_eq!(transition, self.model.well(index, Event::Whole, now));
            }
            Op::Failed(back, fault) => {
                let Some(index) = pick(back) else { return };
                let ticket = self.tickets[index];
                let transition = self.breaker.failed(&settings, ticket, *fault, instant);
                let threshold = settings.failure_threshold;
                assert_eq!(transition, self.model.failed(threshold, index, *fault, now));
            }
            Op::Abandoned(back) => {
                let Some(index) = pick(back) else { return };
                self.breaker.abandoned(self.tickets[index]);
                let known = &mut self.model.tickets[index];
                known.counts &= !known.probe;
            }
            Op::Time(by) => self.now = now.saturating_add_signed(*by),
            Op::Settings(settings) => self.settings = *settings,
        }
    }

    fn admit(&mut self) {
        let (now, instant) = (self.now, self.at(self.now));
        let expected = self.model.admits(&self.settings, now);
        let would = self.breaker.would_admit(&self.settings, instant);
        assert_eq!(would.is_ok(), expected, "{:?} at {now}", self.breaker);
        match self.breaker.admit(&self.settings, instant) {
            Admission::Admitted { ticket, transition } => {
                assert!(expected);
                assert_eq!(transition, self.model.admit(now));
                assert_eq!(ticket.is_probe(), self.model.state == HalfOpen);
                self.tickets.push(ticket);
            }
            Admission::Refused { retry_after } => {
                assert_eq!(would, Err(retry_after));
                self.check_retry_after(retry_after);
            }
        }
    }

    /// Open admits after exactly this long, unless time went back.
    fn check_retry_after(&self, retry_after: Duration) {
        assert!(!retry_after.is_zero());
        if self.model.state == Open && self.now >= self.model.since {
            let due = self.at(self.now) + retry_after;
            assert_eq!(self.breaker.would_admit(&self.settings, due), Ok(()));
            let early = due - Duration::from_nanos(1);
            assert!(self.breaker.would_admit(&self.settings, early).is_err());
        }
    }

    fn compare(&self) {
        assert_eq!(self.breaker.state(), self.model.state);
        assert_eq!(self.breaker.since(), self.at(self.model.since));
        assert_eq!(self.breaker.calm().is_some(), self.model.is_calm());
        assert!(self.model.probes_out() <= 1);
        let half_open = self.model.state == HalfOpen;
        assert!(half_open || self.model.probes_out() == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_breaker_does_what_its_model_does(
        settings in settings(),
        ops in prop::collection::vec(op(), 0..200),
    ) {
        let mut pair = Pair::new(settings);
        for op in &ops {
            pair.run(op);
            pair.compare();
        }

        // Whatever happened, once all are settled and time has passed, it admits.
        for ticket in &pair.tickets {
            pair.breaker.abandoned(*ticket);
        }
        let later = pair.at(pair.now + 2_000_000);
        let admission = pair.breaker.admit(&pair.settings, later);
        prop_assert!(matches!(admission, Admission::Admitted { .. }), "{:?}", pair.breaker);
    }
}
