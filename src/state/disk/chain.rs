//! What is on disk, as generations: whole tables, each with the changes that followed
//! it.

use super::changes::{self, Base, Change, Changes};
use super::directory::{Directory, changes_name};
use super::record::Stored;
use crate::table::Digest;

/// A whole table and what followed it.
#[derive(Debug)]
pub(super) struct Chain {
    /// The number of the whole table.
    pub base: u64,
    /// What can be read of the changes.
    changes: Option<Changes>,
    changes_bytes: u64,
    /// Why that is not all of them.
    broken: Option<String>,
}

/// What is on disk, in the order of the numbers.
#[derive(Debug, Default)]
pub(super) struct Chains(Vec<Chain>);

/// A generation that was put together.
#[derive(Debug)]
pub(super) struct Found {
    pub stored: Stored,
    /// Where the next change can be added; none: nowhere.
    pub end: Option<End>,
}

/// The end of the newest chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub base: Base,
    pub base_bytes: u64,
    pub changes_bytes: u64,
}

/// Why a generation cannot be put together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub why: String,
    /// From this one on, none can that is made of the same whole table.
    pub from: u64,
}

impl Chains {
    /// Reads all changes, and no whole table. Logs what is wrong with them.
    pub fn find(directory: &Directory) -> Self {
        let tables = directory.generations().unwrap_or_default();
        let chains = tables
            .iter()
            .map(|file| Chain::find(directory, file.number));
        Self(chains.collect())
    }

    /// The generations that there seem to be.
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for (index, chain) in self.0.iter().enumerate() {
            numbers.push(chain.base);
            // What is in a later whole table as well is found there.
            let next = self.0.get(index + 1).map_or(u64::MAX, |next| next.base);
            let changes = chain.changes().iter().map(|change| change.generation);
            numbers.extend(changes.take_while(|number| *number < next));
        }
        numbers
    }

    /// The number of the whole table that the generation `number` is made of.
    pub fn base_of(&self, number: u64) -> Option<u64> {
        let chains = self.0.iter().rev();
        let mut bases = chains.map(|chain| chain.base);
        bases.find(|base| *base <= number)
    }

    /// The generation `number`.
    pub fn read(&self, directory: &Directory, number: u64) -> Result<Found, Broken> {
        let (stored, at) = read(directory, &self.0, number, None)?;
        let newest = self.0.len().checked_sub(1);
        let chain = newest
            .filter(|_| at == newest)
            .and_then(|at| self.0.get(at));
        let end = chain.and_then(|chain| chain.end(directory, &stored));
        Ok(Found { stored, end })
    }
}

/// The generation `number`, which has this digest if one is given; and the index of
/// its chain, if it was made of nothing else.
fn read(
    directory: &Directory,
    chains: &[Chain],
    number: u64,
    digest: Option<Digest>,
) -> Result<(Stored, Option<usize>), Broken> {
    let mut broken = None;
    for (index, chain) in chains.iter().enumerate().rev() {
        let Some(changes) = chain.up_to(number) else {
            continue;
        };
        let before = chains.get(..index).unwrap_or_default();
        match chain.replay(directory, before, changes) {
            Ok((stored, _)) if digest.is_some_and(|it| it != stored.table.digest()) => {}
            Ok((stored, alone)) => return Ok((stored, alone.then_some(index))),
            Err(why) => {
                broken.get_or_insert(why);
            }
        }
    }
    Err(broken.unwrap_or_else(|| Broken {
        why: "it is not there".to_owned(),
        from: number,
    }))
}

impl Chain {
    fn find(directory: &Directory, base: u64) -> Self {
        let bytes = directory.changes(base);
        let changes_bytes = match &bytes {
            Ok(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            // Nothing can be added to what cannot be read.
            Err(_) => u64::MAX,
        };
        let read = match bytes {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => changes::read(&bytes).map(Some),
            Err(error) => Err(error.to_string()),
        };
        let read = read.and_then(|changes| match changes {
            Some(changes) if changes.base.number != base => {
                Err(format!("it is of generation {}", changes.base.number))
            }
            changes => Ok(changes),
        });
        let (changes, broken) = match read {
            Ok(changes) => {
                let broken = changes.as_ref().and_then(|changes| changes.broken.clone());
                (changes, broken)
            }
            Err(why) => (None, Some(why)),
        };
        let chain = Self {
            base,
            changes,
            changes_bytes,
            broken,
        };
        if let Some(why) = &chain.broken {
            let last = chain.changes().last().map_or(base, |last| last.generation);
            log::error!(
                target: "cellgate::state",
                "the changes after generation {last} in {} are skipped: {why}",
                directory.path.join(changes_name(base)).display()
            );
        }
        chain
    }

    fn changes(&self) -> &[Change] {
        let changes = self.changes.as_ref();
        changes.map_or(&[], |changes| changes.changes.as_slice())
    }

    /// The changes that lead to the generation `number`; none if none do.
    fn up_to(&self, number: u64) -> Option<&[Change]> {
        if number == self.base {
            return Some(&[]);
        }
        let changes = self.changes();
        let index = changes
            .binary_search_by_key(&number, |change| change.generation)
            .ok()?;
        changes.get(..=index)
    }

    /// What comes of `changes`; and whether nothing of the chains `before` was needed
    /// for it.
    fn replay(
        &self,
        directory: &Directory,
        before: &[Chain],
        changes: &[Change],
    ) -> Result<(Stored, bool), Broken> {
        let base = self.changes.as_ref().map(|changes| changes.base);
        let (start, alone) = match directory.read(self.base) {
            Ok(stored) => (stored, true),
            Err(why) => {
                // The changes before it may lead there as well.
                let digest = base.map(|base| base.digest);
                let again = read(directory, before, self.base, digest);
                let (stored, _) = again.map_err(|_| Broken {
                    why: why.clone(),
                    from: self.base,
                })?;
                log::error!(
                    target: "cellgate::state",
                    "generation {} in {} is put together from the changes before it: {why}",
                    self.base,
                    directory.path.display()
                );
                (stored, false)
            }
        };
        let Some(last) = changes.last() else {
            return Ok((start, alone));
        };
        let mut table = start.table;
        if base.is_none_or(|base| base.digest != table.digest()) {
            return Err(Broken {
                why: "its change is of another table".to_owned(),
                from: self.base.saturating_add(1),
            });
        }
        for change in changes {
            table = change.apply(&table).map_err(|why| Broken {
                why: format!("of the change to generation {}, {why}", change.generation),
                from: change.generation,
            })?;
        }
        let stored = last.stored(table).map_err(|why| Broken {
            why,
            from: last.generation,
        })?;
        Ok((stored, alone))
    }

    /// Where a change of `stored` can be added.
    fn end(&self, directory: &Directory, stored: &Stored) -> Option<End> {
        let last = self
            .changes()
            .last()
            .map_or(self.base, |last| last.generation);
        if last != stored.number || self.broken.is_some() {
            return None;
        }
        let digest = stored.table.digest();
        let base = match &self.changes {
            Some(changes) => changes.base,
            None => Base {
                number: self.base,
                digest,
            },
        };
        if last == self.base && base.digest != digest {
            return None;
        }
        Some(End {
            base,
            base_bytes: directory.bytes(self.base),
            changes_bytes: self.changes_bytes,
        })
    }
}
