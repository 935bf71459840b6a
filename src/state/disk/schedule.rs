//! When to write what. Pure: the time is a parameter, and no file is touched.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::state::generation::Generation;
use crate::table::Digest;

/// The least time between two snapshots. Of generations that come in a burst, only the last
/// one has to be stored.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// The least time between two deltas: a burst is stored as one.
pub(super) const DELTA_SPACING: Duration = Duration::from_millis(100);

/// How soon a failed write is retried.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// How often the last contact with the control plane is stored.
pub(super) const CONTACT: Duration = Duration::from_secs(60);

/// Writing takes at most one part in this many of the time, whatever the size of tables and
/// the rate of changes.
const SHARE: u32 = 20;

/// At most about this many generations wait for their promotion at a time.
const ON_PROBATION: u32 = 8;

/// What identifies a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub number: u64,
    pub digest: Digest,
    pub applied_at: SystemTime,
}

/// What is written of the generations that are served, and what is due next.
#[derive(Debug)]
pub(super) struct Schedule {
    promote_after: Duration,
    /// The current generation, and when it was first seen.
    serving: Option<(Served, Instant)>,
    /// How many of [`STEPS`] are done for the current generation.
    done: usize,
    /// By kind of step: the earliest time of the next one.
    not_before: [Option<Instant>; KINDS],
    /// Stored generations that are promoted once `promote_after` has passed since they began
    /// to be served, also when others follow, as these build on them.
    on_probation: VecDeque<(Served, Instant)>,
    /// When the last contact with the control plane was last stored.
    contact: Instant,
}

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Record in the journal that the generation is served. At once, because the generation
    /// may crash the process.
    Journal,
    /// Store how the table differs from the one stored before it.
    Delta,
    /// Store the whole table.
    Snapshot,
    /// Record that this generation has served for `promote_after`.
    Promote(Served),
    /// Store the last contact with the control plane.
    Contact,
}

const STEPS: [Step; 3] = [Step::Journal, Step::Delta, Step::Snapshot];
const KINDS: usize = 5;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The generation is stored as a delta, but there are so many that it should be stored as
    /// a snapshot.
    DeltasTooLong,
    /// The generation cannot be stored as a delta.
    NeedsSnapshot,
    Failed,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Take(Step),
    /// Nothing until this time or another generation; none: until another generation.
    Wait(Option<Instant>),
}

impl Served {
    pub fn of(generation: &Generation) -> Self {
        Self {
            number: generation.number,
            digest: generation.table.digest(),
            applied_at: generation.applied_at,
        }
    }
}

impl Step {
    fn kind(self) -> usize {
        match self {
            Self::Journal => 0,
            Self::Delta => 1,
            Self::Snapshot => 2,
            Self::Promote(_) => 3,
            Self::Contact => 4,
        }
    }
}

impl Schedule {
    pub fn new(promote_after: Duration, now: Instant) -> Self {
        Self {
            promote_after,
            serving: None,
            done: 0,
            not_before: [None; KINDS],
            on_probation: VecDeque::new(),
            contact: now,
        }
    }

    /// The current generation is `served`.
    pub fn serving(&mut self, served: Served, now: Instant) {
        if self
            .serving
            .is_none_or(|(last, _)| last.number != served.number)
        {
            self.serving = Some((served, now));
            self.done = 0;
        }
    }

    /// When the current generation was first seen.
    pub fn since(&self) -> Option<Instant> {
        self.serving.map(|(_, since)| since)
    }

    pub fn next(&self, now: Instant) -> Next {
        let (Some((_, since)), on_probation) = (self.serving, self.on_probation.front()) else {
            return Next::Wait(None);
        };
        let steps = [
            STEPS.get(self.done).map(|step| (*step, since)),
            on_probation
                .map(|(served, since)| (Step::Promote(*served), *since + self.promote_after)),
            Some((Step::Contact, self.contact + CONTACT)),
        ];
        let mut soonest: Option<Instant> = None;
        for (step, due) in steps.into_iter().flatten() {
            let earliest = self.not_before.get(step.kind()).copied().flatten();
            let due = earliest.map_or(due, |earliest| earliest.max(due));
            if due <= now {
                return Next::Take(step);
            }
            soonest = Some(soonest.map_or(due, |soonest| soonest.min(due)));
        }
        Next::Wait(soonest)
    }

    /// `step` ran from `began` to `now`.
    pub fn taken(&mut self, step: Step, outcome: Outcome, began: Instant, now: Instant) {
        let busy = now.saturating_duration_since(began).saturating_mul(SHARE);
        let pause = match (outcome, step) {
            (Outcome::Failed, _) => RETRY,
            (_, Step::Delta) => busy.max(DELTA_SPACING),
            (_, Step::Snapshot) => busy.max(SPACING),
            (_, Step::Journal | Step::Promote(_) | Step::Contact) => busy,
        };
        if let Some(not_before) = self.not_before.get_mut(step.kind()) {
            *not_before = now.checked_add(pause);
        }
        match step {
            Step::Contact => self.contact = now,
            _ if outcome == Outcome::Failed => {}
            Step::Promote(_) => {
                self.on_probation.pop_front();
            }
            Step::Journal => self.done = 1,
            Step::Delta | Step::Snapshot => {
                self.done = match outcome {
                    Outcome::DeltasTooLong | Outcome::NeedsSnapshot if step == Step::Delta => 2,
                    _ => STEPS.len(),
                };
                if outcome != Outcome::NeedsSnapshot {
                    self.put_on_probation();
                }
            }
        }
    }

    /// Puts the current generation on probation. In a stream of generations, replaces the one
    /// before it if that is close to the one before that: the newest is always on probation,
    /// and the others are spaced evenly.
    fn put_on_probation(&mut self) {
        let Some((served, since)) = self.serving else {
            return;
        };
        let spacing = self.promote_after / ON_PROBATION;
        let mut last = self
            .on_probation
            .iter()
            .rev()
            .map(|(served, since)| (served.number, *since));
        if let (Some((number, newest)), before) = (last.next(), last.next()) {
            let close = |(_, before)| newest.saturating_duration_since(before) < spacing;
            if number == served.number || before.is_some_and(close) {
                self.on_probation.pop_back();
            }
        }
        self.on_probation.push_back((served, since));
    }
}
