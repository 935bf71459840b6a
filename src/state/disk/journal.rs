//! Which generations proved good, which made the edge crash, and what follows from that for
//! the next start. Pure: the time is a parameter, and no file is touched.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Most snapshots that are kept.
pub(super) const KEPT: usize = 5;

/// Most generations that the journal lists: more than are kept, so that a quarantined
/// generation is not forgotten in favour of a few others.
const LISTED: usize = 20;

/// Two crashes at most this far apart are a crash loop.
const CRASH_LOOP: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The current process, or the last one.
    run: Option<Run>,
    /// Of the last process that crashed on a generation not yet promoted: when it began to
    /// serve that generation. None since a generation was promoted.
    #[serde(with = "optional_time")]
    last_crash: Option<SystemTime>,
    /// When a control plane was last connected.
    #[serde(with = "optional_time")]
    last_contact: Option<SystemTime>,
    /// In ascending order of their numbers.
    generations: Vec<Entry>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    /// The generation that it served last.
    serving: u64,
    /// When it began to serve that generation.
    #[serde(with = "time")]
    since: SystemTime,
    /// Whether it ended in order.
    ended: bool,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub number: u64,
    /// Of the table; empty when the table was never read.
    pub digest: String,
    #[serde(with = "time")]
    applied_at: SystemTime,
    /// When it had served for `promote_after`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_time"
    )]
    promoted_at: Option<SystemTime>,
    /// Of the last process that crashed on it before it was promoted: when that process
    /// began to serve it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_time"
    )]
    crashed: Option<SystemTime>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_time"
    )]
    quarantined_at: Option<SystemTime>,
}

/// A snapshot in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotSize {
    pub number: u64,
    /// Including the deltas that follow it.
    pub bytes: u64,
}

impl Journal {
    /// Judges how the last process ended. Returns the generations that are quarantined
    /// because of it, the newest first. Call it once for each end of a process.
    ///
    /// In a stream of deltas, no two processes crash on the same generation: each
    /// generation builds on the one before. So two crashes on generations not yet promoted
    /// are a crash loop, whatever their numbers.
    pub fn judge(&mut self, now: SystemTime) -> Vec<u64> {
        let Some(run) = self.run.as_mut().filter(|run| !run.ended) else {
            return Vec::new();
        };
        run.ended = true;
        let (number, since) = (run.serving, run.since);
        // The process may have crashed before the generation was listed.
        let entry = self.entry_of(number, "", since);
        if entry.promoted_at.is_some() || entry.quarantined_at.is_some() {
            return Vec::new();
        }
        // Promoting another generation clears only `last_crash`.
        let crashed_before = entry.crashed.replace(since);
        let before = self.last_crash.replace(since).or(crashed_before);
        if before.is_none_or(|before| apart(before, since) > CRASH_LOOP) {
            return Vec::new();
        }
        let in_loop = |entry: &&mut Entry| {
            let crashed = entry
                .crashed
                .is_some_and(|it| apart(it, since) <= CRASH_LOOP);
            crashed && entry.promoted_at.is_none() && entry.quarantined_at.is_none()
        };
        let quarantined = self.generations.iter_mut().rev().filter(in_loop);
        let quarantined = quarantined.map(|entry| {
            entry.quarantined_at = Some(now);
            entry.number
        });
        quarantined.collect()
    }

    /// The generations of `stored` to try at start, in this order: the one that was served
    /// last, unless it is quarantined; promoted ones; the others; newer ones first. None of
    /// them is quarantined.
    pub fn candidates(&self, stored: &[u64]) -> Vec<u64> {
        let last = self.last_served();
        let newest = stored.iter().copied().max();
        // Without a journal, only the order of the numbers is known.
        let first = last.filter(|last| stored.contains(last)).or(newest);
        // If the last one is quarantined, the one that it builds on comes after the
        // promoted ones.
        let first = first.filter(|_| last.is_none_or(|last| !self.is_quarantined(last)));
        let mut candidates: Vec<u64> = stored
            .iter()
            .copied()
            .filter(|number| !self.is_quarantined(*number))
            .collect();
        candidates.sort_by_key(|number| {
            let rank = (Some(*number) != first, !self.is_promoted(*number));
            (rank, Reverse(*number))
        });
        candidates
    }

    /// The quarantined generations, the newest first.
    pub fn quarantined(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.generations.iter().rev();
        entries.filter(|entry| entry.quarantined_at.is_some())
    }

    /// The newest generation if it is quarantined: what the edge would serve had it not
    /// crashed.
    pub fn newest_if_quarantined(&self) -> Option<&Entry> {
        let newest = self.generations.last();
        newest.filter(|newest| newest.quarantined_at.is_some())
    }

    /// From `now` on, this process tries to serve the generation `number`. Reading it may
    /// crash the process.
    pub fn trying(&mut self, number: u64, now: SystemTime) {
        self.run = Some(Run {
            serving: number,
            since: now,
            ended: false,
        });
    }

    /// The generation that this process serves, or the last process served.
    pub fn last_served(&self) -> Option<u64> {
        self.run.as_ref().map(|run| run.serving)
    }

    /// This process has served the generation `number` since `since`.
    pub fn serving(
        &mut self,
        number: u64,
        digest: &str,
        applied_at: SystemTime,
        since: SystemTime,
    ) {
        self.trying(number, since);
        self.list(number, digest, applied_at);
    }

    /// Lists the generation `number`, again if it was forgotten.
    pub fn list(&mut self, number: u64, digest: &str, applied_at: SystemTime) {
        let entry = self.entry_of(number, digest, applied_at);
        if entry.digest.is_empty() {
            digest.clone_into(&mut entry.digest);
        } else if entry.digest != digest {
            *entry = Entry::new(number, digest, applied_at);
        }
        while self.generations.len() > LISTED {
            self.forget_one(number);
        }
    }

