//! When recurring jobs are due, and how many run at a time.
//!
//! The resolver's lookups and the prober's probes are such jobs. The number of places is
//! bounded. A job that ran into its deadline will probably do so again, so such jobs may have
//! at most half of the places: a thousand host names that hang do not delay the others.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// Whether a job is expected to run into its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// It has not run yet, or ended in time. May have all places.
    Prompt,
    /// It ran into its deadline the last time. May have at most half of the places.
    Slow,
}

/// A place that a job has taken. Give it to [`Schedule::release`] when the job ends.
#[must_use = "a place that is not released is lost"]
#[derive(Debug)]
pub(crate) struct Place(Lane);

/// Due times by key, and the places of running jobs.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    /// Of both lanes together.
    places: usize,
    prompt: Queue<K>,
    slow: Queue<K>,
    planned: HashMap<K, (Instant, Lane)>,
}

#[derive(Debug)]
struct Queue<K> {
    /// Earliest first.
    due: BTreeSet<(Instant, K)>,
    places: usize,
    taken: usize,
}

impl<K: Ord + Clone + Hash> Schedule<K> {
    /// At most `places` jobs run at a time, at least one.
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        Self {
            places,
            prompt: Queue::new(places),
            slow: Queue::new((places / 2).max(1)),
            planned: HashMap::new(),
        }
    }

    /// Makes `key` due at `at`, in place of any earlier plan for it.
    pub fn plan(&mut self, key: K, at: Instant, lane: Lane) {
        self.remove(&key);
        self.queue(lane).due.insert((at, key.clone()));
        self.planned.insert(key, (at, lane));
    }

    /// Removes the plan for `key`. A running job of it keeps its place until that is
    /// released.
    pub fn remove(&mut self, key: &K) {
        if let Some((key, (at, lane))) = self.planned.remove_entry(key) {
            self.queue(lane).due.remove(&(at, key));
        }
    }

    /// When `key` is due; none while its job runs, or without a plan.
    pub fn due(&self, key: &K) -> Option<Instant> {
        self.planned.get(key).map(|(at, _)| *at)
    }

    /// The next time at which [`Schedule::pop_due`] returns a key, unless a place is
    /// released before.
    pub fn next_due(&self) -> Option<Instant> {
        self.next().map(|(at, _)| at)
    }

    /// Takes the key that has been due for longest among those that there is a place for,
    /// and removes its plan.
    pub fn pop_due(&mut self, now: Instant) -> Option<(K, Place)> {
        let (at, lane) = self.next()?;
        if at > now {
            return None;
        }
        let queue = self.queue(lane);
        let (_, key) = queue.due.pop_first()?;
        queue.taken += 1;
        self.planned.remove(&key);
        Some((key, Place(lane)))
    }

    /// Ends the job that `place` was taken for.
    pub fn release(&mut self, place: Place) {
        let queue = self.queue(place.0);
        queue.taken = queue.taken.saturating_sub(1);
    }

    fn next(&self) -> Option<(Instant, Lane)> {
        if self.prompt.taken + self.slow.taken >= self.places {
            return None;
        }
        let prompt = self.prompt.next().map(|at| (at, Lane::Prompt));
        let slow = self.slow.next().map(|at| (at, Lane::Slow));
        match (prompt, slow) {
            (Some(prompt), Some(slow)) => Some(if slow.0 < prompt.0 { slow } else { prompt }),
            (one, other) => one.or(other),
        }
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue<K> {
        match lane {
            Lane::Prompt => &mut self.prompt,
            Lane::Slow => &mut self.slow,
        }
    }
}

