//! What became of the tables that were served, and what follows for the next
//! start. A function of its input: no file, no clock.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The only format there is.
const FORMAT: u32 = 1;

/// How many generations are kept.
pub(super) const KEPT: usize = 5;

/// How many generations are remembered: more than are kept, so that one that
/// was condemned is not forgotten for the sake of a few that were not.
const REMEMBERED: usize = 20;

/// Two crashes this close together are no coincidence.
const LOOP: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    format: u32,
    /// The process that served last, or does.
    run: Option<Run>,
    /// When the last process began to serve what it served last that crashed on
    /// something unproven; none since something has proved to be good.
    #[serde(default, with = "optional_time")]
    crash: Option<SystemTime>,
    /// When a control plane was last heard.
    #[serde(default, with = "optional_time")]
    contact: Option<SystemTime>,
    /// In the order in which they were applied, the newest last.
    generations: Vec<Entry>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    /// The generation that it served last.
    serving: u64,
    /// When it began to serve that one.
    #[serde(with = "time")]
    since: SystemTime,
    /// Whether it ended because it was told to.
    ended: bool,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub number: u64,
    /// Of its content.
    pub digest: String,
    #[serde(with = "time")]
    applied_at: SystemTime,
    /// When it had served for long enough to count as good.
    #[serde(with = "optional_time")]
    promoted_at: Option<SystemTime>,
    /// When the last process began to serve it that crashed before that.
    #[serde(with = "optional_time")]
    crashed: Option<SystemTime>,
    /// When it was given up, for having crashed twice.
    #[serde(with = "optional_time")]
    condemned_at: Option<SystemTime>,
}

/// A whole table on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub number: u64,
    /// With those of the changes that followed it.
    pub bytes: u64,
}