    /// The generation `number` has served for `promote_after`.
    pub fn promote(&mut self, number: u64, now: SystemTime) {
        if let Some(entry) = self.entry(number) {
            entry.promoted_at.get_or_insert(now);
            entry.crashed = None;
            // It was served because there was no other, and proved good.
            entry.quarantined_at = None;
            self.last_crash = None;
        }
    }

    /// Sets when a control plane was last connected; `None` keeps what is known.
    pub fn set_last_contact(&mut self, contact: Option<SystemTime>) {
        self.last_contact = contact.or(self.last_contact);
    }

    /// When a control plane was last connected.
    pub fn last_contact(&self) -> Option<SystemTime> {
        self.last_contact
    }

    /// The process ends in order.
    pub fn end(&mut self) {
        if let Some(run) = &mut self.run {
            run.ended = true;
        }
    }

    pub fn is_promoted(&self, number: u64) -> bool {
        self.find(number)
            .is_some_and(|entry| entry.promoted_at.is_some())
    }

    pub fn newest_promoted(&self) -> Option<u64> {
        let mut entries = self.generations.iter().rev();
        entries
            .find(|entry| entry.promoted_at.is_some())
            .map(|entry| entry.number)
    }

    pub fn is_quarantined(&self, number: u64) -> bool {
        self.find(number)
            .is_some_and(|entry| entry.quarantined_at.is_some())
    }

    /// The highest number that is listed; 0 if none is.
    pub fn highest(&self) -> u64 {
        let numbers = self.generations.iter().map(|entry| entry.number);
        numbers.max().unwrap_or_default()
    }

    /// Which of `snapshots` to delete, with the deltas that follow them, so that at most
    /// [`KEPT`] of at most `most_bytes` together stay. The snapshots that hold the generation
    /// served and the newest promoted one stay in any case; either generation may be one of
    /// the deltas that follow a snapshot.
    pub fn superfluous(&self, snapshots: &[SnapshotSize], most_bytes: u64) -> Vec<u64> {
        let holds = |number: u64| {
            let before = snapshots.iter().map(|snapshot| snapshot.number);
            before.filter(|snapshot| *snapshot <= number).max()
        };
        let serving = self.last_served().and_then(holds);
        let good = self.newest_promoted().and_then(holds);
        let needed = |number| Some(number) == serving || Some(number) == good;
        let mut order: Vec<&SnapshotSize> = snapshots.iter().collect();
        order.sort_by_key(|snapshot| (!needed(snapshot.number), Reverse(snapshot.number)));
        let (mut kept, mut bytes) = (0, 0u64);
        let mut superfluous = Vec::new();
        for snapshot in order {
            let grown = bytes.saturating_add(snapshot.bytes);
            if needed(snapshot.number) || kept < KEPT && grown <= most_bytes {
                (kept, bytes) = (kept + 1, grown);
            } else {
                superfluous.push(snapshot.number);
            }
        }
        superfluous
    }

    /// Forgets one generation, neither the newest nor `needed`: the oldest that was neither
    /// promoted nor crashed, else the oldest promoted one that is not among the newest
    /// [`KEPT`] of these. So a stream of deltas does not evict what crashed.
    fn forget_one(&mut self, needed: u64) {
        let good = self.generations.iter().rev();
        let good = good.filter(|entry| entry.promoted_at.is_some());
        let newest_good: Vec<u64> = good.take(KEPT).map(|entry| entry.number).collect();
        let newest = self.highest();
        let least = |(index, entry): (usize, &Entry)| {
            let bad = entry.crashed.is_some() || entry.quarantined_at.is_some();
            let worth = match entry.number {
                number if number == newest || number == needed => 3,
                number if bad || newest_good.contains(&number) => 2,
                _ => u8::from(entry.promoted_at.is_some()),
            };
            (worth, index)
        };
        let entries = self.generations.iter().enumerate();
        if let Some((_, index)) = entries.map(least).min() {
            self.generations.remove(index);
        }
    }

    /// The entry of the generation `number`, which is added if there is none.
    fn entry_of(&mut self, number: u64, digest: &str, applied_at: SystemTime) -> &mut Entry {
        let entries = &mut self.generations;
        let index = match entries.iter().position(|entry| entry.number == number) {
            Some(index) => index,
            None => {
                let after = entries.iter().position(|entry| entry.number > number);
                let index = after.unwrap_or(entries.len());
                entries.insert(index, Entry::new(number, digest, applied_at));
                index
            }
        };
        &mut entries[index]
    }

    fn find(&self, number: u64) -> Option<&Entry> {
        self.generations.iter().find(|entry| entry.number == number)
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let mut entries = self.generations.iter_mut();
        entries.find(|entry| entry.number == number)
    }
}

impl Entry {
    fn new(number: u64, digest: &str, applied_at: SystemTime) -> Self {
        Self {
            number,
            digest: digest.to_owned(),
            applied_at,
            promoted_at: None,
            crashed: None,
            quarantined_at: None,
        }
    }
}

/// The clock may have been set back in between.
fn apart(one: SystemTime, other: SystemTime) -> Duration {
    other
        .duration_since(one)
        .unwrap_or_else(|error| error.duration())
}

/// Times as RFC 3339 text with milliseconds.
pub(super) mod time {
    use std::time::SystemTime;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::telemetry::time::rfc3339_millis;

    pub fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&rfc3339_millis(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

mod optional_time {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::time;

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "time")] SystemTime);

    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Time>::deserialize(from)?.map(|time| time.0))
    }
}