/// Returns at `time`; never if there is none.
pub(crate) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl<K: Ord> Queue<K> {
    fn new(places: usize) -> Self {
        Self {
            due: BTreeSet::new(),
            places,
            taken: 0,
        }
    }

    fn next(&self) -> Option<Instant> {
        let first = self.due.first().map(|(at, _)| *at);
        first.filter(|_| self.taken < self.places)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_come_when_they_are_due() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut schedule = Schedule::new(4);
        assert_eq!(schedule.next_due(), None);
        schedule.plan("late", at(9), Lane::Prompt);
        schedule.plan("b", at(2), Lane::Prompt);
        schedule.plan("a", at(1), Lane::Slow);
        schedule.plan("late", at(3), Lane::Slow);
        assert_eq!(schedule.next_due(), Some(at(1)));
        assert!(schedule.pop_due(start).is_none(), "nothing is due yet");
        let popped = |schedule: &mut Schedule<_>| schedule.pop_due(at(5)).map(|(key, _)| key);
        assert_eq!(popped(&mut schedule), Some("a"));
        assert_eq!(schedule.due(&"a"), None);
        assert_eq!(schedule.due(&"b"), Some(at(2)));
        schedule.remove(&"b");
        assert_eq!(popped(&mut schedule), Some("late"));
        assert_eq!(popped(&mut schedule), None);
    }

    #[test]
    fn slow_ones_leave_half_of_the_places() {
        let start = Instant::now();
        let mut schedule = Schedule::new(4);
        for key in 0..10 {
            schedule.plan(key, start, Lane::Slow);
        }
        let late = start + Duration::from_secs(1);
        let (_, place) = schedule.pop_due(late).unwrap();
        let _second = schedule.pop_due(late).unwrap();
        assert!(schedule.pop_due(late).is_none(), "half of them");
        assert_eq!(schedule.next_due(), None, "waiting would be in vain");
        for key in 10..15 {
            schedule.plan(key, late, Lane::Prompt);
        }
        assert_eq!(schedule.pop_due(late).unwrap().0, 10);
        assert_eq!(schedule.pop_due(late).unwrap().0, 11);
        assert!(schedule.pop_due(late).is_none(), "all of them");
        // Due for longer than the rest.
        schedule.release(place);
        assert_eq!(schedule.pop_due(late).unwrap().0, 2);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Plan(u8, u8, bool),
        Remove(u8),
        Pop(u8),
        Release(usize),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => (0u8..12, 0u8..8, any::<bool>())
                .prop_map(|(key, at, slow)| Operation::Plan(key, at, slow)),
            1 => (0u8..12).prop_map(Operation::Remove),
            4 => (0u8..8).prop_map(Operation::Pop),
            2 => (0usize..8).prop_map(Operation::Release),
        ]
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn any_operations(places in 1usize..6, operations in prop::collection::vec(operation(), 0..80)) {
            let start = Instant::now();
            let time = |at: u8| start + Duration::from_secs(at.into());
            let mut schedule = Schedule::new(places);
            let mut model: Vec<(u8, u8, bool)> = Vec::new();
            let mut taken: Vec<Place> = Vec::new();
            for operation in operations {
                match operation {
                    Operation::Plan(key, at, slow) => {
                        schedule.plan(key, time(at), if slow { Lane::Slow } else { Lane::Prompt });
                        model.retain(|(known, ..)| *known != key);
                        model.push((key, at, slow));
                    }
                    Operation::Remove(key) => {
                        schedule.remove(&key);
                        model.retain(|(known, ..)| *known != key);
                    }
                    Operation::Pop(now) => {
                        let slow = taken.iter().filter(|place| place.0 == Lane::Slow).count();
                        let may = |is_slow: bool| {
                            taken.len() < places && !(is_slow && slow >= (places / 2).max(1))
                        };
                        let expected = model
                            .iter()
                            .filter(|(_, at, slow)| *at <= now && may(*slow))
                            .min_by_key(|(key, at, slow)| (*at, *slow, *key))
                            .map(|(key, ..)| *key);
                        let popped = schedule.pop_due(time(now));
                        prop_assert_eq!(popped.as_ref().map(|(key, _)| *key), expected);
                        if let Some((key, place)) = popped {
                            model.retain(|(known, ..)| *known != key);
                            taken.push(place);
                        }
                    }
                    Operation::Release(which) => {
                        if which < taken.len() {
                            schedule.release(taken.swap_remove(which));
                        }
                    }
                }
                for (key, at, _) in &model {
                    prop_assert_eq!(schedule.due(key), Some(time(*at)));
                }
            }
        }
    }
}