impl Journal {
    /// Reads what [`Journal::to_json`] wrote.
    ///
    /// # Errors
    ///
    /// Why that is not what this is.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let journal: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match journal.format {
            FORMAT => Ok(journal),
            other => Err(format!("it has the format {other} (known: {FORMAT})")),
        }
    }

    /// For the file, and for people who look into it.
    pub fn to_json(&self) -> Vec<u8> {
        let journal = Self {
            format: FORMAT,
            ..self.clone()
        };
        // Texts and numbers can always be written.
        let mut text = serde_json::to_vec_pretty(&journal).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Judges how the last process ended. Says which generations have to go
    /// because of it, the newest first. To be asked once for each end of a process.
    ///
    /// In a stream of changes, no two processes crash on the same generation: each
    /// is built on the one before. So two crashes on unproven ones are a loop,
    /// whichever they are.
    pub fn judge(&mut self, now: SystemTime) -> Vec<u64> {
        let Some(run) = self.run.as_mut().filter(|run| !run.ended) else {
            return Vec::new();
        };
        run.ended = true;
        let (number, since) = (run.serving, run.since);
        // Of one that was only tried, nothing may be known.
        let entry = self.entry_of(number, "", since);
        if entry.promoted_at.is_some() || entry.condemned_at.is_some() {
            return Vec::new();
        }
        // The version before knew of crashes by generation only.
        let known = entry.crashed.replace(since);
        let before = self.crash.replace(since).or(known);
        if before.is_none_or(|before| apart(before, since) > LOOP) {
            return Vec::new();
        }
        let in_loop = |entry: &&mut Entry| {
            let crashed = entry.crashed.is_some_and(|it| apart(it, since) <= LOOP);
            crashed && entry.promoted_at.is_none() && entry.condemned_at.is_none()
        };
        let condemned = self.generations.iter_mut().rev().filter(in_loop);
        let condemned = condemned.map(|entry| {
            entry.condemned_at = Some(now);
            entry.number
        });
        condemned.collect()
    }

    /// The generations of `stored` to start with, the best first: the one that
    /// was served last, if that was not condemned, then good ones, then the others;
    /// newer ones first. None of them is condemned.
    pub fn candidates(&self, stored: &[u64]) -> Vec<u64> {
        let last = self.last_served();
        let newest = stored.iter().copied().max();
        // Without a journal, the newest is all that is known.
        let first = last.filter(|last| stored.contains(last)).or(newest);
        // What it was built on is not to be trusted either, unless it is proven.
        let first = first.filter(|_| last.is_none_or(|last| !self.is_condemned(last)));
        let mut candidates: Vec<u64> = stored
            .iter()
            .copied()
            .filter(|number| !self.is_condemned(*number))
            .collect();
        candidates.sort_by_key(|number| {
            let rank = (Some(*number) != first, !self.is_promoted(*number));
            (rank, std::cmp::Reverse(*number))
        });
        candidates
    }

    /// The condemned ones, the newest first.
    pub fn condemned(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.generations.iter().rev();
        entries.filter(|entry| entry.condemned_at.is_some())
    }

    /// The newest generation, when it is condemned: what the edge would serve
    /// if it had not crashed.
    pub fn given_up(&self) -> Option<&Entry> {
        let newest = self.generations.last();
        newest.filter(|newest| newest.condemned_at.is_some())
    }

    /// From `now` on, this process tries to serve the generation `number`, which
    /// may be the end of it.
    pub fn trying(&mut self, number: u64, now: SystemTime) {
        self.run = Some(Run {
            serving: number,
            since: now,
            ended: false,
        });
    }

    /// The generation that this process serves, or the last one did.
    pub fn last_served(&self) -> Option<u64> {
        self.run.as_ref().map(|run| run.serving)
    }

    /// From `since` on, this process serves the generation `number`. It is put
    /// on probation, unless it has passed.
    pub fn serving(
        &mut self,
        number: u64,
        digest: &str,
        applied_at: SystemTime,
        since: SystemTime,
    ) {
        self.trying(number, since);
        self.know(number, digest, applied_at);
    }

    /// There is a generation `number`; if it was forgotten, it is remembered again.
    pub fn know(&mut self, number: u64, digest: &str, applied_at: SystemTime) {
        let entry = self.entry_of(number, digest, applied_at);
        if entry.digest.is_empty() {
            digest.clone_into(&mut entry.digest);
        } else if entry.digest != digest {
            *entry = Entry::new(number, digest, applied_at);
        }
        while self.generations.len() > REMEMBERED {
            self.forget_one(number);
        }
    }

    /// The generation has served for long enough.
    pub fn promote(&mut self, number: u64, now: SystemTime) {
        if let Some(entry) = self.entry(number) {
            entry.promoted_at.get_or_insert(now);
            entry.crashed = None;
            // It was served for want of a better one, and proved to be good.
            entry.condemned_at = None;
            self.crash = None;
        }
    }

    /// A control plane was last heard then, if it is known.
    pub fn heard(&mut self, contact: Option<SystemTime>) {
        self.contact = contact.or(self.contact);
    }

    /// When a control plane was last heard.
    pub fn contact(&self) -> Option<SystemTime> {
        self.contact
    }

    /// The process ends because it was told to.
    pub fn end(&mut self) {
        if let Some(run) = &mut self.run {
            run.ended = true;
        }
    }

    pub fn is_promoted(&self, number: u64) -> bool {
        self.find(number)
            .is_some_and(|entry| entry.promoted_at.is_some())
    }

    /// The newest one that has served for long enough.
    pub fn newest_promoted(&self) -> Option<u64> {
        let mut entries = self.generations.iter().rev();
        entries
            .find(|entry| entry.promoted_at.is_some())
            .map(|entry| entry.number)
    }

    pub fn is_condemned(&self, number: u64) -> bool {
        self.find(number)
            .is_some_and(|entry| entry.condemned_at.is_some())
    }

    /// The highest number there ever was, as far as this remembers.
    pub fn highest(&self) -> u64 {
        let numbers = self.generations.iter().map(|entry| entry.number);
        numbers.max().unwrap_or_default()
    }

    /// Which of these files go when at most [`KEPT`] stay, of `most_bytes`
    /// together. The one that is served and the newest good one stay in any case;
    /// either may be among the changes that followed a file.
    pub fn superfluous(&self, files: &[File], most_bytes: u64) -> Vec<u64> {
        let holds = |number: u64| {
            let before = files.iter().map(|file| file.number);
            before.filter(|file| *file <= number).max()
        };
        let serving = self.last_served().and_then(holds);
        let good = self.newest_promoted().and_then(holds);
        let needed = |number| Some(number) == serving || Some(number) == good;
        let mut order: Vec<&File> = files.iter().collect();
        order.sort_by_key(|file| (!needed(file.number), std::cmp::Reverse(file.number)));
        let (mut kept, mut bytes) = (0, 0u64);
        let mut superfluous = Vec::new();
        for file in order {
            let grown = bytes.saturating_add(file.bytes);
            if needed(file.number) || kept < KEPT && grown <= most_bytes {
                (kept, bytes) = (kept + 1, grown);
            } else {
                superfluous.push(file.number);
            }
        }
        superfluous
    }

    /// Forgets one, not the newest and not `needed`: the oldest of which nothing is
    /// known but that it was there, else the oldest good one that is not among the
    /// newest. A stream of changes is not to drive out what is known to be bad.
    fn forget_one(&mut self, needed: u64) {
        let good = self.generations.iter().rev();
        let good = good.filter(|entry| entry.promoted_at.is_some());
        let newest_good: Vec<u64> = good.take(KEPT).map(|entry| entry.number).collect();
        let newest = self.highest();
        let least = |(index, entry): (usize, &Entry)| {
            let bad = entry.crashed.is_some() || entry.condemned_at.is_some();
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

    /// What is remembered of the generation `number`, from now on.
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
            condemned_at: None,
        }
    }
}

/// However the clock was set meanwhile.
fn apart(one: SystemTime, other: SystemTime) -> Duration {
    other
        .duration_since(one)
        .unwrap_or_else(|error| error.duration())
}

/// Times as text.
mod time {
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

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::telemetry::time::rfc3339_millis;

    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
        time.map(rfc3339_millis).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| humantime::parse_rfc3339(&text).map_err(D::Error::custom))
            .transpose()
    }
}
