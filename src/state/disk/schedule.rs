//! When there is something to write: a function of what happened and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::state::generation::Generation;
use crate::table::Digest;

/// The least time between two whole tables that are written: of generations that
/// come in a burst, the last one is kept and those in between need not be.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// The same of changes, which are small.
pub(super) const CHANGE_SPACING: Duration = Duration::from_millis(100);

/// How soon a write that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// How often it is noted that there is a control plane.
pub(super) const CONTACT: Duration = Duration::from_secs(60);

/// Writing takes at most one part in so many of the time, however large tables
/// are and however often they change.
const SHARE: u32 = 20;

/// In the time that a generation has to serve, so many are put to that test.
const TESTED: u32 = 8;

/// A generation by what tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub number: u64,
    pub digest: Digest,
    pub applied_at: SystemTime,
}

/// What has been written of the generations that are being served.
#[derive(Debug)]
pub(super) struct Schedule {
    promote_after: Duration,
    /// The newest, and when it was first seen.
    serving: Option<(Served, Instant)>,
    /// How many of [`STEPS`] are done for it.
    done: usize,
    /// Before when none of a kind is taken again.
    not_before: [Option<Instant>; KINDS],
    /// Those on disk that will have served for long enough, as whatever followed
    /// them was built on them; each with when it began.
    tested: VecDeque<(Served, Instant)>,
    /// When the control plane was last asked after.
    contact: Instant,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Note that the generation is being served: at once, because it may be what
    /// ends the process.
    Note,
    /// Write how it differs from what was written last.
    Append,
    /// Write its table.
    Store,
    /// Note that this one has served for long enough.
    Promote(Served),
    /// Note that there is a control plane.
    Contact,
}

const STEPS: [Step; 3] = [Step::Note, Step::Append, Step::Store];
const KINDS: usize = 5;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Well,
    /// The generation is on disk, but its whole table ought to be.
    Long,
    /// It is not on disk: only its whole table can be.
    Whole,
    Failed,
}

impl Outcome {
    pub fn of(well: bool) -> Self {
        if well { Self::Well } else { Self::Failed }
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Take(Step),
    /// Nothing, before this moment or another generation.
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
            Self::Note => 0,
            Self::Append => 1,
            Self::Store => 2,
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
            tested: VecDeque::new(),
            contact: now,
        }
    }

    /// The generation is being served.
    pub fn serving(&mut self, served: Served, now: Instant) {
        if self
            .serving
            .is_none_or(|(last, _)| last.number != served.number)
        {
            self.serving = Some((served, now));
            self.done = 0;
        }
    }

    /// When the current generation began to be served, as far as this knows.
    pub fn since(&self) -> Option<Instant> {
        self.serving.map(|(_, since)| since)
    }

    pub fn next(&self, now: Instant) -> Next {
        let (Some((_, since)), tested) = (self.serving, self.tested.front()) else {
            return Next::Wait(None);
        };
        let steps = [
            STEPS.get(self.done).map(|step| (*step, since)),
            tested.map(|(served, since)| (Step::Promote(*served), *since + self.promote_after)),
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

    /// `step` was taken, from `began` until `now`.
    pub fn taken(&mut self, step: Step, outcome: Outcome, began: Instant, now: Instant) {
        let busy = now.saturating_duration_since(began).saturating_mul(SHARE);
        let pause = match (outcome, step) {
            (Outcome::Failed, _) => RETRY,
            (_, Step::Append) => busy.max(CHANGE_SPACING),
            (_, Step::Store) => busy.max(SPACING),
            (_, Step::Note | Step::Promote(_) | Step::Contact) => busy,
        };
        if let Some(not_before) = self.not_before.get_mut(step.kind()) {
            *not_before = now.checked_add(pause);
        }
        match step {
            Step::Contact => self.contact = now,
            _ if outcome == Outcome::Failed => {}
            Step::Promote(_) => {
                self.tested.pop_front();
            }
            Step::Note => self.done = 1,
            Step::Append | Step::Store => {
                self.done = match outcome {
                    Outcome::Long | Outcome::Whole if step == Step::Append => 2,
                    _ => STEPS.len(),
                };
                if outcome != Outcome::Whole {
                    self.test();
                }
            }
        }
    }

    /// Puts the current generation to the test. Of many, the last one is always, and
    /// of the others as many as are needed for a good one to be never much older than
    /// it has to be.
    fn test(&mut self) {
        let Some((served, since)) = self.serving else {
            return;
        };
        let spacing = self.promote_after / TESTED;
        let mut last = self
            .tested
            .iter()
            .rev()
            .map(|(served, since)| (served.number, *since));
        if let (Some((number, newest)), before) = (last.next(), last.next()) {
            let close = |(_, before)| newest.saturating_duration_since(before) < spacing;
            if number == served.number || before.is_some_and(close) {
                self.tested.pop_back();
            }
        }
        self.tested.push_back((served, since));
    }
}
